"""Ranking without sorting: how many to keep, and which are the largest.

Counts are exact and ties are settled by position, first come, first kept.
"""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp


def keep_count(keep_ratio: float, size: int) -> int:
    """Returns `floor(keep_ratio * size)`, in exact decimal arithmetic.

    `0.29 * 100` is 28.999999999999996 in floating point; asked to keep 0.29 of 100
    weights, the count is 29.

    Raises:
      ValueError: if `keep_ratio` is not in (0, 1].

    >>> keep_count(0.29, 100)
    29
    """
    if not 0 < keep_ratio <= 1:
        raise ValueError(
            f"`keep_ratio={keep_ratio}`: the fraction kept must be in (0, 1]; a "
            "sparsity of s is a keep ratio of 1 - s."
        )
    return math.floor(Fraction(str(keep_ratio)) * size)


def traced_count(keep_ratio: jax.Array, size: int) -> jax.Array:
    """Returns `keep_count` of a traced ratio, to within one float32 rounding."""
    # Half of one in a million against rounding to just below a whole count.
    asked = jnp.floor(jnp.asarray(keep_ratio) * size * (1 + 5e-7))
    return jnp.clip(asked, 0, size).astype(jnp.int32)


def _sign_bit(unsigned: jnp.dtype) -> jax.Array:
    return jnp.asarray(1 << (jnp.iinfo(unsigned).bits - 1), unsigned)


def _sortable(scores: jax.Array) -> jax.Array:
    """Maps floats to unsigned integers in the same order.

    NaN is lowest; -0.0 equals 0.0. float64 has 64 bits, everything else 32.
    """
    dtype = jnp.promote_types(scores.dtype, jnp.float32)
    unsigned = jnp.uint64 if dtype == jnp.float64 else jnp.uint32
    scores = scores.astype(dtype)
    scores = jnp.where(scores == 0, 0.0, scores)  # Adding 0.0 would be optimised away.
    scores = jnp.where(jnp.isnan(scores), -jnp.inf, scores)
    bits = jax.lax.bitcast_convert_type(scores, unsigned)
    sign = _sign_bit(bits.dtype)
    return jnp.where(bits >= sign, ~bits, bits | sign)


@jax.jit
def largest(scores: list[jax.Array], k: jax.Array | int) -> list[jax.Array]:
    """Returns the masks of the k largest scores of all arrays together.

    Bisection on the bits: 32 counting passes (64 for float64) find the k-th largest
    value whatever the number of arrays and their layout: nothing is sorted,
    concatenated or gathered, so arrays sharded over devices stay where they are.

    Args:
      scores: float arrays, together fewer than 2**31 entries. NaN is the lowest.
      k: from 0 to the number of entries.
    """
    codes = _codes(scores)
    kth = _kth_code(codes, k)
    room = k - _count(codes, lambda c: c > kth)
    masks = []
    for c in codes:
        ties = c == kth
        earlier = jnp.cumsum(ties.ravel(), dtype=jnp.int32).reshape(c.shape)
        masks.append((c > kth) | (ties & (earlier <= room)))
        room = room - jnp.sum(ties, dtype=jnp.int32)
    return masks


@jax.jit
def kth_largest(scores: list[jax.Array], k: jax.Array | int) -> jax.Array:
    """Returns the k-th largest score of all arrays together, equal ones counted singly.

    As `largest`, without a word about which scores those are: no ties to settle.

    Args:
      scores: see `largest`.
      k: from 1 to the number of entries.

    Returns:
      A scalar of the widest dtype among the scores, at least float32.

    >>> float(kth_largest([jnp.array([3.0, 1.0]), jnp.array([3.0, -2.0])], 3))
    1.0
    """
    codes = _codes(scores)
    kth = _kth_code(codes, k)
    sign = _sign_bit(kth.dtype)
    bits = jnp.where(kth >= sign, kth & ~sign, ~kth)  # the inverse of `_sortable`
    return jax.lax.bitcast_convert_type(bits, jnp.result_type(jnp.float32, *scores))


def _codes(scores: list[jax.Array]) -> list[jax.Array]:
    wide = jnp.result_type(jnp.float32, *scores)
    return [_sortable(x.astype(wide)) for x in scores]


def _count(codes: list[jax.Array], predicate) -> jax.Array:
    return jnp.asarray(sum(jnp.sum(predicate(c), dtype=jnp.int32) for c in codes))


def _kth_code(codes: list[jax.Array], k: jax.Array | int) -> jax.Array:
    """Finds the largest code that at least k of all codes reach, bit by bit."""
    unsigned, bits = codes[0].dtype, jnp.iinfo(codes[0].dtype).bits

    def set_bit(i, value):
        candidate = value | (jnp.ones((), unsigned) << (bits - 1 - i).astype(unsigned))
        reached = _count(codes, lambda c: c >= candidate) >= k
        return jnp.where(reached, candidate, value)

    # Zero, but varying over devices as the scores do (inside `shard_map`).
    zero = jnp.zeros_like(sum(jnp.max(c, initial=0) for c in codes))
    return jax.lax.fori_loop(0, bits, set_bit, zero)
