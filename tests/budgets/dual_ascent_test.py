"""Dual ascent on the multipliers of limits."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprune
from jaxprune.budgets import Result

LIKE = {"w": jnp.float32(1)}


def _only(keep_ratios):
    return keep_ratios["w"]


def _limit(bound):
    return jaxprune.at_most(_only, bound)


def test_dual_ascent_follows_its_formula():
    limit = optax.linear_schedule(1.0, 0.1, 10)
    budget = jaxprune.dual_ascent(
        _limit(limit), rate=0.2, gain=1.5, init_multiplier=0.5
    )
    state, log_multiplier, violation = budget.init(LIKE), np.log(0.5), 0.0
    for t, keep in enumerate([1.0, 0.9, 0.9, 0.3, 0.2, 0.9, 1e-6]):
        penalty = budget.penalty({"w": jnp.float32(keep)}, state)
        weight = np.exp(log_multiplier + 1.5 * violation)
        np.testing.assert_allclose(penalty, weight * keep, rtol=1e-5)
        state = budget.update({"w": jnp.float32(keep)}, state)
        violation = np.clip(np.log(keep / float(limit(t))), -1, 1)
        log_multiplier += 0.2 * violation
        np.testing.assert_allclose(state.log_multiplier, [log_multiplier], rtol=1e-5)
        met = keep <= 1.01 * float(limit(t))
        assert Result(int(state.result)) == (Result.MET if met else Result.NOT_MET)


def test_the_penalty_is_the_sum_over_the_limits():
    limits = [
        jaxprune.at_most(lambda k: k["a"], 0.5, name="first"),
        jaxprune.at_most(lambda k: (k["a"] + k["b"]) / 2, 0.4, name="second"),
    ]
    budget = jaxprune.dual_ascent(limits, rate=0.2, gain=1.5, init_multiplier=0.5)
    ratios = {"a": jnp.float32(0.6), "b": jnp.float32(0.9)}
    costs, violations = np.array([0.6, 0.75]), np.log([0.6 / 0.5, 0.75 / 0.4])
    state = budget.init(ratios)
    assert float(budget.penalty(ratios, state)) == pytest.approx(0.5 * sum(costs))
    state = budget.update(ratios, state)
    want = np.sum(0.5 * np.exp((0.2 + 1.5) * violations) * costs)
    assert float(budget.penalty(ratios, state)) == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize(("keep", "end"), [(1.0, 20.0), (1e-3, -20.0)])
def test_multipliers_stay_between_their_bounds_and_return_at_once(keep, end):
    budget = jaxprune.dual_ascent(_limit(0.1), rate=10.0)
    state = budget.init(LIKE)
    for _ in range(4):
        state = budget.update({"w": jnp.float32(keep)}, state)
    assert float(state.log_multiplier[0]) == end
    back = budget.update({"w": jnp.float32(0.1 * 0.1 / keep)}, state)
    assert float(back.log_multiplier[0]) == pytest.approx(0.5 * end)


def test_dual_ascent_finds_the_multiplier_of_a_convex_problem():
    """min (k - 1)^2 / 2 s.t. k <= 0.3 has the multiplier 0.7."""
    budget = jaxprune.dual_ascent(_limit(0.3))

    @jax.jit
    def step(carry, _):
        k, state = carry
        objective = lambda k: (k - 1) ** 2 / 2 + budget.penalty({"w": k}, state)
        k = k - 0.1 * jax.grad(objective)(k)
        return (k, budget.update({"w": k}, state)), None

    (k, state), _ = jax.lax.scan(
        step, (jnp.float32(1.0), budget.init(LIKE)), length=2000
    )
    assert float(k) == pytest.approx(0.3, abs=1e-4)
    assert float(jnp.exp(state.log_multiplier[0])) == pytest.approx(0.7, abs=1e-3)


def test_a_cost_that_cannot_fall_ends_at_the_largest_multiplier():
    budget = jaxprune.dual_ascent(_limit(0.1), rate=10.0)
    state = budget.init(LIKE)
    for _ in range(5):
        state = budget.update({"w": jnp.float32(1)}, state)
    assert Result(int(state.result)) == Result.MULTIPLIER_AT_BOUND
    assert np.isfinite(float(budget.penalty({"w": jnp.float32(1)}, state)))


def test_a_cost_that_is_not_finite_is_reported_and_keeps_the_multiplier():
    budget = jaxprune.dual_ascent(_limit(0.1))
    before = budget.init(LIKE)
    state = budget.update({"w": jnp.float32(jnp.nan)}, before)
    assert Result(int(state.result)) == Result.DIVERGED
    assert state.log_multiplier.tolist() == before.log_multiplier.tolist()
    # The next step is free to go on.
    assert np.isfinite(budget.penalty({"w": jnp.float32(0.7)}, state))


@pytest.mark.parametrize("argument", ["rate", "init_multiplier"])
def test_a_rate_or_multiplier_that_is_not_positive_is_refused(argument):
    with pytest.raises(ValueError, match=f"{argument}=0"):
        jaxprune.dual_ascent(_limit(0.5), **{argument: 0.0})


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_multiplier_beyond_the_bounds_is_refused(sign):
    edge = np.exp(20.0 * sign)
    near, beyond = edge * (1 - sign * 1e-3), edge * (1 + sign * 1e-3)
    state = jaxprune.dual_ascent(_limit(0.5), init_multiplier=near).init(LIKE)
    assert float(state.log_multiplier[0]) == pytest.approx(20.0 * sign, abs=2e-3)
    with pytest.raises(ValueError, match=r"init_multiplier=.*must be between 2\.1e-09"):
        jaxprune.dual_ascent(_limit(0.5), init_multiplier=beyond)


def test_damping_shortens_the_swing_past_the_limit():
    """min (k - 1)^2 / 2 s.t. k <= 0.3 with a slow k: plain dual ascent overshoots."""

    def lowest(gain):
        budget = jaxprune.dual_ascent(_limit(0.3), gain=gain)

        def step(carry, _):
            k, state = carry
            loss = lambda k: (k - 1) ** 2 / 2 + budget.penalty({"w": k}, state)
            k = jnp.clip(k - 0.02 * jax.grad(loss)(k), 1e-3, 1.0)
            return (k, budget.update({"w": k}, state)), k

        start = (jnp.float32(1.0), budget.init(LIKE))
        return float(jax.lax.scan(step, start, length=1000)[1].min())

    assert lowest(0.0) < 0.2
    assert lowest(2.0) > 0.25


@pytest.mark.parametrize("gain", [-1.0, float("nan")])
def test_a_negative_gain_is_refused(gain):
    with pytest.raises(ValueError, match="gain="):
        jaxprune.dual_ascent(_limit(0.5), gain=gain)
