"""Limits: how they are written, and which are refused."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprune
from jaxprune.base import Limit

LIKE = {"w": jnp.float32(1)}
HELD = [jaxprune.dual_ascent, jaxprune.admm, jaxprune.admm_as_published]


def _only(keep_ratios):
    return keep_ratios["w"]


def test_a_ramp_falls_from_one_to_the_limit():
    limit = jaxprune.at_most(_only, 0.2, ramp=(10, 30))
    assert [float(limit.at_most(t)) for t in (0, 10, 20, 30, 99)] == pytest.approx(
        [1.0, 1.0, 0.3, 0.2, 0.2]
    )


def test_a_limit_is_called_as_its_cost_is_called():
    assert jaxprune.at_most(_only, 0.2, name="mine").name == "mine"
    assert jaxprune.at_most(lambda k: k["w"], 0.2).name == "cost"
    assert jaxprune.at_most(jaxprune.density, 0.2).name == "density"


@pytest.mark.parametrize(
    "limit", [0.0, -0.1, 1.5, 50, 1e-144, float("nan"), np.float64(2.0)]
)
def test_a_limit_out_of_range_is_refused(limit):
    with pytest.raises(ValueError, match=r"`at_most\(limit=.*must be in \(0, 1\]"):
        jaxprune.at_most(_only, limit)
    for make in HELD:
        with pytest.raises(ValueError, match=rf"`{make.__name__}\(cost=.*\(0, 1\]"):
            make(Limit(_only, limit))


@pytest.mark.parametrize("limit", ["0.5", None, True])
def test_a_limit_that_is_no_number_is_refused(limit):
    with pytest.raises(TypeError, match=r"`at_most\(limit=.*a number in"):
        jaxprune.at_most(_only, limit)


def test_a_ramp_of_a_schedule_is_refused():
    schedule = optax.linear_schedule(1.0, 0.5, 10)
    with pytest.raises(ValueError, match="leave `ramp` out"):
        jaxprune.at_most(_only, schedule, ramp=(0, 10))


@pytest.mark.parametrize("make", HELD)
def test_what_is_no_limit_is_refused(make):
    for wrong in (_only, {"macs": 0.5}, [(_only, 0.5)], 0.5):
        with pytest.raises(TypeError, match=rf"`{make.__name__}.*must be a `Limit`"):
            make(wrong)
    with pytest.raises(ValueError, match="at least one limit"):
        make([])
    with pytest.raises(ValueError, match=r"names.*must differ"):
        make([Limit(_only, 0.5), Limit(_only, 0.3)])
    with pytest.raises(TypeError, match=r"Pass `density\(params\)`"):
        make(jaxprune.at_most(jaxprune.density, 0.5))


@pytest.mark.parametrize("make", HELD)
@pytest.mark.parametrize("end", [-0.5, 0.0, float("nan"), 5.0])
def test_a_schedule_that_leaves_the_range_is_refused(make, end):
    schedule = lambda step: jnp.where(step < 100, 1.0, end)
    budget = make(jaxprune.at_most(_only, schedule))
    if end > 1:  # larger than the dense cost is no limit
        budget.init(LIKE)
        return
    with pytest.raises(ValueError, match=r"at step 100.*must be in \(0, 1\]"):
        budget.init(LIKE)


@pytest.mark.parametrize("make", HELD)
def test_a_schedule_that_dips_below_the_minimum_is_refused(make):
    cost = lambda k: 0.3 + 0.7 * k["w"]
    dips = lambda step: jnp.where((step > 10) & (step < 15), 0.1, 0.5)
    with pytest.raises(ValueError, match=r"cost=0\.1 at step 11.*reachable cost is"):
        make(jaxprune.at_most(cost, dips, name="cost")).init(LIKE)
    # Where a schedule decides by the value of a step, fewer are looked at.
    host = lambda step: 0.1 if step > 20 else 0.5
    with pytest.raises(ValueError, match=r"cost=0\.1 at step 31"):
        make(jaxprune.at_most(cost, host, name="cost")).init(LIKE)


# Steps at which a schedule dips, from the first to the one behind the last.
_SHORT = [(n, n + 1) for n in (0, 1, 30, 999, 4095)]
_LATER = [int(2**octave) for octave in (12.3, 13.1, 16.7, 20.4, 25.9, 28.2, 30.5)]


@pytest.mark.parametrize(
    "dip", [*_SHORT, *((n, int(n * 2 ** (1 / 60))) for n in _LATER)]
)
def test_a_schedule_is_looked_at_at_all_first_steps_and_64_times_in_an_octave(dip):
    first, last = dip
    limit = lambda step: jnp.where((step >= first) & (step < last), 0.1, 0.5)
    with pytest.raises(ValueError, match=r"0\.1 at step \d+\)`: .* cannot be met"):
        jaxprune.admm(jaxprune.at_most(_only, limit), min_keep_ratio=0.2).init(LIKE)


@pytest.mark.parametrize("ramp", [(0, float("inf")), ("a", 1), (1,), 5, (0, None)])
def test_a_ramp_without_two_steps_is_refused(ramp):
    with pytest.raises(ValueError, match=r"`at_most\(ramp=.*two steps"):
        jaxprune.at_most(jaxprune.density, 0.5, ramp=ramp)
