"""Budgets: fixed penalties and hard limits on costs."""

from jaxprune.budgets._admm import admm as admm
from jaxprune.budgets._admm import admm_as_published as admm_as_published
from jaxprune.budgets._limits import AdmmState as AdmmState
from jaxprune.budgets._penalty import DualAscentState as DualAscentState
from jaxprune.budgets._penalty import Result as Result
from jaxprune.budgets._penalty import dual_ascent as dual_ascent
from jaxprune.budgets._penalty import unlimited as unlimited
from jaxprune.budgets._penalty import weighted as weighted

__all__ = [
    "AdmmState",
    "DualAscentState",
    "Result",
    "admm",
    "admm_as_published",
    "dual_ascent",
    "unlimited",
    "weighted",
]
