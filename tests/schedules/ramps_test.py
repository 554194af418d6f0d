"""Ramps, and the learning rate of fine-tuning."""

import numpy as np
import pytest

from jaxprune import schedules
from tests.support import reference


@pytest.mark.parametrize("step", [0, 5, 10, 13, 17, 20, 1000])
def test_cubic_ramp_equals_the_equation(step):
    ramp = schedules.cubic_ramp(1.0, 0.05, begin_step=10, end_step=20)
    want = reference.cubic_ramp(step, 1.0, 0.05, 10, 20)
    np.testing.assert_allclose(ramp(step), want, rtol=1e-6)


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
