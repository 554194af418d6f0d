"""Training: a method, its limits and an optimizer as one value; distillation."""

from jaxprune.training._distillation import DistilledLoss as DistilledLoss
from jaxprune.training._distillation import distill as distill
from jaxprune.training._distillation import divergence as divergence
from jaxprune.training._distillation import hidden_error as hidden_error
from jaxprune.training._nnx import nnx_module as nnx_module
from jaxprune.training._pruning import Pruning as Pruning
from jaxprune.training._pruning import PruningState as PruningState
from jaxprune.training._pruning import pruning as pruning

__all__ = [
    "DistilledLoss",
    "Pruning",
    "PruningState",
    "distill",
    "divergence",
    "hidden_error",
    "nnx_module",
    "pruning",
]
