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
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxprune.channels._primitives.elementwise import ELEMENTWISE, PRODUCTS, words

VIEWS = words("reshape broadcast_in_dim squeeze copy copy_p")
SUMS = words("dot_general conv_general_dilated")
_MOVES = VIEWS | words("transpose rev slice split stack unstack concatenate pad")
_REDUCTIONS = words("reduce_sum reduce_max reduce_min reduce_prod")
_WINDOWS = words("reduce_window_max reduce_window_min reduce_window_sum")


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


def fixed(value: Any) -> Known:
    """An array that does not depend on the inputs."""
    return Known(value, jnp.zeros(np.shape(value), bool))


def bind(equation: Any, arrays: Sequence[Any], **changes: Any) -> list:
    """Applies the primitive of an equation; returns all results."""
    primitive = equation.primitive
    params = primitive.get_bind_params({**equation.params, **changes})
    outs = primitive.bind(*arrays, **params)
    return outs if primitive.multiple_results else [outs]


def varies_of(equation: Any, operands: Sequence[Known], values: Sequence[Any]) -> list:
    """Returns which entries of the results of an equation depend on the inputs."""
    name, shape = equation.primitive.name, np.shape(values[0])
    varies = [k.varies for k in operands]
    if name in PRODUCTS:
        (x, y), (a, b) = (k.value for k in operands), varies
        return [jnp.broadcast_to((a & (b | (y != 0))) | (b & (a | (x != 0))), shape)]
    if name in ELEMENTWISE:
        return [functools.reduce(jnp.logical_or, varies, jnp.zeros(shape, bool))]
    if name == "optimization_barrier":
        return varies
    if name in _MOVES:
        return bind(equation, varies)
    if name in _REDUCTIONS:
        return [varies[0].any(axis=equation.params["axes"])]
    if name in _WINDOWS:
        return [_under_window(equation.params, varies[0])]
    if name in SUMS:
        x, w = operands
        reached = False
        for a, b in (
            (x.varies, w.varies | (w.value != 0)),
            (x.varies | (x.value != 0), w.varies),
        ):
            numbers = [a.astype(jnp.float32), b.astype(jnp.float32)]
            (count,) = bind(equation, numbers, preferred_element_type=np.float32)
            reached |= count > 0
        return [reached]
    some = functools.reduce(jnp.logical_or, [one.any() for one in varies], False)
    return [jnp.broadcast_to(some, np.shape(value)) for value in values]


def _under_window(params, varies):
    """Whether anything varies under a sliding window."""
    most = jax.lax.reduce_window(
        varies.astype(jnp.float32),
        -jnp.inf,
        jax.lax.max,
        params["window_dimensions"],
        params["window_strides"],
        params["padding"],
        params["base_dilation"],
        params["window_dilation"],
    )
    return most > 0
