"""The codes that say how a budget stands."""

import jax.numpy as jnp
import pytest

from jaxprune.budgets import Result
from jaxprune.budgets._result import result_of


@pytest.mark.parametrize("result", list(Result))
def test_every_result_has_a_message(result):
    assert result.message.endswith(".")


@pytest.mark.parametrize(
    ("cost", "want"),
    [
        ([0.5, 0.2], Result.MET),
        ([0.504, 0.2], Result.MET),
        ([0.506, 0.2], Result.NOT_MET),
        ([0.5, jnp.nan], Result.DIVERGED),
        ([0.5, jnp.inf], Result.DIVERGED),
    ],
)
def test_a_cost_is_met_up_to_one_percent_above_its_limit(cost, want):
    assert int(result_of(jnp.array(cost), jnp.array([0.5, 0.2]))) == want
