"""Counts: decimal, of any size, and as exact as float32 where they are traced."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprune import masks
from jaxprune.masks import _counts as counts

_traced = jax.jit(counts.traced_keep, static_argnums=1)


def _value(count):
    return int(count.high) * 4096 + int(count.low)


@pytest.mark.parametrize("size", [7, 100, 767, 1000, 10_007, 6_553_600, 7 * 10**9 + 3])
@pytest.mark.parametrize("form", ["keep ratio", "one minus sparsity"])
def test_traced_decimals_are_counted_exactly(size, form):
    for percent in (0.01, 0.5, 1, 3, 5, 29, 53, 95, 99.5, 100):
        ratio = float(np.round(percent / 100, 4))
        given = jnp.float32(ratio)
        if form == "one minus sparsity":
            given = 1 - jnp.float32(float(np.round(1 - ratio, 4)))
        assert _value(_traced(given, size)) == masks.keep_count(ratio, size)


def test_traced_fractions_of_small_numbers_are_counted_exactly():
    wrong = 0
    for size in (1, 3, 7, 49, 79):
        numbers = np.arange(1, size + 1)
        count = jax.jit(jax.vmap(lambda r, n=size: counts.traced_count(r, n)))
        found = count(numbers.astype(np.float32) / np.float32(size))
        wrong += int((np.asarray(found) != numbers).sum())
    assert wrong == 0


@pytest.mark.parametrize("size", [3_333_333, 2**31 + 5])
def test_other_traced_ratios_are_counted_to_float32(size):
    for ratio in (0.123456789, 0.7654321, 1 / 3):
        got = _value(_traced(jnp.float32(ratio), size))
        assert got == pytest.approx(ratio * size, rel=3e-7, abs=1)
    assert _value(_traced(jnp.float32(1.5), size)) == size
    assert _value(_traced(jnp.float32(-1.0), size)) == 0


def test_wide_counts_add_compare_and_clip():
    values = [0, 5, 4095, 4096, 2**31 - 1, 2**31, 2**32 - 1, 7 * 10**9]
    wide = counts.from_ints(values)
    assert [_value(counts.Count(*pair)) for pair in zip(*wide, strict=True)] == values
    total = counts.total(wide)
    assert _value(total) == sum(values)
    running = counts.cumulative(wide)
    got = [_value(counts.Count(*pair)) for pair in zip(*running, strict=True)]
    assert got == np.cumsum([0, *values]).tolist()
    a, b = counts.from_ints(values[:-1]), counts.from_ints(values[1:])
    assert counts.at_least(b, a).all()
    assert not counts.at_least(a, b).any()
    assert _value(jax.tree.map(lambda x: x[1], counts.minus(a, b))) == 5 - 4095
    assert counts.to_uint32(wide).tolist() == [*values[:-1], 2**32 - 1]
    assert counts.to_uint32(counts.minus(a, b)).tolist() == [0] * 7
