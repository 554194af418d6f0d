"""Ranking without sorting: which are the k largest of many arrays.

Floats become unsigned integers of the same order, and the k-th largest is found digit
by digit: each pass counts the entries that reach each candidate. Equal entries are
settled by position, first come, first kept, by the same search over positions. All that
ever leaves a large array is a count, so if it is sharded over devices it stays where it
is. Memory beside scores and masks is at most 8 bytes for each score of 32 bits: its
code, and a copy where arrays are counted together.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxprune.base._dtypes import at_least_float32, widest
from jaxprune.base._sharding import replicated, sharded_like
from jaxprune.masks import _counts as counts
from jaxprune.masks import _packing
from jaxprune.masks._counts import Count
from jaxprune.masks._packing import Packing, Segments, together


def largest(
    scores: Sequence[jax.Array],
    k: Any,
    *,
    segments: Segments | None = None,
    forced: Sequence[jax.Array] | None = None,
    alive: Sequence[jax.Array | None] | None = None,
) -> list[jax.Array]:
    """Return the masks of the k largest scores of every group.

    One counting pass for each digit of the scores' dtype, and a second search over
    positions if there are ties.

    Args:
      scores: float arrays of fewer than 2**32 entries each. NaN is the highest score,
        so that it is kept and can be noticed; -0.0 equals 0.0.
      k: how many are kept of each group, from 0 to its size: an int, an int32 scalar or
        a `Count` of shape (), or sequences of them, shape (groups,).
      segments: which arrays hold several layers, and which layers are ranked together;
        one group if None.
      forced: bool arrays of what is ranked before everything else.
      alive: bool arrays or None; what is False is never kept.

    Returns:
      Bool arrays of the shapes of `scores`.

    Raises:
      ValueError: an array has 2**32 entries or more.
    """
    scores = list(scores)
    if not scores:
        return []
    refuse_huge("largest", dict(enumerate(scores)))
    segments = segments or together(scores)
    return _largest(
        scores,
        _vector(k),
        None if forced is None else list(forced),
        None if alive is None else list(alive),
        segments=segments,
        machine=_machine(),
    )


def kth_largest(scores: Sequence[jax.Array], k: Any) -> jax.Array:
    """Return the k-th largest score of all arrays together.

    Args:
      scores: see `largest`.
      k: from 1 to the number of entries; see `largest`.

    Returns:
      A scalar of the widest dtype among the scores, at least float32.

    Raises:
      ValueError: an array has 2**32 entries or more.

    Examples:
      >>> float(kth_largest([jnp.array([3.0, 1.0]), jnp.array([3.0, -2.0])], 3))
      1.0
    """
    scores = list(scores)
    refuse_huge("kth_largest", dict(enumerate(scores)))
    return _kth_largest(scores, _vector(k), machine=_machine())


def refuse_huge(call: str, scores: Mapping[Any, Any]) -> None:
    """Refuse arrays in which a position is no uint32.

    Args:
      call: the function called, for messages.
      scores: arrays by the names of their leaves, or by their numbers.

    Raises:
      ValueError: an array has 2**32 entries or more.
    """
    for name, score in scores.items():
        if math.prod(score.shape) >= 2**32:
            raise ValueError(
                f"`{call}(...)`: an array must have fewer than 2**32 entries, "
                f"{name!r} has the shape {score.shape}. Split it along its first axis."
            )


def _vector(k: Any) -> Count:
    count = k if isinstance(k, Count) else counts.from_ints(k)
    return Count(jnp.atleast_1d(count.high), jnp.atleast_1d(count.low))


class _Machine(NamedTuple):
    """What suits the machine; static. Results do not depend on it.

    Attributes:
      width: the number of bits that one pass finds, 1, 2 or 4. It compares every code
        with 2^width - 1 candidates; the program grows with that for each array.
      alone: whether there is one device, so that no array is sharded. Automatic axes
        of a mesh do not tell.
    """

    width: int
    alone: bool


def _machine() -> _Machine:
    """Choose as measured: 4 bits take twice the time of 2 on a CPU, less on a GPU."""
    alone = jax.device_count() == 1
    return _Machine(4 if alone and jax.default_backend() != "cpu" else 2, alone)


@functools.partial(jax.jit, static_argnames=("segments", "machine"))
def _largest(scores, k, forced, alive, *, segments: Segments, machine: _Machine):
    packing = _packing.plan(scores, segments, alone=machine.alone)
    if alive is not None:
        every = [jnp.ones(x.shape, bool) for x in scores]
        alive = [e if a is None else a for a, e in zip(alive, every, strict=True)]
        alive = _packing.pack(_like(alive, scores), packing)
    if forced is not None:
        forced = _packing.pack(_like(forced, scores), packing)
    codes = _packed_codes(scores, forced, alive, packing)
    found = _kth_codes(codes, k, packing.segments, machine.width)
    ends = _ends_of_ties(codes, k, found, packing, machine.width)
    natural = found.reach.high[0]
    limits = found.kth[np.asarray(packing.segments.groups)]
    masks = [
        _mask(code, live, limits, ends, first, layers=layers)
        for code, live, first, layers in zip(
            codes,
            alive or [None] * len(codes),
            _first_segments(packing.segments, natural),
            packing.segments.layers,
            strict=True,
        )
    ]
    return _packing.unpack(masks, [x.shape for x in scores], packing, natural)


@functools.partial(jax.jit, static_argnames="layers")
def _mask(code, alive, limits, ends, first, *, layers) -> jax.Array:
    """Return the mask of one array, whose segments begin with `first`."""
    mask = _kept(code, limits, ends, first, layers)
    return mask if alive is None else mask & alive


@functools.partial(jax.jit, static_argnames="machine")
def _kth_largest(scores, k, *, machine: _Machine):
    packing = _packing.plan(scores, together(scores), alone=machine.alone)
    codes = _packed_codes(scores, None, None, packing)
    kth = _kth_codes(codes, k, packing.segments, machine.width).kth[0]
    top = _top_bit(kth.dtype)
    bits = jnp.where(kth >= top, kth & ~top, ~kth)  # the inverse of `_ordered`
    value = jax.lax.bitcast_convert_type(bits, widest(*(x.dtype for x in scores)))
    return value.astype(at_least_float32(value.dtype))


def _like(masks: Sequence[jax.Array], scores: Sequence[jax.Array]) -> list[jax.Array]:
    """Return masks that are sharded as the scores are."""
    return [sharded_like(m, x) for m, x in zip(masks, scores, strict=True)]


def _top_bit(unsigned: Any) -> jax.Array:
    return jnp.asarray(1 << (jnp.iinfo(unsigned).bits - 1), unsigned)


def _bits(scores: jax.Array) -> jax.Array:
    """Return the bits of floats as unsigned integers."""
    unsigned = {2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint64}[scores.dtype.itemsize]
    return jax.lax.bitcast_convert_type(scores, unsigned)


def _ordered(bits: jax.Array, infinity: Any) -> jax.Array:
    """Map floats to unsigned integers of the same order, NaN the highest but one.

    Args:
      bits: of the floats.
      infinity: the bits of infinity.
    """
    top = _top_bit(bits.dtype)
    size = bits & ~top
    # All bits of a negative number are inverted, of another the sign alone.
    codes = jnp.where((bits >= top) & (size > 0), ~bits, size | top)
    highest = jnp.asarray(jnp.iinfo(bits.dtype).max - 1, bits.dtype)
    return jnp.where(size > infinity, highest, codes)


def _code(bits, forced, alive, infinity) -> jax.Array:
    """Return unsigned integers of the order of the scores, given by their bits."""
    code = _ordered(bits, infinity)
    if forced is not None:
        highest = jnp.asarray(jnp.iinfo(code.dtype).max, code.dtype)
        code = jnp.where(forced, highest, code)
    if alive is not None:
        code = jnp.where(alive, code, jnp.zeros_like(code))
    return code


def _packed_codes(scores, forced, alive, packing: Packing) -> list[jax.Array]:
    """Return the codes of the packed arrays; padding has the lowest of all.

    Args:
      scores: the given ones.
      forced: of the packed ones, or None; so is `alive`.
      alive: see `forced`.
      packing: the plan.
    """
    wide = widest(*(x.dtype for x in scores))
    packed = _packing.pack([_bits(x.astype(wide)) for x in scores], packing)
    none = [None] * len(packed)
    codes = map(
        functools.partial(_code, infinity=_bits(jnp.asarray(jnp.inf, wide))),
        packed,
        forced or none,
        alive or none,
    )
    return [
        code if used is None else _without_padding(code, used)
        for code, used in zip(codes, packing.used, strict=True)
    ]


def _without_padding(codes: jax.Array, used: tuple[int, ...]) -> jax.Array:
    """Give what was added to the rows of a common array the lowest code of all."""
    position = jax.lax.broadcasted_iota(jnp.int32, codes.shape, 1)
    real = position < np.asarray(used, np.int32)[:, None]
    return jnp.where(real, codes, jnp.zeros_like(codes))


def _row(count: Count) -> Count:
    """Return counts of shape (n,) as (1, n)."""
    return jax.tree.map(lambda x: x[None], count)


def _in_groups(count: Count, segments: Segments) -> Count:
    """Add up the counts of segments, the last axis, by group."""
    groups = np.asarray(segments.groups)
    if (groups == np.arange(groups.size)).all():
        return count
    if not groups.any():
        return jax.tree.map(lambda x: x[..., None], counts.total(count))
    order = np.argsort(groups, kind="stable")
    ends = np.concatenate([[0], np.cumsum(np.bincount(groups))])
    running = counts.cumulative(jax.tree.map(lambda x: x[..., order], count))
    return counts.minus(
        jax.tree.map(lambda x: x[..., ends[1:]], running),
        jax.tree.map(lambda x: x[..., ends[:-1]], running),
    )


def _before(count: Count, segments: Segments, places: tuple[int, ...]) -> Count:
    """Return for every segment the count of the earlier ones of its group."""
    groups = np.asarray(segments.groups)
    order = np.lexsort((np.asarray(places), groups))
    starts = np.concatenate([[0], np.cumsum(np.bincount(groups))[:-1]])[groups]
    running = counts.cumulative(Count(count.high[order], count.low[order]))
    back = np.argsort(order)
    return counts.minus(
        Count(running.high[back], running.low[back]),
        Count(running.high[starts], running.low[starts]),
    )


def _first_segments(segments: Segments, natural: jax.Array) -> list[jax.Array]:
    """Return for each array the number of its first segment, not known to XLA."""
    numbers = np.cumsum([0, *(n or 1 for n in segments.layers)])[:-1]
    return _packing.unknown(numbers, natural)


def _of_array(values: jax.Array, first: jax.Array, code: jax.Array, layers) -> Any:
    """Return the values of the segments of one array, shaped to broadcast with it."""
    own = jax.lax.dynamic_slice(values, (first,), (layers or 1,))
    return own[0] if layers is None else own.reshape(-1, *(1,) * (code.ndim - 1))


def _kept(code, limits, ends, first, layers) -> jax.Array:
    """Return what is above its segment's limit, or equal to it before a position.

    Args:
      code: unsigned integers.
      limits: for all segments.
      ends: the positions, for all segments.
      first: the number of the first segment of the array.
      layers: how many segments the array has along its first axis, or None.
    """
    shape = code.shape if layers is None else (1, *code.shape[1:])
    position = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        stride = math.prod(shape[axis + 1 :])
        index = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
        position = position + (index if stride == 1 else index * np.uint32(stride))
    limit = _of_array(limits, first, code, layers)
    end = _of_array(ends, first, code, layers)
    return (code > limit) | ((code == limit) & (position < end))


def _reaching(code, limits, first, layers) -> jax.Array:
    """Return what reaches its segment's limit; see `_kept`."""
    return code >= _of_array(limits, first, code, layers)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _count(choose, code, values, first, layers) -> jax.Array:
    """Count what is chosen in every segment of an array.

    Args:
      choose: `_kept` or `_reaching`.
      code: unsigned integers.
      values: its arguments, of shape (candidates, segments).
      first: see `_kept`.
      layers: see `_kept`.

    Returns:
      uint32, shape (candidates, layers).
    """
    axes = tuple(range(0 if layers is None else 1, code.ndim))
    chosen = [choose(code, *c, first, layers) for c in zip(*values, strict=True)]
    if any(axis is not None for axis in jax.typeof(code).sharding.spec):
        found = [jnp.sum(x, axis=axes, dtype=jnp.uint32) for x in chosen]
    else:
        # One reduction of all candidates reads the array once, and is fused with what
        # it adds up; sums are not, on CPUs.
        flags = tuple(x.astype(jnp.uint32) for x in chosen)
        zeros = (np.uint32(0),) * len(flags)
        found = jax.lax.reduce(flags, zeros, _added, axes)
    return jnp.stack([replicated(x) for x in found]).reshape(len(found), layers or 1)


def _added(a: Sequence[jax.Array], b: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
    return tuple(x + y for x, y in zip(a, b, strict=True))


def _counted(choose, codes, values, segments: Segments, natural) -> Count:
    """Count what is chosen in every segment, shape (candidates, segments)."""
    firsts = _first_segments(segments, natural)
    counted = [
        _count(choose, code, values, first, layers)
        for code, first, layers in zip(codes, firsts, segments.layers, strict=True)
    ]
    return counts.from_uint32(jnp.concatenate(counted, axis=1))


class _Kth(NamedTuple):
    """The k-th largest codes, as far as their digits are found.

    Attributes:
      kth: for each group that code, the digits still to be found being 0.
      reach: for each segment how many entries reach it.
      above: for each segment how many reach the next number of as many digits.
    """

    kth: jax.Array
    reach: Count
    above: Count


def _kth_codes(codes, k: Count, segments: Segments, width: int) -> _Kth:
    """Find the k-th largest code of each group.

    Args:
      codes: unsigned integers, packed.
      k: how many entries of each group are kept.
      segments: those of the packed arrays.
      width: the number of bits of a digit.
    """
    unsigned, bits = codes[0].dtype, jnp.iinfo(codes[0].dtype).bits
    groups = np.asarray(segments.groups)
    digits = np.arange(1, 1 << width).astype(unsigned)[:, None]

    def make_pass(step, found):
        shift = (bits - width * (step + 1)).astype(unsigned)
        candidates = found.kth[None] | (digits << shift)
        n = _counted(_reaching, codes, (candidates[:, groups],), segments, step)
        reached = counts.at_least(_in_groups(n, segments), _row(k))
        digit = jnp.sum(reached, axis=0, dtype=jnp.int32)
        rungs = jax.tree.map(
            lambda reach, n, above: jnp.concatenate([reach[None], n, above[None]]),
            found.reach,
            n,
            found.above,
        )
        at = digit[groups][None]
        return _Kth(
            found.kth | (digit.astype(unsigned) << shift),
            jax.tree.map(lambda x: jnp.take_along_axis(x, at, 0)[0], rungs),
            jax.tree.map(lambda x: jnp.take_along_axis(x, at + 1, 0)[0], rungs),
        )

    zero = _varying(codes, k)
    kth = (jnp.zeros(k.high.shape, jnp.int32) + zero).astype(unsigned)
    reach = jax.tree.map(lambda x: x + zero, counts.from_ints(_sizes(codes, segments)))
    start = _Kth(kth, reach, jax.tree.map(lambda x: x * 0, reach))
    return jax.lax.fori_loop(0, bits // width, make_pass, start)


def _sizes(codes, segments: Segments) -> np.ndarray:
    """Return the number of entries of every segment."""
    sizes = [
        [code.size // (n or 1)] * (n or 1)
        for code, n in zip(codes, segments.layers, strict=True)
    ]
    return np.concatenate(sizes)


def _ends_of_ties(
    codes, k: Count, found: _Kth, packing: Packing, width: int
) -> jax.Array:
    """Find the position in each segment from which on no tie is kept, uint32."""
    segments = packing.segments
    groups = np.asarray(segments.groups)
    room = counts.minus(k, _in_groups(found.above, segments))
    room = Count(room.high[groups], room.low[groups])
    ties = counts.minus(found.reach, found.above)
    left = counts.minus(room, _before(ties, segments, packing.order))
    whole = counts.at_least(left, ties)
    searched = jnp.any(
        ~whole & ~counts.at_least(jax.tree.map(jnp.zeros_like, left), left)
    )
    passes = -(-int(_sizes(codes, segments).max()).bit_length() // width)
    digits = np.arange(1, 1 << width).astype(np.uint32)[:, None]
    kth = found.kth[groups][None]

    def make_pass(step, ends):
        # Were it known to be the same in every pass, XLA would store what is above it.
        limits = kth | (step < 0).astype(kth.dtype)
        limits = jnp.broadcast_to(limits, (len(digits), groups.size))
        shift = (width * (passes - 1 - step)).astype(jnp.uint32)
        n = _counted(
            _kept, codes, (limits, ends[None] | (digits << shift)), segments, step
        )
        fits = counts.at_least(_row(left), counts.minus(n, _row(found.above)))
        return ends | (jnp.sum(fits, axis=0, dtype=jnp.uint32) << shift)

    start = (found.above.high * 0).astype(jnp.uint32)
    ends = jax.lax.fori_loop(0, jnp.where(searched, passes, 0), make_pass, start)
    return jnp.where(whole, jnp.uint32(2**32 - 1), ends)


def _varying(codes: Sequence[jax.Array], k: Count) -> jax.Array:
    """Return zero, varying over devices as the arguments do (inside `shard_map`)."""
    zeros = [jnp.zeros_like(x, jnp.int32, shape=()) for x in [*codes, *k]]
    return functools.reduce(jnp.add, zeros)
