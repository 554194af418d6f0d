"""The protocols of the library, and the types that its folders share."""

from jaxprune.base._final import Final as Final
from jaxprune.base._final import FinalReport as FinalReport
from jaxprune.base._final import PruningWarning as PruningWarning
from jaxprune.base._protocols import Budget as Budget
from jaxprune.base._protocols import ChannelPruner as ChannelPruner
from jaxprune.base._protocols import Cost as Cost
from jaxprune.base._protocols import KeepRatios as KeepRatios
from jaxprune.base._protocols import Limit as Limit
from jaxprune.base._protocols import Masks as Masks
from jaxprune.base._protocols import Params as Params
from jaxprune.base._protocols import Pruned as Pruned
from jaxprune.base._protocols import Pruner as Pruner
from jaxprune.base._protocols import Variables as Variables

__all__ = [
    "Budget",
    "ChannelPruner",
    "Cost",
    "Final",
    "FinalReport",
    "KeepRatios",
    "Limit",
    "Masks",
    "Params",
    "Pruned",
    "Pruner",
    "PruningWarning",
    "Variables",
]
