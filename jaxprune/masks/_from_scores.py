"""From scores to masks: which weights are kept.

Counts are exact: ties are settled by position, first come, first kept.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jaxprune.base._checks import is_whole
from jaxprune.masks import _counts as counts
from jaxprune.masks._counts import Count
from jaxprune.masks._distributions import (
    Distribution,
    allocate,
    allocate_traced,
    check_bounds,
    global_,
    shares_of,
)
from jaxprune.masks._k_largest import largest, refuse_huge
from jaxprune.masks._packing import Segments
from jaxprune.tree._names import by_pattern


def top_k_masks(scores: Any, keep: jax.Array | int) -> Any:
    """Keep the `keep` largest entries of the whole tree of scores.

        m_i = 1 where fewer than `keep` entries rank before s_i

    Args:
      scores: a pytree of float arrays. NaN is the highest score when traced.
      keep: how many entries to keep, a Python int or an int32 scalar (so it may follow
        a schedule under jit), from 0 to the number of entries.

    Returns:
      A tree of bool arrays of the same shapes, with exactly `keep` True entries. Among
      equal scores those of the first leaf in tree order, and in it the first in row
      order, are kept.

    Raises:
      ValueError: a static `keep` is out of range, a leaf has 2**32 entries or more, or
        a score that is not traced is NaN.

    Examples:
      >>> import jax.numpy as jnp
      >>> scores = {"a": jnp.array([3.0, 1.0]), "b": jnp.array([1.0, 2.0])}
      >>> masks = top_k_masks(scores, 3)
      >>> masks["a"].tolist(), masks["b"].tolist()
      ([True, True], [False, True])
    """
    leaves, treedef = jax.tree.flatten(scores)
    size = sum(math.prod(leaf.shape) for leaf in leaves)
    counted = isinstance(keep, jax.Array | Count)
    if not counted and not (is_whole(keep) and 0 <= keep <= size):
        raise ValueError(
            f"`top_k_masks(keep={keep!r})`: must be a whole number from 0 to the "
            f"number of entries, {size}. `keep_count(keep_ratio, size)` makes one of a "
            "fraction."
        )
    refuse_nan(f"top_k_masks(keep={keep})", dict(enumerate(leaves)))
    return jax.tree.unflatten(treedef, largest(leaves, keep))


@jax.jit
def _any_nan(arrays):
    return jnp.stack([jnp.any(jnp.isnan(array)) for array in arrays])


def refuse_nan(call: str, arrays: Mapping[Any, Any]) -> None:
    """Refuse NaN in arrays whose values are known; traced ones pass.

    Raises:
      ValueError: an array holds NaN; its name is given.
    """
    known = {
        name: array
        for name, array in arrays.items()
        if isinstance(array, jax.Array | np.ndarray)
        and not isinstance(array, jax.core.Tracer)
    }
    if not known or len(known) < len(arrays):
        return
    with jax.ensure_compile_time_eval():
        found = np.asarray(_any_nan(list(known.values())))
    bad = [name for name, nan in zip(known, found, strict=True) if nan]
    if bad:
        raise ValueError(
            f"`{call}`: scores must be numbers, those of {bad} hold NaN. The weights "
            "or the loss have diverged; go back to a checkpoint before that."
        )


class Layer(NamedTuple):
    """One layer of one leaf, for the decision how many of its weights are kept.

    Attributes:
      leaf: the name of its leaf.
      shape: the shape of the layer.
      floor: its minimum count.
      cap: how many of its weights are not yet pruned.
    """

    leaf: str
    shape: tuple[int, ...]
    floor: int
    cap: int

    @property
    def size(self) -> int:
        """The number of its weights."""
        return math.prod(self.shape)


def floors_of(call: str, min_keep_ratio: Any, names: Any) -> dict[str, float]:
    """Return the minimum keep ratio of every leaf.

    Args:
      call: the public function that was called.
      min_keep_ratio: a number in [0, 1], or pattern to number.
      names: the names of the selected leaves.

    Raises:
      ValueError: out of range, or patterns that do not cover the leaves.
    """
    if not isinstance(min_keep_ratio, Mapping):
        counts.check_floor(call, min_keep_ratio)
        value: float = min_keep_ratio
        return dict.fromkeys(list(names), value)
    for value in min_keep_ratio.values():
        counts.check_floor(call, value)
    found = by_pattern(call, "min_keep_ratio", min_keep_ratio, names)
    return {name: value for name, (_, value) in found.items()}


def layers_of(call, scores, layers, alive, min_keep_ratio) -> list[Layer]:
    """Return all layers, stacked ones one by one, in the order of their leaves."""
    floors, found = floors_of(call, min_keep_ratio, scores), []
    for name, score in scores.items():
        number, shape = layers.get(name), tuple(score.shape)
        shape = shape if number is None else shape[1:]
        caps = [math.prod(shape)] * (number or 1)
        if alive.get(name) is not None:
            rows = np.asarray(alive[name]).reshape(number or 1, -1)
            caps = np.count_nonzero(rows, axis=1).tolist()
        floor = counts.layer_floor(math.prod(shape), floors[name])
        found += [Layer(name, shape, min(floor, cap), cap) for cap in caps]
    return found


def scored_masks(
    scores: Mapping[str, jax.Array],
    *,
    keep_ratio: Any,
    distribution: Distribution = global_,
    min_keep_ratio: Any = 0.0,
    layers: Mapping[str, int | None] | None = None,
    alive: Mapping[str, Any] | None = None,
    call: str = "scored_masks",
) -> dict[str, jax.Array]:
    """Keep exactly `floor(keep_ratio * n)` of the n scored weights.

    The distribution says how many each layer keeps, or that all are ranked together.
    Every layer keeps at least `ceil(min_keep_ratio * size)`.

    Args:
      scores: leaf name to scores, floating; the highest are kept. NaN is the highest.
      keep_ratio: of all weights, in (0, 1]: a number, which is counted exactly; a
        traced scalar, as exact as float32; or shell pattern to such a ratio, each for
        the leaves that it is the first to match, counted within them.
      distribution: `masks.global_`, `masks.uniform`, `masks.erk`, or another function
        of the shape of a layer.
      min_keep_ratio: in [0, 1], of each layer; or pattern to number.
      layers: leaf name to the number of layers stacked along the first axis; leaves
        that are not named hold one layer.
      alive: leaf name to a bool array; what is False is never kept, but counts.
      call: what messages begin with.

    Returns:
      Leaf name to mask.

    Raises:
      ValueError: an argument is out of range; the floors exceed the count, or the
        masks that hold keep less; patterns do not fit; scores that are not traced hold
        NaN.

    Examples:
      >>> import jax.numpy as jnp
      >>> scores = {"a": jnp.array([[3.0, 1.0]]), "b": jnp.array([[4.0, 5.0]])}
      >>> got = scored_masks(scores, keep_ratio=0.5)
      >>> got["a"].tolist(), got["b"].tolist()
      ([[False, False]], [[True, True]])
      >>> share = lambda shape: shape[0] * shape[1]  # `masks.uniform`
      >>> got = scored_masks(scores, keep_ratio=0.5, distribution=share)
      >>> got["a"].tolist(), got["b"].tolist()
      ([[True, False]], [[False, True]])
    """
    refuse_nan(call, scores)
    refuse_huge(call, scores)
    layers, alive = layers or {}, alive or {}
    table = layers_of(call, scores, layers, alive, min_keep_ratio)
    groups, keep = plan(call, table, keep_ratio, distribution, min_keep_ratio)
    arrays = list(scores.values())
    numbers = tuple(layers.get(name) for name in scores)
    known = [alive.get(name) for name in scores]
    known = None if all(mask is None for mask in known) else known
    own, forced = tuple(range(len(table))), None
    if groups != own and any(layer.floor for layer in table):
        floors = [layer.floor for layer in table]
        forced = largest(arrays, floors, segments=Segments(numbers, own), alive=known)
    segments = Segments(numbers, groups)
    found = largest(arrays, keep, segments=segments, forced=forced, alive=known)
    return dict(zip(scores, found, strict=True))


def plan(
    call: str,
    table: list[Layer],
    keep_ratio: Any,
    distribution: Distribution,
    min_keep_ratio: Any,
) -> tuple[tuple[int, ...], Count]:
    """Decide which layers are ranked together, and how many weights they keep.

    Args:
      call: what messages begin with.
      table: all layers.
      keep_ratio: see `scored_masks`.
      distribution: see `scored_masks`.
      min_keep_ratio: for messages; the floors are in the table.

    Returns:
      For each layer the number of its group, and the counts, shape (groups,).

    Raises:
      ValueError: see `scored_masks`.
    """
    names = list(dict.fromkeys(layer.leaf for layer in table))
    ratios = dict.fromkeys(names, ("*", keep_ratio))
    if isinstance(keep_ratio, Mapping):
        ratios = by_pattern(call, "keep_ratio", keep_ratio, names)
    groups: dict[str, list[int]] = {}
    for i, layer in enumerate(table):
        groups.setdefault(ratios[layer.leaf][0], []).append(i)
    together, keep, order = [0] * len(table), [], []
    for number, members in enumerate(groups.values()):
        layers = [table[i] for i in members]
        ratio = ratios[layers[0].leaf][1]
        count = _count(call, ratio, layers, min_keep_ratio)
        shares = shares_of(call, distribution, [layer.shape for layer in layers])
        if shares is None:
            keep.append(count)
        else:
            share = allocate_traced if isinstance(count, Count) else allocate
            bounds = [layer.floor for layer in layers], [layer.cap for layer in layers]
            keep.append(share(shares, *bounds, count))  # pyright: ignore
            order += members
        for i in members:
            together[i] = number
    counted = counts.stacked(keep)
    if order:
        back = np.argsort(order)
        counted = Count(counted.high[back], counted.low[back])
        together = range(len(table))
    return tuple(together), counted


def _count(call, keep_ratio, layers: list[Layer], min_keep_ratio) -> int | Count:
    """Return how many weights some layers keep together."""
    size = sum(layer.size for layer in layers)
    floors = [layer.floor for layer in layers]
    caps = [layer.cap for layer in layers]
    number = counts.number_of(keep_ratio)
    if number is None:
        count = counts.traced_keep(keep_ratio, size)
        count = counts.maximum(count, counts.from_ints(sum(floors)))
        return counts.minimum(count, counts.from_ints(sum(caps)))
    keep = counts.exact_count(call, number, size)
    check_bounds(call, keep_ratio, min_keep_ratio, keep, floors, caps)
    return keep


def floor_masks(
    scores: Mapping[str, jax.Array],
    *,
    min_keep_ratio: Any,
    layers: Mapping[str, int | None] | None = None,
    alive: Mapping[str, Any] | None = None,
    call: str = "floor_masks",
) -> dict[str, jax.Array]:
    """Return the masks of the best `ceil(min_keep_ratio * size)` entries of each layer.

    Args:
      scores: leaf name to scores, floating, of any shape.
      min_keep_ratio: see `scored_masks`.
      layers: see `scored_masks`.
      alive: see `scored_masks`.
      call: what messages begin with.

    Returns:
      Leaf name to mask.

    Raises:
      ValueError: `min_keep_ratio` is outside [0, 1], or patterns do not fit.

    Examples:
      >>> import jax.numpy as jnp
      >>> floor_masks({"w": jnp.array([3.0, 5.0])}, min_keep_ratio=0.1)["w"].tolist()
      [False, True]
    """
    refuse_huge(call, scores)
    layers, alive = layers or {}, alive or {}
    table = layers_of(call, scores, layers, alive, min_keep_ratio)
    if not any(layer.floor for layer in table):
        return {name: jnp.zeros(score.shape, bool) for name, score in scores.items()}
    numbers = tuple(layers.get(name) for name in scores)
    found = largest(
        list(scores.values()),
        [layer.floor for layer in table],
        segments=Segments(numbers, tuple(range(len(table)))),
        alive=[alive.get(name) for name in scores] if alive else None,
    )
    return dict(zip(scores, found, strict=True))
