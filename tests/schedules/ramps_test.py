"""Ramps, and the learning rate of fine-tuning."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprune import schedules
from tests.support import reference


@pytest.mark.parametrize("step", [0, 5, 10, 13, 17, 20, 1000])
def test_cubic_ramp_equals_the_equation(step):
    ramp = schedules.cubic_ramp(1.0, 0.05, begin_step=10, end_step=20)
    want = reference.cubic_ramp(step, 1.0, 0.05, 10, 20)
    np.testing.assert_allclose(ramp(step), want, rtol=1e-6)


def test_cubic_ramp_may_begin_at_once():
    ramp = schedules.cubic_ramp(1.0, 0.05, begin_step=0, end_step=4)
    want = [reference.cubic_ramp(t, 1.0, 0.05, 0, 4) for t in range(6)]
    np.testing.assert_allclose([ramp(t) for t in range(6)], want, rtol=1e-6)


@pytest.mark.parametrize(("begin", "end"), [(-1, 5), (5, 5), (6, 5)])
def test_steps_out_of_order_are_refused(begin, end):
    with pytest.raises(ValueError, match="0 <= begin_step < end_step"):
        schedules.cubic_ramp(1.0, 0.1, begin_step=begin, end_step=end)


def test_fine_tuning_starts_at_two_thirds_of_the_peak_and_ends_at_zero():
    rate = schedules.fine_tuning(0.3, 50)
    want = 0.2 * (1 + np.cos(np.pi * np.arange(51) / 50)) / 2
    np.testing.assert_allclose([rate(t) for t in range(51)], want, atol=1e-7)
    assert float(rate(99)) == 0
    assert float(schedules.fine_tuning(0.3, 50, restart=1)(0)) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((-0.1, 5), "peak="),
        ((0.1, 0), "steps="),
        ((0.1, 5, 0.0), r"restart=0\.0"),
        ((0.1, 5, 1.5), r"restart=1\.5.*\(0, 1\]"),
    ],
)
def test_fine_tuning_refuses_what_is_out_of_range(arguments, words):
    peak, steps, *rest = arguments
    with pytest.raises(ValueError, match=rf"`fine_tuning.*{words}"):
        schedules.fine_tuning(peak, steps, **dict(zip(["restart"], rest, strict=False)))


def test_geometric_ramp_equals_the_equation():
    ramp = schedules.geometric_ramp(0.98, 100, power=2.0, variation=0.3)
    golden = (1 + np.sqrt(5)) / 2
    for t in (0, 1, 7, 50, 99, 100, 1000):
        left = 1 - min(t / 100, 1)
        varied = np.exp(0.3 * np.sqrt(left) * (t * golden % 1))
        want = 1 - min(1, 0.02 ** (1 - left**2) * varied)
        assert float(ramp(t)) == pytest.approx(want, abs=2e-6)
    assert float(ramp(100)) == np.float32(0.98)


def test_geometric_ramp_ends_at_the_sparsity_itself():
    """To the last digit, of which the logarithm of what is kept loses some."""
    for sparsity in np.linspace(0.005, 0.995, 40):
        ramp = schedules.geometric_ramp(sparsity, 3)
        assert float(ramp(3)) == float(ramp(4)) == np.float32(sparsity)


def test_geometric_ramp_takes_a_traced_sparsity_and_has_its_derivative():
    def value(sparsity, step):
        return schedules.geometric_ramp(sparsity, 10, power=1.5, variation=0)(step)

    steps = jnp.array([-3, 0, 1, 5, 9, 10, 40])
    got, slopes = jax.jit(jax.vmap(jax.value_and_grad(value), (None, 0)))(0.9, steps)
    fallen = 1 - (1 - np.clip(np.asarray(steps) / 10, 0, 1)) ** 1.5
    np.testing.assert_allclose(got, 1 - 0.1**fallen, atol=1e-6)
    # At the start and before, where the size is held at 1, either side's will do.
    np.testing.assert_allclose(
        slopes[2:], (fallen * 0.1 ** (fallen - 1))[2:], rtol=1e-5
    )
    assert np.all(np.isfinite(slopes))


def test_geometric_ramp_varies_above_the_size_and_never_below():
    smooth = schedules.geometric_ramp(0.9, 200, variation=0.0)
    varied = schedules.geometric_ramp(0.9, 200)
    steps = np.arange(1, 201)
    a, b = (1 - np.array([r(t) for t in steps]) for r in (smooth, varied))
    assert np.all(b >= a - 1e-6)
    assert np.all(b <= a * np.exp(0.3) + 1e-6)
    assert np.std(b / a) > 0.03


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"sparsity": 1.0, "steps": 5}, r"sparsity=1\.0"),
        ({"sparsity": 0.5, "steps": 0}, "steps"),
        ({"sparsity": 0.5, "steps": 5, "power": 0}, "power"),
        ({"sparsity": 0.5, "steps": 5, "variation": -1.0}, "variation"),
    ],
)
def test_geometric_ramp_refuses_what_is_out_of_range(arguments, words):
    with pytest.raises(ValueError, match=words):
        schedules.geometric_ramp(**arguments)
