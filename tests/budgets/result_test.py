"""The codes that say how a budget stands."""

import jax
import jax.numpy as jnp
import optax
import pytest

import jaxprune
from jaxprune.budgets import Result
from jaxprune.budgets._result import result_of


@pytest.mark.parametrize("result", list(Result))
def test_every_result_has_a_message(result):
    assert result.message.endswith(".")


@pytest.mark.parametrize("end", [0.3, 0.7])
def test_a_converged_run_is_called_met_at_every_update(end):
    weights, slopes = jnp.array([0.5, 0.3, 0.2]), jnp.array([0.2, 0.5, 1.0])
    limit = jaxprune.at_most(lambda k: jnp.sum(weights * k["a"]), end)
    budget, optimizer = jaxprune.admm(limit), optax.adam(0.1, b2=0.99)

    def step(carry, _):
        theta, moments, state = carry

        def objective(theta):
            ratios = {"a": jax.nn.sigmoid(theta)}
            return jnp.sum(slopes / ratios["a"]) + budget.penalty(ratios, state), ratios

        slope, ratios = jax.grad(objective, has_aux=True)(theta)
        updates, moments = optimizer.update(slope, moments, theta)
        state = budget.update(ratios, state)
        return (theta + updates, moments, state), (state.cost[0], state.result)

    theta = jnp.full(3, 3.0)
    start = theta, optimizer.init(theta), budget.init({"a": theta})
    costs, results = jax.jit(lambda c: jax.lax.scan(step, c, length=1500))(start)[1]
    assert jnp.max(jnp.abs(costs[-200:] / end - 1)) < 0.01
    assert set(results[-200:].tolist()) == {int(Result.MET)}


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
