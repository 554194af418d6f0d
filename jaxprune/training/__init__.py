"""Training: a method, its limits and an optimizer as one value; the final network."""

from jaxprune.training._nnx import nnx_module as nnx_module
from jaxprune.training._pruning import Pruning as Pruning
from jaxprune.training._pruning import PruningState as PruningState
from jaxprune.training._pruning import pruning as pruning

__all__ = [
    "Pruning",
    "PruningState",
    "nnx_module",
    "pruning",
]
