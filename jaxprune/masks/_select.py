"""From scores to masks: the only place that decides what is kept.

A mask tree has the structure of the parameters; each leaf is a bool array, True for
kept, of the shape of its parameter, or the scalar True for a leaf that is never pruned.
Counts are exact: ties are settled by position, first come, first kept.
"""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp

from jaxprune import tree as jtree
from jaxprune.base._protocols import Masks, Params, keep
from jaxprune.masks._ranking import keep_count as keep_count
from jaxprune.masks._ranking import largest, traced_count


def keep_ratio_of(sparsity: float) -> float:
    """Returns `1 - sparsity`, in exact decimal arithmetic.

    Args:
      sparsity: the fraction of zeros, in [0, 1).

    Raises:
      ValueError: if `sparsity` is outside [0, 1).

    >>> keep_ratio_of(0.9), 1 - 0.9
    (0.1, 0.09999999999999998)
    """
    if not 0 <= sparsity < 1:
        raise ValueError(
            f"`sparsity={sparsity}`: the fraction of zeros must be in [0, 1). For 95 % "
            "zeros pass 0.95."
        )
    return float(1 - Fraction(str(sparsity)))


def top_k_masks(scores: Any, keep: jax.Array | int) -> Any:
    """Keeps the `keep` largest entries of the whole tree of scores.

    Args:
      scores: a pytree of float arrays, together fewer than 2**31 entries. NaN counts as
        the lowest score.
      keep: how many entries to keep, a Python int or an int32 scalar (so it may follow
        a schedule under jit), from 0 to the number of entries.

    Returns:
      A tree of bool arrays of the same shapes, with exactly `keep` True entries. Among
      equal scores those of the first leaf in tree order, and in it the first in row
      order, are kept.

    Raises:
      ValueError: if a static `keep` is out of range, or there are too many entries.

    >>> import jax.numpy as jnp
    >>> masks = top_k_masks({"a": jnp.array([3.0, 1.0]), "b": jnp.array([1.0, 2.0])}, 3)
    >>> masks["a"].tolist(), masks["b"].tolist()
    ([True, True], [False, True])
    """
    leaves, treedef = jax.tree.flatten(scores)
    size = sum(math.prod(leaf.shape) for leaf in leaves)
    if size >= 2**31:
        raise ValueError(
            f"`top_k_masks`: counts are int32, so fewer than 2**31 entries can be "
            f"ranked together, got {size}. Rank groups of leaves apart."
        )
    if isinstance(keep, int) and not 0 <= keep <= size:
        raise ValueError(
            f"`top_k_masks(keep={keep})`: `keep` must be from 0 to the number of "
            f"entries, {size}."
        )
    return jax.tree.unflatten(treedef, largest(leaves, keep) if leaves else [])


def layer_floor(size: int, min_keep_ratio: float) -> int:
    """Returns the least number of entries a layer keeps: `ceil(ratio * size)`.

    Raises:
      ValueError: if `min_keep_ratio` is outside [0, 1].

    >>> layer_floor(288, 0.001), layer_floor(100_000, 0.001)
    (1, 100)
    """
    if not 0 <= min_keep_ratio <= 1:
        raise ValueError(
            f"`min_keep_ratio={min_keep_ratio}`: the least fraction of a layer must be "
            "in [0, 1]; 0 allows a layer to be emptied."
        )
    return math.ceil(Fraction(str(min_keep_ratio)) * size)


def floor_masks(
    scores: jax.Array, *, min_keep_ratio: float, layers: int | None = None
) -> jax.Array:
    """Returns the mask of the best `ceil(min_keep_ratio * size)` entries of a layer.

    Args:
      scores: shape (...), or (layers, ...) if layers are stacked.
      min_keep_ratio: in [0, 1].
      layers: None for one layer, else the length of the first axis; then the floor
        holds in each of them.
    """
    if layers is None:
        return top_k_masks(scores, layer_floor(scores.size, min_keep_ratio))
    floor = layer_floor(scores.size // layers, min_keep_ratio)
    return jax.vmap(lambda layer: top_k_masks(layer, floor))(scores)


def global_masks(
    scores: Mapping[str, jax.Array],
    *,
    keep_ratio: float | jax.Array,
    min_keep_ratio: float = 0.0,
    layers: Mapping[str, int | None] | None = None,
) -> dict[str, jax.Array]:
    """Keeps exactly `floor(keep_ratio * n)` of the n scored weights, the best of all.

    Every layer keeps at least its floor (see `floor_masks`); the rest of the count
    goes to the highest scores, wherever they are.

    Args:
      scores: leaf name to scores, comparable between leaves.
      keep_ratio: of all scored weights, in (0, 1]. A number is counted exactly; a
        traced scalar (a schedule under jit) to float32, and never below the floors.
      min_keep_ratio: in [0, 1], of each layer.
      layers: leaf name to the number of layers stacked along the first axis; leaves
        that are not named hold one layer.

    Raises:
      ValueError: if the floors together exceed the count asked for.
    """
    size = sum(math.prod(s.shape) for s in scores.values())
    least, ranked = 0, {}
    for name, score in scores.items():
        stacked = (layers or {}).get(name)
        count = stacked or 1
        least += count * layer_floor(score.size // count, min_keep_ratio)
        ranked[name] = score
        if min_keep_ratio:
            floor = floor_masks(score, min_keep_ratio=min_keep_ratio, layers=stacked)
            ranked[name] = jnp.where(floor, jnp.inf, score)
    return top_k_masks(ranked, _count(keep_ratio, size, least, min_keep_ratio))


def uniform_masks(
    scores: Mapping[str, jax.Array],
    *,
    keep_ratio: float | jax.Array,
    min_keep_ratio: float = 0.0,
) -> dict[str, jax.Array]:
    """Keeps the same fraction of every leaf, the best of each.

    A number asked for is met exactly, `floor(keep_ratio * n)` of all n weights: leaves
    get whole counts, and what is lost by rounding down goes to the leaves that lost
    most of it.

    Args:
      scores: leaf name to scores; compared within a leaf only.
      keep_ratio: see `global_masks`; a traced scalar is rounded down in each leaf.
      min_keep_ratio: in [0, 1], of each leaf.

    Raises:
      ValueError: if the floors together exceed the count asked for.
    """
    sizes = {name: math.prod(s.shape) for name, s in scores.items()}
    floors = {name: layer_floor(size, min_keep_ratio) for name, size in sizes.items()}
    if not isinstance(keep_ratio, float | int):
        return {
            name: top_k_masks(s, _count(keep_ratio, s.size, floors[name], 0.0))
            for name, s in scores.items()
        }
    total = sum(sizes.values())
    _count(keep_ratio, total, sum(floors.values()), min_keep_ratio)
    exact = {name: Fraction(str(keep_ratio)) * size for name, size in sizes.items()}
    counts = {name: max(floors[name], math.floor(exact[name])) for name in sizes}
    missing = keep_count(keep_ratio, total) - sum(counts.values())
    while missing:
        # Floors may have claimed too much (missing < 0): then the best-off leaf pays.
        sign = 1 if missing > 0 else -1
        name = max(
            (n for n in counts if counts[n] + sign >= floors[n]),
            key=lambda n: sign * (exact[n] - counts[n]),
        )
        counts[name] += sign
        missing -= sign
    return {name: top_k_masks(s, counts[name]) for name, s in scores.items()}


def _count(keep_ratio, size, least, min_keep_ratio):
    """How many of `size` entries to keep, at least `least`."""
    if not isinstance(keep_ratio, float | int):
        return jnp.maximum(traced_count(keep_ratio, size), least)
    keep = keep_count(keep_ratio, size)
    if least > keep:
        raise ValueError(
            f"`keep_ratio={keep_ratio}` of {size} weights is {keep}, but with "
            f"`min_keep_ratio={min_keep_ratio}` the layers together keep at least "
            f"{least}. Ask for a keep ratio of at least {least / size:.3g}, or lower "
            "`min_keep_ratio`."
        )
    return keep


def fill(params: Params, named_masks: Mapping[str, jax.Array]) -> Masks:
    """Returns a mask tree from masks by leaf name; other leaves are never pruned."""
    ones = jax.tree.map(lambda _: jnp.asarray(True), params)
    return jtree.replace(ones, named_masks)


def validate(params: Params, masks: Masks) -> None:
    """Checks that masks fit their parameters.

    Raises:
      ValueError: if structures differ, or a mask has neither the shape of its parameter
        nor the shape `()`. Broadcasting a mask silently would prune the wrong weights.
      TypeError: if a mask is not boolean.
    """
    if jax.tree.structure(params) != jax.tree.structure(masks):
        ours = set(jtree.named_leaves(params))
        theirs = set(jtree.named_leaves(masks))
        raise ValueError(
            "`masks` must have the structure of the parameters. Only in the "
            f"parameters: {sorted(ours - theirs)}; only in the masks: "
            f"{sorted(theirs - ours)}. Structures: {jax.tree.structure(params)} and "
            f"{jax.tree.structure(masks)}."
        )
    for (name, leaf), mask in zip(
        jtree.named_leaves(params).items(), jax.tree.leaves(masks), strict=True
    ):
        dtype, shape = jnp.result_type(mask), jnp.shape(mask)
        if dtype != jnp.bool_:
            raise TypeError(
                f"`masks`: the mask of {name!r} must be boolean (True is kept), got "
                f"dtype {dtype}. Compare it: `mask != 0`."
            )
        if shape not in (jnp.shape(leaf), ()):
            raise ValueError(
                f"`masks`: the mask of {name!r} must have the shape of its parameter, "
                f"{jnp.shape(leaf)}, or (), got {shape}. Broadcast it yourself if that "
                "is what you mean."
            )


def apply_masks(params: Params, masks: Masks) -> Params:
    """Sets to zero what is not kept; NaN and infinity are removed too.

    Args:
      params: a pytree of arrays.
      masks: see `Masks`.

    Raises:
      ValueError, TypeError: see `validate`.

    >>> import jax.numpy as jnp
    >>> params = {"w": jnp.array([1.0, jnp.nan])}
    >>> apply_masks(params, {"w": jnp.array([True, False])})["w"].tolist()
    [1.0, 0.0]
    """
    validate(params, masks)
    return keep(params, masks)


def nonzero_masks(params: Params) -> Masks:
    """Returns the masks of what is not exactly zero.

    >>> import jax.numpy as jnp
    >>> nonzero_masks({"w": jnp.array([0.0, -0.0, 1e-30])})["w"].tolist()
    [False, False, True]
    """
    return jax.tree.map(lambda leaf: leaf != 0, params)


def kept_counts(params: Params, masks: Masks) -> dict[str, int]:
    """Counts, on the host and exactly, the kept entries of every leaf."""
    validate(params, masks)
    leaves = jtree.named_leaves(params)
    counts = jax.device_get(
        [jnp.sum(m, dtype=jnp.int32) for m in jax.tree.leaves(masks)]
    )
    return {
        name: int(count) if jnp.shape(mask) else int(count) * math.prod(leaf.shape)
        for (name, leaf), mask, count in zip(
            leaves.items(), jax.tree.leaves(masks), counts, strict=True
        )
    }
