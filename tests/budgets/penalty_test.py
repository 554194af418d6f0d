"""Prices and limits."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprune
from jaxprune.budgets import Result


def _only(keep_ratios):
    return keep_ratios["w"]


def test_parameter_ratio_equals_the_count(rng):
    params = {"a": {"kernel": jnp.ones((7, 3))}, "b": {"kernel": jnp.ones((2, 5))}}
    keep = {"a/kernel": 0.25, "b/kernel": jnp.array([0.5, 0.1])}
    want = (21 * 0.25 + 10 * 0.3) / 31
    np.testing.assert_allclose(jaxprune.density(params)(keep), want, rtol=1e-6)


def test_sites_without_a_keep_ratio_are_whole():
    assert float(jaxprune.density({"k": jnp.ones((2, 2))})({})) == 1.0


def test_a_cost_refuses_sites_that_it_does_not_know():
    cost = jaxprune.density({"kernel": jnp.ones((2, 2))})
    with pytest.raises(ValueError, match=r"\['kernal'\].*\['kernel'\]"):
        cost({"kernal": jnp.float32(1)})


def test_weighted_is_the_price_times_the_cost():
    budget = jaxprune.weighted(_only, 0.3)
    grad = jax.grad(lambda k: budget.penalty({"w": k}, budget.init()))(jnp.float32(0.5))
    assert float(grad) == pytest.approx(0.3)


def test_unlimited_is_free():
    budget = jaxprune.unlimited()
    assert float(budget.penalty({}, budget.init())) == 0
    assert budget.update({}, budget.init()) == ()


def test_dual_ascent_follows_its_formula():
    limit = optax.linear_schedule(1.0, 0.1, 10)
    budget = jaxprune.dual_ascent(_only, limit, rate=0.2, gain=1.5, init_price=0.5)
    state, log_price, violation = budget.init(), np.log(0.5), 0.0
    for t, keep in enumerate([1.0, 0.9, 0.9, 0.3, 0.2, 0.9, 1e-6]):
        penalty = budget.penalty({"w": jnp.float32(keep)}, state)
        price = np.exp(log_price + 1.5 * violation)
        np.testing.assert_allclose(penalty, price * keep, rtol=1e-5)
        state = budget.update({"w": jnp.float32(keep)}, state)
        violation = np.clip(np.log(keep / float(limit(t))), -1, 1)
        log_price += 0.2 * violation
        np.testing.assert_allclose(state.log_price, log_price, rtol=1e-5)
        met = keep <= float(limit(t))
        assert Result(int(state.result)) == (Result.MET if met else Result.NOT_YET_MET)


def test_dual_ascent_finds_the_price_of_a_convex_problem():
    """min (k - 1)^2 / 2 s.t. k <= 0.3 has the multiplier 0.7."""
    budget = jaxprune.dual_ascent(_only, 0.3)

    @jax.jit
    def step(carry, _):
        k, state = carry
        objective = lambda k: (k - 1) ** 2 / 2 + budget.penalty({"w": k}, state)
        k = k - 0.1 * jax.grad(objective)(k)
        return (k, budget.update({"w": k}, state)), None

    (k, state), _ = jax.lax.scan(step, (jnp.float32(1.0), budget.init()), length=2000)
    assert float(k) == pytest.approx(0.3, abs=1e-4)
    assert float(jnp.exp(state.log_price)) == pytest.approx(0.7, abs=1e-3)


def test_a_cost_that_cannot_fall_exhausts_the_price():
    budget = jaxprune.dual_ascent(_only, 0.1, rate=10.0)
    state = budget.init()
    for _ in range(5):
        state = budget.update({"w": jnp.float32(1)}, state)
    assert Result(int(state.result)) == Result.PRICE_EXHAUSTED
    assert np.isfinite(float(budget.penalty({"w": jnp.float32(1)}, state)))


def test_a_cost_that_is_not_finite_is_reported_and_keeps_the_price():
    budget = jaxprune.dual_ascent(_only, 0.1)
    before = budget.init()
    state = budget.update({"w": jnp.float32(jnp.nan)}, before)
    assert Result(int(state.result)) == Result.DIVERGED
    assert float(state.log_price) == float(before.log_price)
    # The next step is free to go on.
    assert np.isfinite(budget.penalty({"w": jnp.float32(0.7)}, state))


@pytest.mark.parametrize("result", list(Result))
def test_every_result_has_a_message(result):
    assert result.message.endswith(".")


@pytest.mark.parametrize("limit", [0.0, -0.1, 1.5, float("nan")])
def test_a_limit_out_of_range_is_refused(limit):
    with pytest.raises(ValueError, match=r"limit=.*must be in \(0, 1\]"):
        jaxprune.dual_ascent(_only, limit)


@pytest.mark.parametrize("argument", ["rate", "init_price"])
def test_a_rate_or_price_that_is_not_positive_is_refused(argument):
    with pytest.raises(ValueError, match=f"{argument}=0"):
        jaxprune.dual_ascent(_only, 0.5, **{argument: 0.0})


def test_damping_shortens_the_swing_past_the_limit():
    """min (k - 1)^2 / 2 s.t. k <= 0.3 with a slow k: plain dual ascent overshoots."""

    def lowest(gain):
        budget = jaxprune.dual_ascent(_only, 0.3, gain=gain)

        def step(carry, _):
            k, state = carry
            loss = lambda k: (k - 1) ** 2 / 2 + budget.penalty({"w": k}, state)
            k = jnp.clip(k - 0.02 * jax.grad(loss)(k), 1e-3, 1.0)
            return (k, budget.update({"w": k}, state)), k

        start = (jnp.float32(1.0), budget.init())
        return float(jax.lax.scan(step, start, length=1000)[1].min())

    assert lowest(0.0) < 0.2
    assert lowest(2.0) > 0.25


@pytest.mark.parametrize("gain", [-1.0, float("nan")])
def test_a_negative_gain_is_refused(gain):
    with pytest.raises(ValueError, match="gain="):
        jaxprune.dual_ascent(_only, 0.5, gain=gain)


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_price_out_of_range_is_refused(weight):
    with pytest.raises(ValueError, match="weight="):
        jaxprune.weighted(_only, weight)
