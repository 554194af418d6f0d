"""Which outputs of a function are updated leaves, and so shrink with them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.tree_util import SequenceKey

from jaxprune import tree
from jaxprune.channels._flow.flow import Flow, Value
from jaxprune.channels._flow.reasons import Reason, Why
from jaxprune.tree._names import near


class Output(NamedTuple):
    """One output of a function.

    Attributes:
      path: its key path.
      shape: its shape.
      value: what is known of it, or its variable.
    """

    path: tuple[Any, ...]
    shape: tuple[int, ...]
    value: Any


def outputs(out: Any, values: Sequence[Any]) -> list[Output]:
    """Return the outputs with their key paths; `out` holds abstract arrays."""
    leaves = jax.tree_util.tree_leaves_with_path(out)
    pairs = zip(leaves, values, strict=True)
    return [Output(path, aval.shape, value) for (path, aval), value in pairs]


def settle_outputs(
    flow: Flow,
    leaves: Mapping[str, Any],
    args: Sequence[Value],
    found: Sequence[Output],
    updated: Mapping[str, str] | None,
) -> None:
    """Pins outputs, but joins updated leaves with the leaves that they replace."""
    numbers = {name: i for i, name in enumerate(leaves)}
    pin = Why(Reason.OUTPUT, "it is an output of the function")
    for output, name in zip(found, replaced(found, leaves, updated), strict=True):
        for d, axis in enumerate(output.value.axes):
            if name is None:
                flow.atoms.pin(axis, pin)
                continue
            own = args[numbers[name]].axes[d]
            flow.atoms.unify(own, axis, f"the updated leaf {name}")


def replaced(
    found: Sequence[Output],
    leaves: Mapping[str, Any],
    updated: Mapping[str, str] | None,
) -> list[str | None]:
    """Return for every output the name of the leaf of which it is the updated value.

    Args:
      found: the outputs.
      leaves: the leaves by name.
      updated: from names of outputs, or of folders of outputs, to those of leaves:
        `{"1": "state"}` says that the second output holds the leaves below `state`.
        None stands for what Flax returns, `logits, {"batch_stats": ...}`: an item of
        a tuple, or a collection in it, of which every array has the name and the shape
        of a leaf.
    """
    if updated is not None and not isinstance(updated, Mapping):
        raise TypeError(
            f"`trace_channels(updated={updated!r})`: must be a dictionary from names "
            "of outputs to those of leaves, or None. Pass e.g. `{'1': 'batch_stats'}`."
        )
    if updated is None:
        names = [_below_item(output.path) for output in found]
    else:
        for output, leaf in updated.items():
            if not any(n == leaf or n.startswith(f"{leaf}/") for n in leaves):
                raise ValueError(
                    f"`trace_channels(updated={{{output!r}: {leaf!r}}})`: must name a "
                    "leaf, or a folder of leaves. " + near(leaf, leaves)
                )
        names = [_declared(tree.name_of(output.path), updated) for output in found]
    shapes = {(name, leaf.shape) for name, leaf in leaves.items()}
    names = [
        name if (name, output.shape) in shapes else None
        for output, name in zip(found, names, strict=True)
    ]
    return _complete(found, names) if updated is None else names


def _below_item(path) -> str | None:
    """Return the name below an item of a tuple."""
    if len(path) < 2 or not isinstance(path[0], SequenceKey):
        return None
    return tree.name_of(path[1:])


def _complete(found: Sequence[Output], names: list[str | None]) -> list[str | None]:
    """Keep the names of items and collections in which every array has one."""
    folders = [
        [tree.name_of(output.path[:depth]) for depth in (1, 2) if output.path[depth:]]
        for output in found
    ]
    partial = {
        folder
        for inside, name in zip(folders, names, strict=True)
        for folder in inside
        if name is None
    }
    return [
        name if set(inside) - partial else None
        for inside, name in zip(folders, names, strict=True)
    ]


def _declared(name: str, updated: Mapping[str, str]) -> str | None:
    for output, leaf in updated.items():
        if name == output or name.startswith(f"{output}/"):
            return leaf + name[len(output) :]
    return None
