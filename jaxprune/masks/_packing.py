"""How many arrays are counted as one: they are copied into the rows of a common array.

The size of a program, and the time of a pass on an accelerator, grow with the number of
arrays, so those that are not large are counted together. No array that is known to be
sharded is copied.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# The largest arrays in common ones, and the lengths of their rows.
_SMALL, _SMALL_ROW = 1 << 14, 128
_MEDIUM, _MEDIUM_ROW = 1 << 22, 1 << 12
_FEW = 4  # arrays that are not worth a copy
# Of each length. Sums of their low words, see `_counts`, are int32.
_MOST_ROWS = 1 << 18


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


class _Member(NamedTuple):
    """A given array in a packed one: its number, its layers, and its rows there."""

    index: int
    layers: int
    rows: int


class Packing(NamedTuple):
    """Which given arrays lie in which packed ones, and where; static.

    Attributes:
      segments: those of the packed arrays.
      order: for each packed segment its place in the order of the given entries.
      members: for each packed array the given ones in it.
      lengths: for each packed array the length of its rows, None if it is a given one.
      used: for each packed array how much of each row is used, None if it is a given
        one.
    """

    segments: Segments
    order: tuple[int, ...]
    members: tuple[tuple[_Member, ...], ...]
    lengths: tuple[int | None, ...]
    used: tuple[tuple[int, ...] | None, ...]


def plan(arrays: Sequence[Any], segments: Segments, *, alone: bool) -> Packing:
    """Plan which arrays are copied into the rows of common ones.

    Args:
      arrays: the given ones.
      segments: theirs.
      alone: whether there is one device, so that no array is sharded.
    """
    layers = [n or 1 for n in segments.layers]
    sizes = [x.size // n for x, n in zip(arrays, layers, strict=True)]
    first = np.cumsum([0, *layers]).tolist()
    owners, stacks, members, lengths, used = [], [], [], [], []
    for indices, length in _common(arrays, layers, alone):
        own = []
        for i in indices:
            pieces = _pieces(sizes[i], length)
            for owner in range(first[i], first[i + 1]):
                owners += [owner] * len(pieces)
                own += pieces
        rows = [len(_pieces(sizes[i], length)) * layers[i] for i in indices]
        given = zip(indices, (layers[i] for i in indices), rows, strict=True)
        members.append(tuple(_Member(*member) for member in given))
        stacks.append(len(own) if length else segments.layers[indices[0]])
        lengths.append(length)
        used.append(tuple(own) if length else None)
    order = np.argsort(np.argsort(owners, kind="stable"), kind="stable")
    groups = tuple(segments.groups[owner] for owner in owners)
    return Packing(
        segments=Segments(tuple(stacks), groups),
        order=tuple(order.tolist()),
        members=tuple(members),
        lengths=tuple(lengths),
        used=tuple(used),
    )


def _common(
    arrays, layers: Sequence[int], alone: bool
) -> Iterator[tuple[tuple[int, ...], int | None]]:
    """Yield the numbers of the arrays in each packed one, and the length of its rows.

    Arrays that stay as they are come first; the length is None for them.
    """
    wanted = [_length_for(x, n, alone) for x, n in zip(arrays, layers, strict=True)]
    common = {}
    for length in (_SMALL_ROW, _MEDIUM_ROW):
        found, rows = [], 0
        for i in (i for i, own in enumerate(wanted) if own == length):
            more = layers[i] * len(_pieces(arrays[i].size // layers[i], length))
            if rows + more <= _MOST_ROWS:
                rows += more
                found.append(i)
        if len(found) > _FEW:
            common[length] = tuple(found)
    copied = set().union(*common.values())
    yield from (((i,), None) for i in range(len(arrays)) if i not in copied)
    yield from ((indices, length) for length, indices in common.items())


def _length_for(array: jax.Array, layers: int, alone: bool) -> int | None:
    """Return the length of rows that suits an array, None if it is not to be copied."""
    spec = jax.typeof(array).sharding.spec
    if not array.size or any(axis is not None for axis in spec):
        return None
    if array.size <= _SMALL:
        return _SMALL_ROW
    if alone and array.size <= _MEDIUM:
        return _SMALL_ROW if array.size <= _SMALL * layers else _MEDIUM_ROW
    return None


def _pieces(size: int, length: int | None) -> list[int]:
    """Return how a layer of a size is cut into rows, whole if there is no length."""
    if length is None:
        return [size]
    return [min(length, size - start) for start in range(0, size, length)]


def pack(arrays: Sequence[jax.Array], packing: Packing) -> list[jax.Array]:
    """Copy given arrays into the packed ones, filled up with zeros."""
    return [
        arrays[members[0].index]
        if length is None
        else _in_rows([(arrays[m.index], m.layers) for m in members], length)
        for members, length in zip(packing.members, packing.lengths, strict=True)
    ]


def _in_rows(arrays: Sequence[tuple[jax.Array, int]], length: int) -> jax.Array:
    """Return arrays of so many layers each in the rows of one, filled up with zeros."""
    pieces = []
    for array, layers in arrays:
        size = array.size // layers
        more = -size % length
        flat = jax.lax.reshape(array, (layers, size))
        if layers > 1 and more:
            zero = np.zeros((), flat.dtype)
            flat = jax.lax.pad(flat, zero, [(0, 0, 0), (0, more, 0)])
        pieces.append(jax.lax.reshape(flat, (flat.size,)))
        if layers == 1 and more:
            pieces.append(jnp.asarray(np.zeros(more, flat.dtype)))
    return jax.lax.concatenate(pieces, 0).reshape(-1, length)


def unpack(
    packed: Sequence[jax.Array], shapes: Any, packing: Packing, natural: jax.Array
) -> list[jax.Array]:
    """Return the given arrays out of the packed ones.

    Args:
      packed: the packed arrays.
      shapes: those of the given arrays.
      packing: the plan.
      natural: see `unknown`.
    """
    given: dict[int, jax.Array] = {}
    for array, members, length in zip(
        packed, packing.members, packing.lengths, strict=True
    ):
        if length is None:
            given[members[0].index] = array
            continue
        starts = unknown(np.cumsum([0, *(m.rows for m in members)])[:-1], natural)
        for (i, layers, rows), start in zip(members, starts, strict=True):
            own = jax.lax.dynamic_slice(array, (start, jnp.uint32(0)), (rows, length))
            size = math.prod(shapes[i]) // layers
            own = jax.lax.slice(own.reshape(layers, -1), (0, 0), (layers, size))
            given[i] = jax.lax.reshape(own, shapes[i])
    return [given[i] for i in range(len(shapes))]


def unknown(numbers: Any, natural: jax.Array) -> list[jax.Array]:
    """Return numbers as uint32 scalars that XLA does not know.

    XLA compiles equal kernels once. Those that count an array, or choose its mask, are
    equal for arrays of equal shape if they read where it lies, and all differ if that
    is a constant in them: a thousand arrays then take a minute.

    Args:
      numbers: a sequence of them, below 2**32.
      natural: an int32 scalar that is never negative, which XLA does not know.
    """
    never = (natural < 0).astype(jnp.uint32)
    pairs = [jnp.asarray(np.array([number, 0], np.uint32)) for number in numbers]
    return [jax.lax.dynamic_slice(x, (never,), (1,))[0] for x in pairs]
