"""The ladder of a trail, and the two questions that its checkpoints answer."""

from pathlib import Path

import jax.numpy as jnp
import pytest

from experiments.run import trail
from jaxprune import io


def _entry(step, accuracy, weights):
    metadata = {"accuracy_hard": accuracy, "kept_weights": weights}
    return io.Entry(path=Path(f"/trail/{step}"), step=step, metadata=metadata)


TRAIL = [
    _entry(1, 0.990, 1000),
    _entry(2, 0.995, 500),
    _entry(3, 0.995, 250),
    _entry(4, 0.980, 250),
    _entry(5, 0.900, 50),
]


@pytest.mark.parametrize(
    ("accuracy", "step"), [(0.995, 3), (0.98, 3), (0.9, 5), (0.0, 5), (0.981, 3)]
)
def test_the_smallest_that_is_accurate_enough(accuracy, step):
    for points in (TRAIL, TRAIL[::-1], iter(TRAIL)):
        assert trail.smallest(points, accuracy=accuracy).step == step


@pytest.mark.parametrize(
    ("weights", "step"), [(2000, 3), (500, 3), (250, 3), (249, 5), (50, 5)]
)
def test_the_most_accurate_that_is_small_enough(weights, step):
    for points in (TRAIL, TRAIL[::-1], iter(TRAIL)):
        assert trail.most_accurate(points, weights=weights).step == step


def test_what_no_checkpoint_offers_is_a_lookup_error_that_says_what_is_there():
    with pytest.raises(LookupError, match=r"accuracy=0\.999.*of 5 .*best has 0\.995"):
        trail.smallest(TRAIL, accuracy=0.999)
    with pytest.raises(LookupError, match=r"weights=49.*of 5 .*smallest keeps 50"):
        trail.most_accurate(TRAIL, weights=49)
    with pytest.raises(LookupError, match="none of 0 checkpoints"):
        trail.smallest([], accuracy=0.0)
    with pytest.raises(LookupError, match="none of 0 checkpoints"):
        trail.most_accurate([], weights=10)


def test_a_trail_on_disk_answers(tmp_path):
    for step, accuracy, weights in [(1, 0.99, 6), (2, 0.98, 3), (3, 0.5, 1)]:
        io.save(
            tmp_path,
            step,
            {"w": jnp.full(2, step)},
            metadata={"accuracy_hard": accuracy, "kept_weights": weights},
        )
    points = io.entries(tmp_path)
    best = trail.smallest(points, accuracy=0.98)
    loaded = io.load(best, {"w": jnp.zeros(2, jnp.int32)})
    assert loaded["w"].tolist() == [2, 2]
    assert trail.most_accurate(points, weights=5).step == 2


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
