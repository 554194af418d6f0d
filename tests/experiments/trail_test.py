"""The ladder of keep ratios at which a run saves its network."""

import pytest

from experiments import trail


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
    assert trail.compression_ladder(keep_ratio) == ladder


@pytest.mark.parametrize("keep_ratio", [0.0, -1.0, 1.1])
def test_a_target_out_of_range_is_refused(keep_ratio):
    with pytest.raises(ValueError, match=r"in \(0, 1\]"):
        trail.compression_ladder(keep_ratio)
