"""Routers: channels among which `top_k` chooses, and what is then done with the choice.

An expert goes with its logit: the network without it is the one in which its logit is
minus infinity. So whatever reads along the axis of experts reads only those that stay:
`top_k` chooses among them, a maximum is taken of them, a sum is over them; hence also
the softmax, before or after. No form of router has to be recognised.

What `top_k` returns are *numbers* of experts. They are those of the dense network in a
small network too: `one_hot` compares them with what is left of a range, and a look-up
in stacked weights finds their rows among those that are left. Numbers are followed from
`top_k` to there, and tell which axis of the weights is that of the router.

An axis that is chosen from holds experts if weights are stacked along it, which
products treat apart or read, or which are looked up. Of any other axis a choice reads
all, so it stays.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.extend import core as jex

from jaxprune.channels._flow import equations
from jaxprune.channels._flow.atoms import Atoms, Axis
from jaxprune.channels._flow.reasons import Reason, Why

CHOICES = ("top_k", "argmax")
"""Primitives that return the numbers of what they choose."""

_VIEWS = frozenset(
    {"broadcast_in_dim", "reshape", "transpose", "squeeze", "slice", "expand_dims"}
    | {"dynamic_slice", "rev", *equations.SAME}
)
"""Primitives whose entries are those of their first operand."""

_REMEDY = (
    "chooses among all of it. If these are experts, stack their weights along one "
    "axis, and use the numbers of those chosen in `jax.nn.one_hot` or to look up in "
    "them, `weights[numbers]`"
)


@dataclasses.dataclass(eq=False)
class Route:
    """A choice among the channels of an axis.

    Attributes:
      axis: the axis that is chosen from.
      count: how many are chosen.
      where: the place in the program.
    """

    axis: np.ndarray
    count: int
    where: str


class Numbers(NamedTuple):
    """What an array of numbers of channels says.

    Attributes:
      axis: the axis of the channels.
      names: the number that each channel has, int, shape (axis size,): its position, or
        what a constant table says there, as in a network that has lost some already.
    """

    axis: np.ndarray
    names: np.ndarray


def sizes(jaxpr: Any) -> frozenset[int]:
    """Return the lengths of the axes that are chosen from, in called jaxprs too."""
    found: set[int] = set()
    for equation in jaxpr.eqns:
        if equation.primitive.name in CHOICES:
            found.add(equation.invars[0].aval.shape[chosen_axis(equation)])
        for inner in jex.jaxprs_in_params(equation.params):
            found |= sizes(equations.called(inner).jaxpr)
    return frozenset(size for size in found if isinstance(size, int))


def chosen_axis(equation: Any) -> int:
    """Return the axis that an equation chooses from."""
    params, rank = equation.params, len(equation.invars[0].aval.shape)
    axis = params["axes"][0] if "axes" in params else params.get("axis", -1)
    return axis % rank


def followed(equation: Any, values: Sequence[Any], outs: Sequence[Any]) -> list[Any]:
    """Return results that still are the numbers of what was chosen.

    A number is never negative, so that where negative ones would be counted from the
    end it stays as it is.
    """
    name, outs = equation.primitive.name, list(outs)
    if name in _VIEWS:
        first = values[0]
        if first.route is not None or first.never:
            outs[0] = outs[0]._replace(route=first.route, never=first.never)
    elif name == "lt" and values[0].route is not None:
        bound = equation.invars[1]
        zero = isinstance(bound, jex.Literal) and bool(np.all(bound.val == 0))
        zero &= bool((values[0].route.names >= 0).all())
        outs[0] = outs[0]._replace(never=zero)
    elif name == "select_n" and values[0].never:
        outs[0] = outs[0]._replace(route=values[1].route)
    return outs


def looked_up(numbers: Numbers, constant: Any) -> Numbers | None:
    """Return the numbers that a constant table has at numbers, None if it is none."""
    array = None if constant is None else constant.value()
    if array is None or np.ndim(array) != 1:
        return None
    table, names = np.asarray(array), numbers.names
    inside = names.min() >= 0 and names.max() < len(table)
    if not inside or not np.issubdtype(table.dtype, np.integer):
        return None
    return numbers._replace(names=table[names])


def are_positions(numbers: Numbers, size: int) -> bool:
    """Whether channels are called by their positions on an axis of some size."""
    return np.array_equal(numbers.names, np.arange(size))


def lists(constant: Any, d: int, numbers: Numbers) -> bool:
    """Whether a constant holds along axis d what the channels are called."""
    array = None if constant is None else constant.value()
    if array is None or np.ndim(array) == 0:
        return False
    array = np.moveaxis(np.asarray(array), d, -1)
    same = array.shape[-1] == len(numbers.names)
    return same and bool((array == numbers.names).all())


def settle(
    atoms: Atoms,
    routes: Sequence[Route],
    stacked: Iterable[Axis],
    readers: Iterable[tuple[Axis, Why]],
) -> None:
    """Pins what readers read whole, unless experts lie there.

    Args:
      atoms: the identities of channels.
      routes: the choices.
      stacked: axes of leaves that products treat apart, or that are looked up along.
      readers: axes that something reads whole, with the reason.
    """
    experts = np.zeros(atoms.count, bool)
    for axis in stacked:
        _mark(atoms, experts, axis)
    chosen = np.zeros(atoms.count, bool)
    for route in routes:
        _mark(atoms, chosen, route.axis)
    experts &= chosen
    experts[0] = True  # What stays anyway.
    unknown = [
        (route.axis, Why(Reason.READ_WHOLE, f"{route.where} {_REMEDY}"))
        for route in routes
    ]
    for axis, why in (*unknown, *readers):
        if isinstance(axis, np.ndarray):
            rows = atoms.resolve(axis)
            if rows.shape[1] > 1 or not experts[rows].all():
                atoms.pin(axis, why)


def _mark(atoms: Atoms, marks: np.ndarray, axis: Axis) -> None:
    if isinstance(axis, np.ndarray):
        marks[atoms.resolve(axis)] = True


def fewest(atoms: Atoms, routes: Sequence[Route], channels: np.ndarray) -> int:
    """Return how many channels of a group must stay, so that enough can be chosen.

    Args:
      atoms: the identities of channels.
      routes: the choices.
      channels: the atoms of the group.
    """
    needed = 1
    for route in routes:
        rows = atoms.resolve(route.axis)
        here = np.isin(rows, channels).any(axis=1)
        if here.any():
            rest = route.count - int((rows == 0).all(axis=1).sum())
            each = int(here.sum()) // len(channels)  # Groups of experts hold several.
            needed = max(needed, -(-rest // each))
    return min(needed, len(channels))
