"""Ranking without sorting: which are the k largest of many arrays.

Floats become unsigned integers of the same order, and the k-th largest is found bit by
bit: each pass counts the entries that reach a candidate. Equal entries are settled by
position, first come, first kept, by the same search over positions. All that ever
leaves an array is a count, so arrays that are sharded over devices stay where they
are, and the program grows in proportion to the number of arrays. Memory beside scores
and masks is at most 12 bytes for each score: its code, and its position.
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
from jaxprune.masks._counts import Count


class Segments(NamedTuple):
    """How entries are grouped; static.

    Attributes:
      layers: for each array the number of layers along its first axis, or None.
      groups: for each layer of each array, in order, the number of its group. Entries
        are ranked within a group.
    """

    layers: tuple[int | None, ...]
    groups: tuple[int, ...]


def together(arrays: Sequence[Any]) -> Segments:
    """Return the segments of arrays that are ranked all together."""
    return Segments((None,) * len(arrays), (0,) * len(arrays))


def largest(
    scores: Sequence[jax.Array],
    k: Any,
    *,
    segments: Segments | None = None,
    forced: Sequence[jax.Array] | None = None,
    alive: Sequence[jax.Array | None] | None = None,
) -> list[jax.Array]:
    """Return the masks of the k largest scores of every group.

    One counting pass for each bit of the scores' dtype, at least 16, and a second
    search over positions if there are ties.

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
    return _kth_largest(scores, _vector(k))


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


@functools.partial(jax.jit, static_argnames="segments")
def _largest(scores, k, forced, alive, *, segments: Segments):
    packing = _packing(scores, segments)
    if alive is not None:
        every = [jnp.ones(x.shape, bool) for x in scores]
        alive = [e if a is None else a for a, e in zip(alive, every, strict=True)]
        alive = _pack(alive, packing)
    codes = _packed_codes(scores, forced, alive, packing)
    found = _cut(codes, k, packing)
    limits = found.kth[np.asarray(packing.segments.groups)]
    masks = [
        _mask(code, live, limits, found.ends, first, layers=layers)
        for code, live, first, layers in zip(
            codes,
            alive or [None] * len(codes),
            _first_segments(packing.segments, found.step),
            packing.segments.layers,
            strict=True,
        )
    ]
    return _unpack(masks, [x.shape for x in scores], packing, found.step)


@functools.partial(jax.jit, static_argnames="layers")
def _mask(code, alive, limits, ends, first, *, layers) -> jax.Array:
    """Return the mask of one array, whose segments begin with `first`."""
    mask = _reached(code, limits, ends, first, layers)
    return mask if alive is None else mask & sharded_like(alive, code)


@jax.jit
def _kth_largest(scores, k):
    packing = _packing(scores, together(scores))
    kth = _cut(_packed_codes(scores, None, None, packing), k, packing).kth[0]
    top = _top_bit(kth.dtype)
    bits = jnp.where(kth >= top, kth & ~top, ~kth)  # the inverse of `_ordered`
    value = jax.lax.bitcast_convert_type(bits, widest(*(x.dtype for x in scores)))
    return value.astype(at_least_float32(value.dtype))


def _top_bit(unsigned: Any) -> jax.Array:
    return jnp.asarray(1 << (jnp.iinfo(unsigned).bits - 1), unsigned)


def _ordered(scores: jax.Array) -> jax.Array:
    """Map floats to unsigned integers of the same order, NaN the highest but one."""
    size = scores.dtype.itemsize
    signed, unsigned = {
        2: (jnp.int16, jnp.uint16),
        4: (jnp.int32, jnp.uint32),
        8: (jnp.int64, jnp.uint64),
    }[size]
    nan = jnp.isnan(scores)
    scores = jnp.where(scores == 0, jnp.zeros_like(scores), scores)
    bits = jax.lax.bitcast_convert_type(scores, signed)
    # All bits of a negative number are inverted, of another the sign alone.
    inverted = (bits >> (8 * size - 1)) | jnp.iinfo(signed).min
    codes = jax.lax.bitcast_convert_type(bits ^ inverted, unsigned)
    return jnp.where(nan, jnp.asarray(jnp.iinfo(unsigned).max - 1, unsigned), codes)


def _code(score, forced, alive) -> jax.Array:
    """Return unsigned integers of the order of the scores."""
    code = _ordered(score)
    if forced is not None:
        highest = jnp.asarray(jnp.iinfo(code.dtype).max, code.dtype)
        code = jnp.where(sharded_like(forced, code), highest, code)
    if alive is not None:
        code = jnp.where(sharded_like(alive, code), code, jnp.zeros_like(code))
    return code


def _packed_codes(scores, forced, alive, packing) -> list[jax.Array]:
    """Return the codes of the packed arrays; padding has the lowest of all.

    Args:
      scores: the given ones.
      forced: of the given ones, or None.
      alive: of the packed ones, or None.
      packing: the plan.
    """
    wide = widest(*(x.dtype for x in scores))
    packed = _pack([x.astype(wide) for x in scores], packing)
    none = [None] * len(packed)
    codes = map(
        _code,
        packed,
        none if forced is None else _pack(forced, packing),
        none if alive is None else alive,
    )
    return [
        code if ends is None else _without_padding(code, ends)
        for code, ends in zip(codes, packing.ends, strict=True)
    ]


def _without_padding(codes: jax.Array, ends: tuple[int, ...]) -> jax.Array:
    """Give what was added to the rows of a common array the lowest code of all."""
    position = jax.lax.broadcasted_iota(jnp.int32, codes.shape, 1)
    real = position < np.asarray(ends, np.int32)[:, None]
    return jnp.where(real, codes, jnp.zeros_like(codes))


def _in_groups(count: Count, segments: Segments) -> Count:
    """Add up the counts of segments by group, shape (groups,)."""
    groups = np.asarray(segments.groups)
    if (groups == np.arange(groups.size)).all():
        return count
    if not groups.any():
        return jax.tree.map(lambda x: x[None], counts.total(count))
    order = np.argsort(groups, kind="stable")
    ends = np.concatenate([[0], np.cumsum(np.bincount(groups))])
    running = counts.cumulative(Count(count.high[order], count.low[order]))
    return counts.minus(
        Count(running.high[ends[1:]], running.low[ends[1:]]),
        Count(running.high[ends[:-1]], running.low[ends[:-1]]),
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


def _first_segments(segments: Segments, step: jax.Array) -> list[jax.Array]:
    """Return for each array the number of its first segment, not known to XLA."""
    return _unknown(np.cumsum([0, *(n or 1 for n in segments.layers)])[:-1], step)


def _unknown(numbers: Any, step: jax.Array) -> list[jax.Array]:
    """Return numbers as uint32 scalars that XLA does not know.

    XLA compiles equal kernels once. Those that count an array, or choose its mask, are
    equal for arrays of equal shape if they read where it lies, and all differ if that
    is a constant in them: a thousand arrays then take a minute.

    Args:
      numbers: a sequence of them, below 2**32.
      step: of the search, never negative, which XLA does not know.
    """
    never = (step < 0).astype(jnp.uint32)
    pairs = [jnp.asarray(np.array([number, 0], np.uint32)) for number in numbers]
    return [jax.lax.dynamic_slice(x, (never,), (1,))[0] for x in pairs]


@functools.partial(jax.jit, static_argnums=4)
def _reached(code, limits, ends, first, layers) -> jax.Array:
    """Return what is above its segment's limit, or equal to it before a position.

    Args:
      code: unsigned integers.
      limits: for all segments.
      ends: the positions, for all segments.
      first: the number of the first segment of the array.
      layers: how many segments the array has along its first axis, or None.
    """
    shape = code.shape if layers is None else code.shape[1:]
    position = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        stride = math.prod(shape[axis + 1 :])
        index = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
        position = position + (index if stride == 1 else index * np.uint32(stride))
    own = (1 if layers is None else layers,)
    limit, end = (jax.lax.dynamic_slice(x, (first,), own) for x in (limits, ends))
    if layers is None:
        limit, end = limit[0], end[0]
    else:
        limit, end = (x.reshape(-1, *(1,) * len(shape)) for x in (limit, end))
        position = jnp.broadcast_to(position, (1, *shape))
    return (code > limit) | ((code == limit) & (position < end))


class _Search(NamedTuple):
    """State of the search.

    Attributes:
      step: passes made.
      kth: for each group the bits found so far of its k-th largest code.
      above: for each segment how many entries are above that.
      reach: for each segment how many reach it.
      ends: for each segment the bits found so far of the position where ties end.
    """

    step: jax.Array
    kth: jax.Array
    above: Count
    reach: Count
    ends: jax.Array


def _cut(codes, k: Count, packing: "_Packing") -> _Search:
    """Find the k-th largest code of each group, and where its ties end.

    One loop makes all passes, because each pass names every array and the size of the
    program is that of its loops: first the bits of the code; then how many entries are
    above it and how many reach it; then, if ties are left, the bits of the position.

    Args:
      codes: unsigned integers, packed.
      k: how many entries of each group are kept.
      packing: the packed segments, and the order in which ties are settled.

    Returns:
      The last state: `kth`, shape (groups,), and `ends`, uint32 of shape (segments,).
    """
    segments = packing.segments
    unsigned, bits = codes[0].dtype, jnp.iinfo(codes[0].dtype).bits
    groups = np.asarray(segments.groups)
    longest = max(
        math.prod(code.shape if layers is None else code.shape[1:])
        for code, layers in zip(codes, segments.layers, strict=True)
    )

    def unsettled(state):
        left, whole = _quotas(state, k, packing)
        nothing = from_zero(left)
        searching = jnp.any(~whole & ~counts.at_least(nothing, left))
        return (state.step < bits + 2) | (
            (state.step < bits + 2 + longest.bit_length()) & searching
        )

    def make_pass(state):
        ones = jnp.ones((), unsigned)
        at = jnp.clip(bits - 1 - state.step, 0, bits - 1).astype(unsigned)
        candidates = state.kth | (ones << at)
        at = jnp.clip(bits + 1 + longest.bit_length() - state.step, 0, 31)
        ends = state.ends | (jnp.uint32(1) << at.astype(jnp.uint32))
        first, second = state.step < bits, state.step == bits
        third, last = state.step == bits + 1, state.step > bits + 1
        limits = jnp.where(first, candidates - ones, state.kth)
        until = jnp.where(last, ends, jnp.where(third, jnp.uint32(2**32 - 1), 0))
        n = _counted(codes, limits[groups], until, segments, state.step)
        reached = counts.at_least(_in_groups(n, segments), k)
        kth = jnp.where(first & reached, candidates, state.kth)
        above = pick(second, n, state.above)
        reach = pick(third, n, state.reach)
        new = _Search(state.step + 1, kth, above, reach, state.ends)
        left, whole = _quotas(new, k, packing)
        fits = counts.at_least(left, counts.minus(n, above)) & ~whole
        settled = jnp.where(whole, jnp.uint32(2**32 - 1), jnp.uint32(0))
        ends = jnp.where(last & fits, ends, jnp.where(third, settled, state.ends))
        return new._replace(ends=ends)

    zero = _varying(codes, k)
    empty = jnp.zeros(groups.size, jnp.int32) + zero
    start = _Search(
        step=jnp.int32(0),
        kth=(jnp.zeros(k.high.shape, jnp.int32) + zero).astype(unsigned),
        above=Count(empty, empty),
        reach=Count(empty, empty),
        ends=empty.astype(jnp.uint32),
    )
    return jax.lax.while_loop(unsettled, make_pass, start)


def _quotas(state: _Search, k: Count, packing: "_Packing") -> tuple[Count, jax.Array]:
    """Return how many ties each segment may keep, and whether it keeps them all."""
    groups = np.asarray(packing.segments.groups)
    room = counts.minus(k, _in_groups(state.above, packing.segments))
    ties = counts.minus(state.reach, state.above)
    earlier = _before(ties, packing.segments, packing.order)
    left = counts.minus(Count(room.high[groups], room.low[groups]), earlier)
    return left, counts.at_least(left, ties)


def pick(first: jax.Array, a: Count, b: Count) -> Count:
    """Return the first of two counts where a flag is set, else the second."""
    return Count(jnp.where(first, a.high, b.high), jnp.where(first, a.low, b.low))


def from_zero(like: Count) -> Count:
    """Return counts of zero."""
    return jax.tree.map(jnp.zeros_like, like)


def _varying(codes: Sequence[jax.Array], k: Count) -> jax.Array:
    """Return zero, varying over devices as the arguments do (inside `shard_map`)."""
    zeros = [jnp.zeros_like(x, jnp.int32, shape=()) for x in [*codes, *k]]
    return functools.reduce(jnp.add, zeros)


@functools.partial(jax.jit, static_argnums=4)
def _count(code, limits, ends, first, layers) -> jax.Array:
    """Count what is kept in every segment of an array; see `_reached`."""
    flags = _reached(code, limits, ends, first, layers)
    axes = tuple(range(0 if layers is None else 1, flags.ndim))
    return jnp.atleast_1d(replicated(jnp.sum(flags, axis=axes, dtype=jnp.uint32)))


def _counted(codes, limits, ends, segments: Segments, step) -> Count:
    """Count what is kept in every segment, shape (segments,)."""
    firsts = _first_segments(segments, step)
    found = [
        _count(code, limits, ends, first, layers)
        for code, first, layers in zip(codes, firsts, segments.layers, strict=True)
    ]
    return counts.from_uint32(jnp.concatenate(found))


# Packing: ----------------------------------------------------------------------------


class _Packing(NamedTuple):
    """Where small arrays lie in the rows of a common one; static.

    Attributes:
      segments: those of the packed arrays.
      order: for each packed segment its place in the order of the given entries.
      members: for each packed array the given ones in it, (index, layers).
      ends: for each packed array the used length of its rows, None if it is a given
        one.
    """

    segments: Segments
    order: tuple[int, ...]
    members: tuple[tuple[tuple[int, int], ...], ...]
    ends: tuple[tuple[int, ...] | None, ...]


_SMALL = 1 << 14
_FEW = 32
_ROW = 128


def _is_small(array: jax.Array) -> bool:
    spec = jax.typeof(array).sharding.spec
    return array.size <= _SMALL and all(axis is None for axis in spec)


def _packing(arrays, segments: Segments) -> _Packing:
    """Plan which arrays are copied into the rows of a common one.

    The size of a program grows with the number of arrays in it, so many small arrays
    are counted as one.
    """
    small = tuple(i for i, array in enumerate(arrays) if _is_small(array))
    small = small if len(small) > _FEW else ()
    packed = set(small)
    members = [(i,) for i in range(len(arrays)) if i not in packed]
    members += [small] if small else []
    layers = [n or 1 for n in segments.layers]
    first = np.cumsum([0, *layers]).tolist()
    stacks, owners, ends = [], [], []
    for array in members:
        used = []
        for i in array:
            size = arrays[i].size // layers[i]
            rows = _rows(size) if array is small else [size]
            for owner in range(first[i], first[i + 1]):
                owners += [owner] * len(rows)
                used += rows
        stacks.append(len(used) if array is small else segments.layers[array[0]])
        ends.append(tuple(used) if array is small else None)
    order = np.argsort(np.argsort(owners, kind="stable"), kind="stable")
    return _Packing(
        Segments(tuple(stacks), tuple(segments.groups[owner] for owner in owners)),
        tuple(order.tolist()),
        tuple(tuple((i, layers[i]) for i in array) for array in members),
        tuple(ends),
    )


def _rows(size: int) -> list[int]:
    """Return the used lengths of the rows that hold so many entries."""
    return [min(_ROW, size - start) for start in range(0, size, _ROW)] or [0]


def _pack(arrays, packing: _Packing) -> list[jax.Array]:
    packed = []
    for members, ends in zip(packing.members, packing.ends, strict=True):
        if ends is None:
            packed.append(arrays[members[0][0]])
        else:
            packed.append(_in_rows([(arrays[i], n) for i, n in members], len(ends)))
    return packed


def _in_rows(arrays: Sequence[tuple[jax.Array, int]], rows: int) -> jax.Array:
    """Return arrays of so many layers each in the rows of one, filled up with zeros."""
    pieces = []
    for array, n in arrays:
        size = array.size // n
        more = -size % _ROW
        flat = jax.lax.reshape(array, (n, size))
        if n > 1 and more:
            zero = np.zeros((), flat.dtype)
            flat = jax.lax.pad(flat, zero, [(0, 0, 0), (0, more, 0)])
        pieces.append(jax.lax.reshape(flat, (flat.size,)))
        if n == 1 and more:
            pieces.append(jnp.asarray(np.zeros(more, flat.dtype)))
    return jax.lax.reshape(jax.lax.concatenate(pieces, 0), (rows, _ROW))


def _unpack(masks, shapes, packing: _Packing, step: jax.Array) -> list[jax.Array]:
    """Return the masks of the given arrays, of these shapes."""
    given: dict[int, jax.Array] = {}
    for mask, members, ends in zip(masks, packing.members, packing.ends, strict=True):
        if ends is None:
            given[members[0][0]] = mask
            continue
        rows = [n * len(_rows(math.prod(shapes[i]) // n)) for i, n in members]
        starts = _unknown(np.cumsum([0, *rows])[:-1], step)
        for (i, n), number, start in zip(members, rows, starts, strict=True):
            own = jax.lax.dynamic_slice(mask, (start, jnp.uint32(0)), (number, _ROW))
            size = math.prod(shapes[i]) // n
            own = jax.lax.slice(own.reshape(n, -1), (0, 0), (n, size))
            given[i] = jax.lax.reshape(own, shapes[i])
    return [given[i] for i in range(len(shapes))]
