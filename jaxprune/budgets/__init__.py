"""Budgets: fixed penalty weights and hard limits on costs."""

from jaxprune.budgets._admm import admm as admm
from jaxprune.budgets._admm_as_published import admm_as_published as admm_as_published
from jaxprune.budgets._admm_state import AdmmState as AdmmState
from jaxprune.budgets._dual_ascent import DualAscentState as DualAscentState
from jaxprune.budgets._dual_ascent import dual_ascent as dual_ascent
from jaxprune.budgets._limits import at_most as at_most
from jaxprune.budgets._penalty import unlimited as unlimited
from jaxprune.budgets._penalty import weighted as weighted
from jaxprune.budgets._result import Result as Result

__all__ = [
    "AdmmState",
    "DualAscentState",
    "Result",
    "admm",
    "admm_as_published",
    "at_most",
    "dual_ascent",
    "unlimited",
    "weighted",
]
