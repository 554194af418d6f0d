"""What the weights of products see: sums over the rows of their inputs.

A product sums over its contracted axes, and a weight multiplies one column of the
inputs. Everything else of the input, examples and positions, are rows. Of a convolution
a row is the patch that one output sees.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxprune.base._dtypes import at_least_float32
from jaxprune.base._sharding import replicated, replicated_sharding
from jaxprune.calibration._views import Axes

_EXACT = jax.lax.Precision.HIGHEST


class Inputs(NamedTuple):
    """Sums over the rows x_r that a stack of matrices (inputs, outputs) multiplies.

    The leading axes are those of scans over the leaf, then one of all batch axes and
    groups: one for each matrix.

    Attributes:
      abs_sum: sum_r |x_r|, shape (..., matrices, inputs), float32 or wider.
      square_sum: sum_r x_r^2, of the same shape.
      count: the number of rows, shape (..., matrices), float32.
      gram: sum_r x_r x_r^T, shape (..., matrices, inputs, inputs); None if not asked
        for.
    """

    abs_sum: jax.Array
    square_sum: jax.Array
    count: jax.Array
    gram: jax.Array | None


def of_product(
    x: jax.Array, batch: Sequence[int], contracted: Sequence[int], gram: bool
) -> Inputs:
    """Return the sums of the input of a `dot_general`.

    Args:
      x: the input.
      batch: its batch axes, in the order of those of the weights.
      contracted: its contracted axes, in the same order.
      gram: whether the Gram matrices are computed.
    """
    kept = (*batch, *contracted)
    rows = tuple(d for d in range(x.ndim) if d not in kept)
    number = math.prod(x.shape[d] for d in batch)
    size = math.prod(x.shape[d] for d in contracted)
    dtype = at_least_float32(x.dtype)
    left = sorted(kept)
    order = [left.index(d) for d in kept]

    def total(values):
        summed = replicated(jnp.sum(values, axis=rows, dtype=dtype))
        return jnp.transpose(summed, order).reshape(number, size)

    wide = x.astype(dtype)
    count = jnp.full((number,), math.prod(x.shape[d] for d in rows), jnp.float32)
    return Inputs(
        total(jnp.abs(wide)),
        total(jnp.square(wide)),
        count,
        _gram(x, tuple(batch), tuple(contracted), rows, dtype) if gram else None,
    )


def _gram(x, batch, contracted, rows, dtype) -> jax.Array:
    left = sorted(contracted)
    products = jax.lax.dot_general(
        x,
        x,
        ((rows, rows), (batch, batch)),
        precision=_EXACT,
        preferred_element_type=dtype,
        out_sharding=replicated_sharding(x, len(batch) + 2 * len(contracted)),
    )
    order = [len(batch) + left.index(d) for d in contracted]
    order = (*range(len(batch)), *order, *(len(left) + d for d in order))
    size = math.prod(x.shape[d] for d in contracted)
    return jnp.transpose(products, order).reshape(-1, size, size)


def of_ragged_product(x: jax.Array, sizes: jax.Array, gram: bool) -> Inputs:
    """Return the sums of the input of a ragged product, for each of its groups.

    Args:
      x: the rows, sorted by group, shape (rows, inputs).
      sizes: the number of rows of each group, shape (groups,).
      gram: whether the Gram matrices are computed.
    """
    dtype = at_least_float32(x.dtype)
    group = jnp.searchsorted(jnp.cumsum(sizes), jnp.arange(x.shape[0]), side="right")

    def total(values):
        return jax.ops.segment_sum(values, group, num_segments=sizes.shape[0])

    wide, products = x.astype(dtype), None
    if gram:
        dims = jax.lax.RaggedDotDimensionNumbers((((0,), (0,)), ((), ())), [0], [])
        products = jax.lax.ragged_dot_general(wide, wide, sizes, dims, precision=_EXACT)
    return Inputs(
        total(jnp.abs(wide)),
        total(jnp.square(wide)),
        sizes.astype(jnp.float32),
        products,
    )


def of_convolution(
    x: jax.Array, kernel: Sequence[int], out: Sequence[int], params: Any, gram: bool
) -> Inputs:
    """Return the sums over the patches of the input of a convolution.

    Squares are summed over the examples first. What a tap of the kernel sees of the
    sum is then a product with one matrix of zeros and ones for each spatial axis.

    Args:
      x: the input.
      kernel: the sizes of the kernel along the spatial axes.
      out: the sizes of the output along them.
      params: of the equation.
      gram: whether the Gram matrices are computed.
    """
    numbers, groups = params["dimension_numbers"], params["feature_group_count"]
    moved = jnp.transpose(x, numbers.lhs_spec)  # Examples, channels, space.
    dtype = at_least_float32(x.dtype)
    channels = moved.shape[1] // groups

    def total(values):
        summed = replicated(jnp.sum(values, axis=0, dtype=dtype))
        for d, size in enumerate(kernel):
            seen = _taps(params, d, size, moved.shape[2 + d], out[d]).astype(dtype)
            # The axes of space go round: that of the taps becomes the last.
            summed = jnp.tensordot(summed, seen, ((1,), (1,)), precision=_EXACT)
        summed = jnp.moveaxis(summed.reshape(groups, channels, -1), 1, 2)
        return summed.reshape(groups, -1)

    wide = moved.astype(dtype)
    rows = moved.shape[0] * math.prod(out)
    return Inputs(
        total(jnp.abs(wide)),
        total(jnp.square(wide)),
        jnp.full((groups,), rows, jnp.float32),
        _patch_gram(wide, kernel, params, groups) if gram else None,
    )


def _taps(params: Any, d: int, size: int, length: int, out: int) -> np.ndarray:
    """Return how often each tap meets each position, shape (taps, positions)."""
    stride, before = params["window_strides"][d], params["padding"][d][0]
    spread, holes = params["rhs_dilation"][d], params["lhs_dilation"][d]
    found = np.zeros((size, length))
    for tap in range(size):
        places = np.arange(out) * stride + tap * spread - before
        places, between = places // holes, places % holes
        inside = (between == 0) & (places >= 0) & (places < length)
        np.add.at(found[tap], places[inside], 1)
    return found


def _patch_gram(x: jax.Array, kernel, params: Any, groups: int) -> jax.Array | None:
    patches = jax.lax.conv_general_dilated_patches(
        x,
        tuple(kernel),
        params["window_strides"],
        params["padding"],
        params["lhs_dilation"],
        params["rhs_dilation"],
        precision=_EXACT,
    )
    size, channels = math.prod(kernel), x.shape[1] // groups
    split = patches.reshape(x.shape[0], groups, channels, size, -1)
    split = jnp.swapaxes(split, 2, 3).reshape(x.shape[0], groups, -1, split.shape[-1])
    return of_product(split, (1,), (2,), True).gram


def contracted_axes(
    contracted: Sequence[int], batch: Sequence[int], rank: int
) -> tuple[Axes, list[int], list[int]]:
    """Return the axes of a weight in a `dot_general`, batch and contracted ones sorted.

    Args:
      contracted: its contracted axes.
      batch: its batch axes.
      rank: the number of its axes.

    Returns:
      The axes, and the orders in which those of the other operand match: of the batch
      axes, and of the contracted ones.
    """
    of_batch = sorted(range(len(batch)), key=lambda i: batch[i])
    of_contracted = sorted(range(len(contracted)), key=lambda i: contracted[i])
    free = [d for d in range(rank) if d not in {*contracted, *batch}]
    axes = Axes(tuple(sorted(batch)), tuple(sorted(contracted)), tuple(free))
    return axes, of_batch, of_contracted


def added(a: Inputs, b: Inputs) -> Inputs:
    """Return the sums over the rows of both."""
    return jax.tree.map(jnp.add, a, b)
