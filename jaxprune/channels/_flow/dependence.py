"""Which entries of an array depend on the inputs of a program.

Every array gets a companion of booleans, *varies*. Zeros stop it: an entry that reads
an input with weight zero does not depend on it.

    varies(f(x, y))[i] = varies(x)[i] or varies(y)[i]                     elementwise
    varies(x y)[i]     = varies(x)[i] and y[i] != 0, or the other way     products
    varies(x W)[o]     = any over i of varies(x)[i] and W[i, o] != 0      sums of these

Where there is no rule, what depends on the inputs in part does so as a whole. Entries
that do not vary have the value that any input gives them.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxprune.channels._flow.flow import Site


class Tag(NamedTuple):
    """The leaf that an array is, entry for entry.

    Attributes:
      leaf: the number of the leaf.
      axis: of a vector the axis along which it lies, whatever the shape it is viewed
        in; of any other leaf None, and the array has its shape.
    """

    leaf: int
    axis: int | None


class Known(NamedTuple):
    """What is known of an array: its value, which entries vary, the leaf that it is."""

    value: Any
    varies: Any
    tag: Tag | None = None


Varies = Callable[[Site, Sequence[Known], Sequence[Any]], Sequence[Any]]


def fixed(value: Any) -> Known:
    """Return what is known of an array that does not depend on the inputs."""
    return Known(value, jnp.zeros(np.shape(value), bool))


def values_of(site: Site, operands: Sequence[Known]) -> list:
    """Apply the primitive of an equation to the values."""
    return site.bind(*(known.value for known in operands))


def rule(varies: Varies) -> Callable[..., list[Known]]:
    """Make the rule of a primitive from `(site, operands, values) -> varies`."""

    @functools.wraps(varies)
    def known_of(walk, site: Site, operands: Sequence[Known]) -> list[Known]:
        walk.use(*operands)
        values = values_of(site, operands)
        pairs = zip(values, varies(site, operands, values), strict=True)
        return [Known(value, which) for value, which in pairs]

    return known_of


@rule
def as_a_whole(site: Site, operands, values):
    """All entries vary if one entry of an operand does."""
    some = functools.reduce(jnp.logical_or, [k.varies.any() for k in operands], False)
    return [jnp.broadcast_to(some, np.shape(value)) for value in values]


@rule
def moved(site: Site, operands, values):
    """Entries vary as before, where they now are."""
    return site.bind(*(known.varies for known in operands))


def view(walk, site: Site, operands: Sequence[Known]) -> list[Known]:
    """Entries vary as before, and an array that is a leaf may still be one."""
    (value,) = values_of(site, operands)
    (varies,) = site.bind(*(known.varies for known in operands))
    return [Known(value, varies, _tag(site, operands[0].tag))]


def _tag(site: Site, tag: Tag | None) -> Tag | None:
    """Return the tag of a view: follow the axis of a vector; other shapes must stay."""
    before, after = site.shape(), site.result_shape()
    if tag is None or tag.axis is None:
        return tag if before == after else None
    if "broadcast_dimensions" in site.params:
        return Tag(tag.leaf, site.params["broadcast_dimensions"][tag.axis])
    long = [d for d, size in enumerate(after) if size > 1]
    return Tag(tag.leaf, long[0]) if len(long) == 1 else None
