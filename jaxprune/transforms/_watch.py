"""Whether the parameters that come back are those that a transformation expects."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxprune.base import _checks as checks
from jaxprune.tree._names import name_of


class Selected(NamedTuple):
    """Mark a leaf that a transformation prunes; it holds nothing."""


class Watch(NamedTuple):
    """What a transformation expects of the parameters at its next update.

    Attributes:
      expected: a checksum of the parameters that its last update leads to (uint32
        scalar), the number of their exact zeros (int32 scalar), or whether an update
        was made (bool scalar).
      misplaced: bool scalar, True once the parameters came back changed: something
        behind the transformation changed its updates, or the parameters were edited
        or replaced without a new `init`. It stays True; `check` raises for it.
      keep_ratio: the fraction of the selected weights that is to be reached, float32
        scalar; NaN where no size was given.
      size: the number of entries of the parameters that `init` was given, modulo 2^32
        (uint32 scalar): a shard inside of `jax.shard_map` has fewer.
      selected: a tree like the parameters, of `Selected` where a leaf is pruned and
        `optax.MaskedNode` elsewhere; it has no leaves, so it is the same at all steps.
    """

    expected: jax.Array
    misplaced: jax.Array
    keep_ratio: jax.Array
    size: jax.Array
    selected: Any = ()


def begin(
    expected: jax.Array,
    keep_ratio: Any = np.nan,
    selected: Any = (),
    counted: Any = None,
) -> Watch:
    """Return the watch of a new state.

    Args:
      expected: see `Watch`.
      keep_ratio: see `Watch`.
      selected: the parameters that are pruned, `optax.MaskedNode` for the others.
      counted: the parameters that `size` counts; `selected` if not given.
    """
    marks = jax.tree.map(lambda _: Selected(), selected)
    # Comparing makes the flag vary over devices as the parameters do (`shard_map`).
    misplaced = expected != expected
    ratio = jnp.asarray(keep_ratio, jnp.float32)
    size = number_of(selected if counted is None else counted)
    return Watch(expected, misplaced, ratio, size, marks)


def number_of(params: Any) -> jax.Array:
    """Return how many entries there are, modulo 2^32, uint32."""
    return jnp.asarray(sum(x.size for x in jax.tree.leaves(params)) % 2**32, jnp.uint32)


def selected_names(watch: Watch) -> list[str]:
    """Return the names of the leaves that the transformation prunes."""
    marks = jax.tree_util.tree_leaves_with_path(
        watch.selected, is_leaf=lambda node: isinstance(node, Selected)
    )
    return [name_of(path) for path, _ in marks]


def proceed(watch: Watch, misplaced: jax.Array, expected: jax.Array) -> Watch:
    """Return the watch after an update."""
    return watch._replace(expected=expected, misplaced=watch.misplaced | misplaced)


def count_zeros(params: Any) -> jax.Array:
    """Return the number of entries that are exactly zero, int32."""
    counts = [jnp.sum(x == 0, dtype=jnp.int32) for x in jax.tree.leaves(params)]
    return sum(counts, jnp.zeros([], jnp.int32))


def check_whole(call: str, params: Any, watch: Watch) -> None:
    """Refuse shards inside of `jax.shard_map`, where it says that they are."""
    checks.check_whole(f"{call}(...).update(updates, state, params)", params, watch)


def begin_zeros(params: Any, keep_ratio: Any = np.nan) -> Watch:
    """Return a watch of zeros that expects none yet."""
    return begin(jnp.zeros_like(count_zeros(params)), keep_ratio, params)


def proceed_zeros(watch: Watch, params: Any, target: Any) -> Watch:
    """Compare the zeros of `params` with those expected; expect those of `target`."""
    # The difference, not the order, survives int32 wrapping around.
    lost = count_zeros(params) - watch.expected < 0
    lost |= watch.size != number_of(params)
    return proceed(watch, lost, count_zeros(target))


def checksum(params: Any) -> jax.Array:
    """Return a sum over all entries that hardly depends on how they were rounded.

    The sum of exponent and leading 15 bits of the fraction of every magnitude, modulo
    2^32: the sum of log2 |x| in units of 2^-15, where 0 counts as 0. Integers are
    summed in any order with the same result, whatever the sharding.
    """
    total = jnp.zeros([], jnp.uint32)
    for x in jax.tree.leaves(params):
        x = jnp.asarray(x)
        if x.dtype.itemsize == 1:  # some types of 8 bits have no infinity
            x = x.astype(jnp.float32)
        unsigned = np.dtype(f"uint{8 * x.dtype.itemsize}")
        infinity = np.asarray(np.inf, x.dtype).view(unsigned)
        # Without its sign a zero is 0; whatever lies above infinity is a NaN, and what
        # it holds differs between compilations.
        bits = jax.lax.bitcast_convert_type(x, unsigned) << unsigned.type(1)
        bits = jnp.minimum(bits, unsigned.type(2 * int(infinity) + 1))
        dropped = max(0, jnp.finfo(x.dtype).nmant - 15)
        bits = bits >> unsigned.type(1 + dropped)
        total = total + jnp.sum(bits.astype(jnp.uint32), dtype=jnp.uint32)
    return total


def proceed_with(watch: Watch, params: Any, updates: Any, counted: Any = None) -> Watch:
    """Compare `params` with those expected; expect `params + updates`.

    Args:
      watch: of the state before.
      params: the parameters that came back.
      updates: what is added to them now.
      counted: see `begin`; `params` if not given.
    """
    counted = params if counted is None else counted
    after = jax.tree.map(lambda p, u: jnp.asarray(p + u, p.dtype), params, updates)
    # Compilers compute the same value twice, and round it differently. Roundings are
    # independent, so that n of them change the sum by about sqrt(n) units or less; one
    # zero that is lost, or a weight that is replaced, changes it by far more.
    size = sum(x.size for x in jax.tree.leaves(params))
    most = min(16 + 4 * math.isqrt(size), 2**30)
    change = (checksum(params) - watch.expected).astype(jnp.int32)
    changed = (abs(change) > most) | (watch.size != number_of(counted))
    return proceed(watch, changed, checksum(after))
