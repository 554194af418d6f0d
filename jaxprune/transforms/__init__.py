"""Gradient transformations: proximal steps, thresholds, frozen masks.

=====================  ========================================================
`lats`                 soft-threshold latent weights, to a size or along a
                       schedule; around any optimizer
`gradual_magnitude`    keep the largest weights, to a size; around any optimizer
`ista`, `fista`        L1 penalty behind SGD; `ista` also to a size
`adam_ista`            L1 penalty or a size, with Adam
`proximal`, `accelerated_proximal`, `preconditioned_proximal`, `latent_proximal`
                       the same four ways with any prox
`reach_keep_ratio`, `follow_threshold`
                       move the thresholds of `jaxprune.soft_thresholding`
`non_negative_gradients`
                       let variables only fall, as DSA is published
`freeze_pruned`        hold pruned weights at zero
`finalize`             the network and the masks at the end
`check`                raise if one of these is not in its place
=====================  ========================================================

All of them prune what `where` selects, the kernels by default; every other leaf moves
exactly as under the optimizer alone.
"""

from jaxprune.transforms._accelerated import (
    AcceleratedProximalState as AcceleratedProximalState,
)
from jaxprune.transforms._accelerated import (
    accelerated_proximal as accelerated_proximal,
)
from jaxprune.transforms._accelerated import fista as fista
from jaxprune.transforms._check import check as check
from jaxprune.transforms._check import finalize as finalize
from jaxprune.transforms._freeze import FreezePrunedState as FreezePrunedState
from jaxprune.transforms._freeze import freeze_pruned as freeze_pruned
from jaxprune.transforms._latent import LatentProximalState as LatentProximalState
from jaxprune.transforms._latent import latent_proximal as latent_proximal
from jaxprune.transforms._latent import lats as lats
from jaxprune.transforms._non_negative import (
    non_negative_gradients as non_negative_gradients,
)
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
from jaxprune.transforms._proximal import ProximalState as ProximalState
from jaxprune.transforms._proximal import gradual_magnitude as gradual_magnitude
from jaxprune.transforms._proximal import ista as ista
from jaxprune.transforms._proximal import proximal as proximal
from jaxprune.transforms._thresholds import ThresholdState as ThresholdState
from jaxprune.transforms._thresholds import follow_threshold as follow_threshold
from jaxprune.transforms._thresholds import reach_keep_ratio as reach_keep_ratio
from jaxprune.transforms._watch import Watch as Watch

__all__ = [
    "AcceleratedProximalState",
    "FreezePrunedState",
    "LatentProximalState",
    "PreconditionedProximalState",
    "ProximalState",
    "ThresholdState",
    "Watch",
    "accelerated_proximal",
    "adam_ista",
    "adam_preconditioner",
    "check",
    "finalize",
    "fista",
    "follow_threshold",
    "freeze_pruned",
    "gradual_magnitude",
    "ista",
    "latent_proximal",
    "lats",
    "non_negative_gradients",
    "preconditioned_proximal",
    "proximal",
    "reach_keep_ratio",
]
