"""Which outputs of a function are updated leaves, and so shrink with them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.tree_util import SequenceKey

from jaxprune import tree
from jaxprune.channels._flow.flow import Flow, Value
from jaxprune.channels._flow.reasons import Reason, Why


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
    """Returns the outputs with their key paths; `out` holds abstract arrays."""
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
    for output in found:
        name = replaced(output, leaves, updated)
        for d, axis in enumerate(output.value.axes):
            if name is None:
                flow.atoms.pin(axis, pin)
                continue
            own = args[numbers[name]].axes[d]
            flow.atoms.unify(own, axis, f"the updated leaf {name}")


def replaced(
    output: Output,
    leaves: Mapping[str, Any],
    updated: Mapping[str, str] | None,
) -> str | None:
    """Return the name of the leaf of which an output is the updated value.

    Args:
      output: the output.
      leaves: the leaves by name.
      updated: from names of outputs, or of folders of outputs, to those of leaves:
        `{"1": "state"}` says that the second output holds the leaves below `state`.
        None stands for what Flax returns, `logits, {"batch_stats": ...}`: an item of
        a tuple that holds collections of leaves under the names that they have among
        the parameters.
    """
    if updated is None:
        name = _name_of_item(output.path)
    else:
        name = _declared(tree.name_of(output.path), updated)
    if name not in leaves or leaves[name].shape != output.shape:
        return None
    return name


def _name_of_item(path) -> str | None:
    """The name below an item of a tuple, if it has a collection in front."""
    item, *rest = path or (None,)
    if not isinstance(item, SequenceKey) or len(rest) < 2:
        return None
    return tree.name_of(tuple(rest))


def _declared(name: str, updated: Mapping[str, str]) -> str | None:
    for output, leaf in updated.items():
        if name == output or name.startswith(f"{output}/"):
            return leaf + name[len(output) :]
    return None
