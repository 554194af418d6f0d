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
    sign = unsigned(1 << (jnp.iinfo(unsigned).bits - 1))
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
    wide = jnp.result_type(jnp.float32, *scores)
    codes = [_sortable(x.astype(wide)) for x in scores]
    unsigned, bits = codes[0].dtype, jnp.iinfo(codes[0].dtype).bits

    def count(predicate):
        return sum(jnp.sum(predicate(c), dtype=jnp.int32) for c in codes)

    def set_bit(i, value):
        candidate = value | (jnp.ones((), unsigned) << (bits - 1 - i).astype(unsigned))
        return jnp.where(count(lambda c: c >= candidate) >= k, candidate, value)

    # Zero, but varying over devices as the scores do (inside `shard_map`).
    zero = jnp.zeros_like(sum(jnp.max(c, initial=0) for c in codes))
    kth = jax.lax.fori_loop(0, bits, set_bit, zero)
    room = k - count(lambda c: c > kth)
    masks = []
    for c in codes:
        ties = c == kth
        earlier = jnp.cumsum(ties.ravel(), dtype=jnp.int32).reshape(c.shape)
        masks.append((c > kth) | (ties & (earlier <= room)))
        room = room - jnp.sum(ties, dtype=jnp.int32)
    return masks
