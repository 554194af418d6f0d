"""Layer distributions: shares, bounds, exact sums."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprune import masks
from jaxprune.masks import _counts as counts
from jaxprune.masks import _distributions as distributions

SHAPES = {
    "first": (3, 3, 3, 16),
    "conv": (3, 3, 64, 64),
    "dense": (1024, 100),
    "tiny": (2, 2),
}
SIZE = sum(map(math.prod, SHAPES.values()))
KINDS = [masks.erk, masks.uniform, lambda shape: math.sqrt(math.prod(shape))]


@pytest.mark.parametrize("distribution", KINDS)
@pytest.mark.parametrize("floor", [0.0, 0.01, 0.2])
@pytest.mark.parametrize("keep_ratio", [0.001, 0.0101, 0.05, 0.2, 0.5, 0.9, 1.0])
def test_counts_add_up_within_their_bounds(distribution, floor, keep_ratio):
    floors = [masks.layer_floor(math.prod(s), floor) for s in SHAPES.values()]
    keep = masks.keep_count(keep_ratio, SIZE)
    call = lambda: masks.layer_counts(
        SHAPES,
        keep_ratio=keep_ratio,
        distribution=distribution,
        min_keep_ratio=floor,
    )
    if sum(floors) > keep:
        with pytest.raises(ValueError, match="keep at least"):
            call()
        return
    got = list(call().values())
    assert sum(got) == keep
    sizes = [math.prod(shape) for shape in SHAPES.values()]
    assert all(f <= k <= n for f, k, n in zip(floors, got, sizes, strict=True))
    # Layers between their bounds share in proportion, to one weight.
    free = [
        k / distribution(s)
        for f, k, n, s in zip(floors, got, sizes, SHAPES.values(), strict=True)
        if f < k < n
    ]
    least = min((distribution(s) for s in SHAPES.values()), default=1)
    assert not free or max(free) - min(free) <= 2 / least


def test_many_small_layers_never_get_more_than_they_have():
    shapes = {f"s{i}": (2, 2) for i in range(100)} | {"big": (1000, 1000)}
    size = sum(map(math.prod, shapes.values()))
    for keep in (10101, 10201, 10351, 10400):
        got = masks.layer_counts(shapes, keep_ratio=keep / size, min_keep_ratio=0.01)
        assert sum(got.values()) == masks.keep_count(keep / size, size)
        assert all(count <= math.prod(shapes[name]) for name, count in got.items())


def test_what_rounding_loses_goes_to_those_that_lost_most():
    got = masks.layer_counts(
        {"a": (7,), "b": (10,)}, keep_ratio=0.5, distribution=masks.uniform
    )
    assert got == {"a": 3, "b": 5}


def test_the_traced_rule_gives_the_same_counts():
    shares = [distributions.Fraction(masks.erk(shape)) for shape in SHAPES.values()]
    sizes = [math.prod(shape) for shape in SHAPES.values()]
    floors = [masks.layer_floor(size, 0.001) for size in sizes]
    rule = jax.jit(
        lambda k: distributions.allocate_traced(
            shares, floors, sizes, counts.from_ints(k)
        )
    )
    for keep in (sum(floors), 500, 1000, 10_000, 77_777, SIZE - 1, SIZE):
        got = rule(jnp.int32(keep))
        got = (got.high * 4096 + got.low).tolist()
        want = distributions.allocate(shares, floors, sizes, keep)
        assert sum(got) == keep
        assert np.abs(np.subtract(got, want)).max() <= 1
    got = rule(jnp.int32(0))
    assert (got.high * 4096 + got.low).tolist() == floors


def test_the_traced_rule_rounds_by_remainders_as_the_exact_one():
    shares = [distributions.Fraction(x) for x in (53, 31, 17, 5)]
    floors, sizes = [2, 1, 0, 3], [60, 15, 90, 40]
    rule = jax.jit(
        lambda k: distributions.allocate_traced(
            shares, floors, sizes, counts.from_ints(k)
        )
    )
    # At 65 three remainders are a third, which float32 tells apart.
    for keep in {*range(sum(floors), sum(sizes) + 1)} - {65}:
        got = rule(jnp.int32(keep))
        got = (got.high * 4096 + got.low).tolist()
        assert got == distributions.allocate(shares, floors, sizes, keep)


def test_the_traced_rule_adds_up_beyond_int32():
    sizes, floors = [3 * 10**9, 2**31, 50, 10**9], [0, 0, 5, 0]
    shares = [distributions.Fraction(x) for x in (5, 4, 3, 3)]
    rule = jax.jit(
        lambda r: distributions.allocate_traced(
            shares, floors, sizes, counts.traced_keep(r, sum(sizes))
        )
    )
    for ratio in (0.01, 0.5, 0.95):
        got = rule(jnp.float32(ratio))
        got = [int(h) * 4096 + int(x) for h, x in zip(*got, strict=True)]
        assert sum(got) == masks.keep_count(ratio, sum(sizes))
        assert all(f <= k <= n for f, k, n in zip(floors, got, sizes, strict=True))


@pytest.mark.parametrize("share", [0.0, -1.0, float("nan"), float("inf")])
def test_shares_must_be_positive(share):
    with pytest.raises(ValueError, match=r"layer_counts\(distribution=...\).*positive"):
        masks.layer_counts(SHAPES, keep_ratio=0.5, distribution=lambda shape: share)
    with pytest.raises(ValueError, match="gives no counts"):
        masks.layer_counts(SHAPES, keep_ratio=0.5, distribution=masks.global_)
