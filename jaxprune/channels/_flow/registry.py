"""One record for each primitive: all of its rules, side by side."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class Primitive(NamedTuple):
    """The rules of one primitive.

    Attributes:
      flow: `(flow, site, *values) -> values`, which channels of the results are which
        channels of the operands.
      small: `(evaluation, site, *arrays) -> arrays`, how an equation runs with fewer
        channels; None if it runs as it is.
      masked: the same for full shapes, where nobody reads removed channels; None if
        the equation runs as it is.
      varies: `(walk, site, operands) -> results`, which entries of the results depend
        on inputs; None if one entry that does makes all do.
      moves: whether the primitive only moves entries, so that it uses none by itself.
    """

    flow: Callable[..., Sequence[Any]]
    small: Callable[..., Sequence[Any]] | None = None
    masked: Callable[..., Sequence[Any]] | None = None
    varies: Callable[..., Sequence[Any]] | None = None
    moves: bool = False


PRIMITIVES: dict[str, Primitive] = {}
"""The rules by the name of the primitive; one that is missing pins what it touches."""


def register(names: str, primitive: Primitive) -> None:
    """Enters the rules of primitives, whose names are separated by blanks."""
    for name in names.split():
        if name in PRIMITIVES:
            raise ValueError(
                f"`register({name!r})`: the primitive must have no rule yet. Register "
                "it once."
            )
        PRIMITIVES[name] = primitive
