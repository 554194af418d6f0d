"""Ramps and ladders."""

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


@pytest.mark.parametrize(
    ("keep_ratio", "ladder"),
    [
        (1.0, (1.0,)),
        (0.7, (0.7,)),
        (0.5, (0.5,)),
        (0.05, (0.5, 0.25, 0.125, 0.0625, 0.05)),
        (0.25, (0.5, 0.25)),
    ],
)
def test_ladder_doubles_down_to_the_target(keep_ratio, ladder):
    assert schedules.compression_ladder(keep_ratio) == ladder


@pytest.mark.parametrize("keep_ratio", [0.0, -1.0, 1.1])
def test_a_target_out_of_range_is_refused(keep_ratio):
    with pytest.raises(ValueError, match=r"in \(0, 1\]"):
        schedules.compression_ladder(keep_ratio)
