"""Cutting trees that belong to traced parameters: statistics, optimizer states.

Leaves may be abstract (`jax.ShapeDtypeStruct`): what is cut is then their shape.
"""

from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jaxprune import tree as jtree
from jaxprune.base._sharding import fitting
from jaxprune.channels._flow.evaluate import Kept, take


def shrink(
    graph: Any, kept: Mapping[str, Kept], tree: Any, gone: Collection[str] = ()
) -> Any:
    """Return a tree whose leaves have lost the removed channels.

    A leaf belongs to the leaf of the graph whose name its key path ends with; the first
    key of a name in the graph (`params/`, `batch_stats/`) may be missing.

    Args:
      graph: the graph.
      kept: for every leaf of the graph, for every axis, indices or None.
      tree: parameters, a part of them, an optimizer state, anything shaped alike.
      gone: names of leaves that are None in the result.

    Raises:
      ValueError: if a leaf with axes belongs to no leaf, or has another shape.
    """
    short, shrinking = _short_names(graph), _shrinking_sizes(graph, kept)

    def kept_of(path, leaf) -> Kept | None:
        if not hasattr(leaf, "shape") or leaf.size <= 1:
            return None
        name = _owner(graph, short, path)
        if name is None:
            # Of no size that an axis had that lost channels: a constant, as muon's.
            constant = not shrinking.intersection(leaf.shape)
            if constant or not jnp.issubdtype(leaf.dtype, jnp.inexact):
                return None
            raise ValueError(_no_owner(graph, path, leaf))
        full = graph.leaves[name].shape
        if tuple(leaf.shape) == full:
            loses = any(left is not None for left in kept[name])
            return kept[name] if loses else None
        if full[: leaf.ndim] == leaf.shape and _layers_only(graph, name, leaf.ndim):
            return None
        raise ValueError(_other_shape(path, leaf, name, full))

    def is_gone(path, leaf) -> bool:
        name = _owner(graph, short, path) if gone else None
        return name in gone and np.shape(leaf) == graph.leaves[name].shape

    paths, structure = jax.tree_util.tree_flatten_with_path(tree)
    lost = [is_gone(path, leaf) for path, leaf in paths]
    cut = _cut(
        [
            (leaf, None if out else kept_of(path, leaf))
            for (path, leaf), out in zip(paths, lost, strict=True)
        ]
    )
    left = [None if out else leaf for leaf, out in zip(cut, lost, strict=True)]
    return jax.tree.unflatten(structure, left)


def _cut(leaves: list[tuple[Any, Kept | None]]) -> list[Any]:
    """Return the sub-arrays of the indices kept; leaves with None as they are."""
    found = [leaf for leaf, _ in leaves]
    # Arrays that lie on the same devices are cut by one program: operations of their
    # own would be compiled for every shape.
    together: dict[Any, list[int]] = {}
    for i, (leaf, kept) in enumerate(leaves):
        if kept is None:
            continue
        if isinstance(leaf, jax.ShapeDtypeStruct):
            found[i] = _cut_shape(leaf, kept)
        elif isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer):
            together.setdefault(frozenset(leaf.devices()), []).append(i)
        else:
            found[i] = take(leaf, kept)
    for places in together.values():
        indices = [leaves[i][1] for i in places]
        cut = jax.jit(lambda arrays, indices=indices: list(map(take, arrays, indices)))
        for i, array in zip(places, cut([found[i] for i in places]), strict=True):
            found[i] = array
    return found


def _cut_shape(leaf: jax.ShapeDtypeStruct, kept: Kept) -> jax.ShapeDtypeStruct:
    shape = tuple(
        size if left is None else len(left)
        for size, left in zip(leaf.shape, kept, strict=True)
    )
    return jax.ShapeDtypeStruct(
        shape,
        leaf.dtype,
        weak_type=leaf.weak_type,
        sharding=fitting(leaf.sharding, shape),
    )


def _shrinking_sizes(graph, kept: Mapping[str, Kept]) -> set[int]:
    """Return the sizes of the axes that lose channels."""
    return {
        graph.leaves[name].shape[axis]
        for name, axes in kept.items()
        for axis, left in enumerate(axes)
        if left is not None
    }


def _short_names(graph) -> dict[str, str]:
    """Full names by names without the first key, where that is unambiguous."""
    short: dict[str, list[str]] = {}
    for name in graph.leaves:
        _, slash, rest = name.partition("/")
        if slash:
            short.setdefault(rest, []).append(name)
    return {rest: names[0] for rest, names in short.items() if len(names) == 1}


def _owner(graph, short, path) -> str | None:
    for start in range(len(path)):
        name = jtree.name_of(path[start:])
        if name in graph.leaves:
            return name
        if name in short:
            return short[name]
    return None


def _layers_only(graph, name, ndim) -> bool:
    """Whether the first axes, those of stacked layers, can never shrink."""
    size = dict(enumerate(graph.leaves[name].shape[:ndim]))
    pinned = dict.fromkeys(size, 0)
    for pin in graph.pinned:
        if pin.leaf == name and pin.axis in size:
            pinned[pin.axis] += len(pin.indices)
    return all(pinned[d] == size[d] or size[d] == 1 for d in size)


def _no_owner(graph, path, leaf) -> str:
    return (
        f"`graph.compact(tree)`: leaf {jtree.name_of(path)!r} of shape {leaf.shape} "
        "belongs to no traced leaf, so its channels are unknown. Trace the function "
        "with this tree among its parameters, or leave it out. Traced leaves: "
        f"{list(graph.leaves)}."
    )


def _other_shape(path, leaf, name, full) -> str:
    return (
        f"`graph.compact(tree)`: leaf {jtree.name_of(path)!r} has shape {leaf.shape}, "
        f"but leaf {name!r} has shape {full}. A statistic that is factored over axes, "
        "as adafactor's, cannot lose channels exactly: start that optimizer anew on "
        "the compact parameters."
    )
