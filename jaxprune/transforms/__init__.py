"""Gradient transformations: proximal steps, thresholds, frozen masks."""

from jaxprune.transforms._accelerated import (
    AcceleratedProximalState as AcceleratedProximalState,
)
from jaxprune.transforms._accelerated import (
    accelerated_proximal as accelerated_proximal,
)
from jaxprune.transforms._accelerated import fista as fista
from jaxprune.transforms._freeze import FreezePrunedState as FreezePrunedState
from jaxprune.transforms._freeze import freeze_pruned as freeze_pruned
from jaxprune.transforms._preconditioned import (
    PreconditionedProximalState as PreconditionedProximalState,
)
from jaxprune.transforms._preconditioned import adam_ista as adam_ista
from jaxprune.transforms._preconditioned import (
    adam_preconditioner as adam_preconditioner,
)
from jaxprune.transforms._preconditioned import (
    preconditioned_proximal as preconditioned_proximal,
)
from jaxprune.transforms._proximal import LatentProximalState as LatentProximalState
from jaxprune.transforms._proximal import ProximalState as ProximalState
from jaxprune.transforms._proximal import ista as ista
from jaxprune.transforms._proximal import latent_proximal as latent_proximal
from jaxprune.transforms._proximal import proximal as proximal
from jaxprune.transforms._thresholds import ThresholdState as ThresholdState
from jaxprune.transforms._thresholds import follow_threshold as follow_threshold
from jaxprune.transforms._thresholds import reach_keep_ratio as reach_keep_ratio

__all__ = [
    "AcceleratedProximalState",
    "FreezePrunedState",
    "LatentProximalState",
    "PreconditionedProximalState",
    "ProximalState",
    "ThresholdState",
    "accelerated_proximal",
    "adam_ista",
    "adam_preconditioner",
    "fista",
    "follow_threshold",
    "freeze_pruned",
    "ista",
    "latent_proximal",
    "preconditioned_proximal",
    "proximal",
    "reach_keep_ratio",
]
