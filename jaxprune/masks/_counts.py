"""How many weights are kept: exact counts of ratios, and of networks of any size.

Counts that are known when a function is traced are Python ints. Counts on the device
have two int32 words, since a network may have more than 2**31 weights and JAX has no
64-bit integers unless it is configured to.
"""

import math
import numbers
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jaxprune.base._checks import is_one_number, is_whole

_BITS = 12  # of the low word: sums of half a million low words fit into 31 bits
_BASE = 1 << _BITS
# How far a float32 number may lie from the decimal that was meant, for 1 - x as well.
_ROUNDING = 1.3e-7
_GRID = 10_000


def keep_count(keep_ratio: float, size: int) -> int:
    """Return `floor(keep_ratio * size)`, in exact decimal arithmetic.

    `0.29 * 100` is 28.999999999999996 in floating point; 0.29 of 100 weights are 29.

    Args:
      keep_ratio: in (0, 1].
      size: the number of weights.

    Returns:
      A Python int.

    Raises:
      ValueError: `keep_ratio` is not in (0, 1], or `size` is negative.

    Examples:
      >>> keep_count(0.29, 100)
      29
    """
    if not is_whole(size) or size < 0:
        raise ValueError(
            f"`keep_count(size={size!r})`: must be a whole number, at least 0. Pass "
            "the number of weights."
        )
    return exact_count("keep_count", keep_ratio, size)


def exact_count(call: str, keep_ratio: float, size: int) -> int:
    """Return `keep_count`, with messages that begin with the function called."""
    if not is_one_number(keep_ratio) or not 0 < keep_ratio <= 1:
        raise ValueError(
            f"`{call}(keep_ratio={keep_ratio!r})`: the fraction kept must be in (0, "
            "1]; a sparsity of s is a keep ratio of 1 - s."
        )
    return math.floor(Fraction(str(keep_ratio)) * size)


def keep_ratio_of(sparsity: float) -> float:
    """Return `1 - sparsity`, in exact decimal arithmetic.

    Args:
      sparsity: the fraction of zeros, in [0, 1).

    Returns:
      A Python float; a `Fraction` of a `Fraction`.

    Raises:
      ValueError: `sparsity` is outside [0, 1).

    Examples:
      >>> keep_ratio_of(0.9), 1 - 0.9
      (0.1, 0.09999999999999998)
    """
    return exact_keep_ratio("keep_ratio_of", sparsity)


def exact_keep_ratio(call: str, sparsity: Any) -> Any:
    """Return `keep_ratio_of`, with messages that begin with the function called."""
    if not is_one_number(sparsity) or not 0 <= sparsity < 1:
        raise ValueError(
            f"`{call}(sparsity={sparsity!r})`: the fraction of zeros must be in [0, "
            "1). For 95 % zeros pass 0.95."
        )
    if isinstance(sparsity, Fraction):
        return 1 - sparsity
    return float(1 - Fraction(str(sparsity)))


def layer_floor(size: int, min_keep_ratio: float) -> int:
    """Return the minimum number of entries that a layer keeps: `ceil(ratio * size)`.

    Args:
      size: the number of weights of the layer.
      min_keep_ratio: in [0, 1].

    Returns:
      A Python int.

    Raises:
      ValueError: `min_keep_ratio` is outside [0, 1].

    Examples:
      >>> layer_floor(288, 0.001), layer_floor(100_000, 0.001)
      (1, 100)
    """
    check_floor("layer_floor", min_keep_ratio)
    return math.ceil(Fraction(str(min_keep_ratio)) * size)


def check_floor(call: str, min_keep_ratio: Any) -> None:
    """Refuse a minimum keep ratio that is not a number in [0, 1].

    Raises:
      ValueError: it is outside, or no number.
    """
    plain = isinstance(min_keep_ratio, numbers.Real)
    if not (plain and 0 <= float(min_keep_ratio) <= 1):
        raise ValueError(
            f"`{call}(min_keep_ratio={min_keep_ratio})`: the minimum fraction of a "
            "layer must be a number in [0, 1]; 0 allows a layer to be emptied."
        )


class Scheduled(NamedTuple):
    """A keep ratio that a schedule computes in float32, traced or not.

    Attributes:
      ratio: a scalar.
    """

    ratio: jax.Array


def number_of(value: Any) -> float | None:
    """Return a ratio that is known as the decimal it prints as, None if it is traced.

    The float32 number 0.29 is 0.28999999165534973, and 0.29 is meant.
    """
    if isinstance(value, jax.core.Tracer | Scheduled):
        return None
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return float(str(np.asarray(value)[()]))
    return value


class Count(NamedTuple):
    """Counts of any size on the device: `high * 4096 + low`.

    Attributes:
      high: int32, any shape.
      low: int32 in [0, 4096), of the same shape.
    """

    high: jax.Array
    low: jax.Array


def _carried(high: jax.Array, low: jax.Array) -> Count:
    return Count(high + (low >> _BITS), low & (_BASE - 1))


def from_ints(counts: Any) -> Count:
    """Return Python ints, or an int32 array, as `Count`."""
    if isinstance(counts, jax.Array):
        return _carried(jnp.zeros_like(counts, jnp.int32), counts.astype(jnp.int32))
    wide = np.asarray(counts, np.int64)
    return Count(
        jnp.asarray(wide >> _BITS, jnp.int32), jnp.asarray(wide % _BASE, jnp.int32)
    )


def from_uint32(counts: jax.Array) -> Count:
    """Return counts below 2**32 as `Count`."""
    low = counts & np.uint32(_BASE - 1)
    return Count((counts >> _BITS).astype(jnp.int32), low.astype(jnp.int32))


def to_uint32(count: Count) -> jax.Array:
    """Return counts as uint32, clipped to its range."""
    value = count.high.astype(jnp.uint32) << _BITS | count.low.astype(jnp.uint32)
    value = jnp.where(count.high < 0, jnp.uint32(0), value)
    return jnp.where(count.high >= 1 << 20, jnp.uint32(2**32 - 1), value)


def plus(a: Count, b: Count) -> Count:
    """Return the sum."""
    return _carried(a.high + b.high, a.low + b.low)


def minus(a: Count, b: Count) -> Count:
    """Return the difference, which may be negative."""
    return _carried(a.high - b.high, a.low - b.low)


def at_least(a: Count, b: Count) -> jax.Array:
    """Return whether `a >= b`."""
    return (a.high > b.high) | ((a.high == b.high) & (a.low >= b.low))


def maximum(a: Count, b: Count) -> Count:
    """Return the larger of two counts."""
    first = at_least(a, b)
    return Count(jnp.where(first, a.high, b.high), jnp.where(first, a.low, b.low))


def minimum(a: Count, b: Count) -> Count:
    """Return the smaller of two counts."""
    first = at_least(b, a)
    return Count(jnp.where(first, a.high, b.high), jnp.where(first, a.low, b.low))


def cumulative(count: Count) -> Count:
    """Return the sums of the first 0, 1, ..., n of n counts, along the last axis."""

    def sums(words):
        zero = jnp.zeros_like(words[..., :1])
        return jnp.cumsum(jnp.concatenate([zero, words], axis=-1), axis=-1)

    return _carried(sums(count.high), sums(count.low))


def traced_count(keep_ratio: jax.Array, size: int) -> jax.Array:
    """Return `floor(keep_ratio * size)` of a traced ratio as int32; see `traced_keep`.

    Args:
      keep_ratio: a scalar; clipped to [0, 1].
      size: the number of weights, below 2**31.
    """
    count = traced_keep(keep_ratio, size)
    return count.high * _BASE + count.low


def traced_keep(keep_ratio: jax.Array | Scheduled, size: int) -> Count:
    """Return `floor(keep_ratio * size)` of a traced ratio, as exact as float32 allows.

    A ratio within float32 rounding of a decimal of four digits is taken for that
    decimal and counted exactly, so the end of a schedule gives the count of the number
    that was written. Others are counted to within float32 rounding, upwards where that
    rounding could have made a whole number smaller.

    Args:
      keep_ratio: a scalar; clipped to [0, 1].
      size: the number of weights.
    """
    if isinstance(keep_ratio, Scheduled):
        keep_ratio = keep_ratio.ratio
    ratio = jnp.clip(jnp.asarray(keep_ratio, jnp.float32), 0, 1)
    nearest = jnp.round(ratio * _GRID)
    exact = jnp.abs(ratio * _GRID - nearest) <= _ROUNDING * _GRID
    decimal = _of_grid(nearest.astype(jnp.int32), size)
    slack = min(_ROUNDING * size, 0.25)
    binary = floor_of(ratio * jnp.float32(size) + slack)
    count = Count(
        jnp.where(exact, decimal.high, binary.high),
        jnp.where(exact, decimal.low, binary.low),
    )
    return minimum(count, from_ints(size))


def _of_grid(tens: jax.Array, size: int) -> Count:
    """Return `floor(tens * size / 10_000)` in whole numbers."""
    whole, rest = divmod(size, _GRID)
    high, low = divmod(whole, _BASE)
    return _carried(tens * high, tens * low + tens * rest // _GRID)


def floor_of(values: jax.Array) -> Count:
    """Return the floor of float32 numbers >= 0 of any size."""
    whole = jnp.floor(values)
    high = jnp.floor(whole / _BASE)
    return _carried(high.astype(jnp.int32), (whole - high * _BASE).astype(jnp.int32))


def total(count: Count) -> Count:
    """Return the sum of counts along the last axis."""
    return _carried(jnp.sum(count.high, axis=-1), jnp.sum(count.low, axis=-1))


def stacked(parts: Any) -> Count:
    """Return Python ints, scalars and vectors of counts as one vector."""
    wide = [part if isinstance(part, Count) else from_ints(part) for part in parts]
    return Count(
        jnp.concatenate([jnp.atleast_1d(part.high) for part in wide]),
        jnp.concatenate([jnp.atleast_1d(part.low) for part in wide]),
    )
