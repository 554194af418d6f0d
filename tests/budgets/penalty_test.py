"""Budgets without a limit."""

import jax
import jax.numpy as jnp
import pytest

import jaxprune


def _only(keep_ratios):
    return keep_ratios["w"]


def test_weighted_is_the_weight_times_the_cost():
    budget = jaxprune.weighted(_only, 0.3)
    grad = jax.grad(lambda k: budget.penalty({"w": k}, budget.init({})))(
        jnp.float32(0.5)
    )
    assert float(grad) == pytest.approx(0.3)


def test_unlimited_has_no_penalty():
    budget = jaxprune.unlimited()
    assert float(budget.penalty({}, budget.init({}))) == 0
    assert budget.update({}, budget.init({})) == ()


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_weight_out_of_range_is_refused(weight):
    with pytest.raises(ValueError, match="weight="):
        jaxprune.weighted(_only, weight)


@pytest.mark.parametrize("make", [jaxprune.density, jaxprune.costs.relative_entropy])
def test_what_makes_a_cost_is_none(make):
    with pytest.raises(TypeError, match=rf"Pass `{make.__name__}\(params\)`"):
        jaxprune.weighted(make, 0.1)
