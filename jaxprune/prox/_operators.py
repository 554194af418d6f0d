"""Proximal operators: the exact minimisers behind every pruning step.

The proximal operator of a penalty g with scaling s takes x to

    prox_{s g}(x) = argmin_y |y - x|^2 / 2 + s g(y)

All operators have one signature, `operator(params, scaling=1.0, **configuration)`;
`Prox` names it. Bind the configuration with `functools.partial` and hand the result to
`jaxprune.transforms.proximal` or `jaxprune.transforms.latent_proximal`, which supply
the scaling of every step:

>>> import functools
>>> channels = functools.partial(group_soft_threshold, group_axes=-1)

=========  ===============================================================
`params`   x: an array or a pytree of floating-point arrays
`scaling`  s >= 0: a scalar, or a pytree that is a prefix of `params` and
           whose arrays broadcast to their leaves (one number per weight:
           the prox in the diagonal metric 1/s)
result     as `params`: same structure, shapes and dtypes
=========  ===============================================================

Computed in float32 (float64 stays float64) and cast back. A NaN stays a NaN: a
broken weight is not pruned out of sight. Derivatives are finite at the corners.

References:
  Parikh and Boyd, Proximal Algorithms,
  https://web.stanford.edu/~boyd/papers/prox_algs.html, 2014, chapters 1 and 6.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from jaxprune.base._checks import check_non_negative
from jaxprune.prox._leaves import map_leaves


class Prox(Protocol):
    """The signature of a proximal operator: `(params, scaling) -> params`."""

    def __call__(self, params: Any, scaling: Any = 1.0, /) -> Any:
        """Return the minimiser of `|y - params|^2 / 2 + scaling * g(y)`."""
        ...


def soft_threshold(params: Any, scaling: Any = 1.0) -> Any:
    """Minimise `|y - x|^2 / 2 + s |y|_1` over y.

        y_i = sign(x_i) max(|x_i| - s_i, 0)

    Args:
      params: x, an array or a pytree of floating-point arrays of any shape.
      scaling: s >= 0, the threshold; unit: weight. A scalar, or a prefix of `params`
        whose arrays broadcast to their leaves.

    Returns:
      y, as `params`. Entries with `|x| <= s` are exactly zero.

    Raises:
      ValueError: `scaling` is negative, not a prefix, or does not broadcast.
      TypeError: a leaf is not a floating-point array.

    Examples:
      >>> import jax.numpy as jnp
      >>> soft_threshold(jnp.array([-2.0, 0.5, 3.0]), 1.0).tolist()
      [-1.0, 0.0, 2.0]

    References:
      Parikh and Boyd, 2014, section 6.5.
    """

    def rule(x, s, _):
        # x - clip(x) is exactly 0 inside the band and has no sign(0) to derive.
        return x - jnp.clip(x, -s, s)

    return map_leaves("soft_threshold", rule, params, scaling)


def elastic_net(params: Any, scaling: Any = 1.0, *, l1: Any = 1.0, l2: Any) -> Any:
    """Minimise `|y - x|^2 / 2 + s (l1 |y|_1 + l2 |y|^2 / 2)`.

        y_i = sign(x_i) max(|x_i| - s_i l1, 0) / (1 + s_i l2)

    Args:
      params: x, an array or a pytree of floating-point arrays of any shape.
      scaling: s >= 0. A scalar, or a prefix of `params` whose arrays broadcast.
      l1: coefficient of the absolute values, >= 0; unit: that of `params / scaling`.
      l2: coefficient of the squares, >= 0; unit: that of `1 / scaling`.

    Returns:
      y, as `params`.

    Raises:
      ValueError: a coefficient or `scaling` is negative, or does not broadcast.
      TypeError: a leaf is not a floating-point array.

    Examples:
      >>> import jax.numpy as jnp
      >>> elastic_net(jnp.array([-3.0, 0.5, 5.0]), 1.0, l1=1.0, l2=1.0).tolist()
      [-1.0, 0.0, 2.0]

    References:
      Parikh and Boyd, 2014, section 6.5.
    """
    check_non_negative("elastic_net", "l1", l1)
    check_non_negative("elastic_net", "l2", l2)

    def rule(x, s, _):
        threshold = s * l1
        return (x - jnp.clip(x, -threshold, threshold)) / (1 + s * l2)

    return map_leaves("elastic_net", rule, params, scaling)


def group_soft_threshold(
    params: Any, scaling: Any = 1.0, *, group_axes: int | Sequence[int]
) -> Any:
    """Minimise `|y - x|^2 / 2 + s sum_g |y_g|` over y.

        y_g = max(1 - s_g / |x_g|, 0) x_g

    The groups of a leaf are its slices at one index of `group_axes`, so a single value
    serves kernels of different rank. With JAX's layouts (dense `(in, out)`, convolution
    `HWIO`, attention `(model, heads, width)`):

    ======================  =============
    groups                  `group_axes`
    ======================  =============
    output channels         `-1`
    input channels          `-2`
    filters (one per pair)  `(-2, -1)`
    attention heads         `-2` (or `1`)
    the whole leaf          `()`
    ======================  =============

    Args:
      params: x, an array or a pytree of floating-point arrays.
      scaling: s >= 0; unit: weight. A scalar, or a prefix of `params` whose arrays
        broadcast to their leaves and are constant inside a group (size 1 on every axis
        that is not a group axis): the minimiser has no closed form otherwise. The
        classical weight, the square root of the group's size, goes in here.
      group_axes: the axes, negative ones counted from the end, that number the
        groups. The norm is taken over all the others.

    Returns:
      y, as `params`. Groups with `|x_g| <= s_g` are exactly zero.

    Raises:
      ValueError: an axis does not exist in a leaf or is named twice; `scaling` is
        negative, does not broadcast or varies inside a group.
      TypeError: a leaf is not a floating-point array.

    Examples:
      >>> import jax.numpy as jnp
      >>> kernel = jnp.array([[3.0, 0.3], [4.0, 0.4]])
      >>> group_soft_threshold(kernel, 2.5, group_axes=-1).tolist()
      [[1.5, 0.0], [2.0, 0.0]]

    References:
      Parikh and Boyd, 2014, section 6.5. Yuan and Lin, 2006 (group lasso).
    """
    axes = (group_axes,) if isinstance(group_axes, int) else tuple(group_axes)

    def rule(x, s, name):
        kept = _existing_axes(axes, x.shape, name)
        summed = tuple(axis for axis in range(x.ndim) if axis not in kept)
        s = s.reshape((1,) * (x.ndim - s.ndim) + s.shape)
        if any(s.shape[axis] != 1 for axis in summed):
            raise ValueError(
                "`group_soft_threshold(params, scaling)`: one scaling is needed for"
                f" each group, that of leaf {name!r} of shape {x.shape} with"
                f" group_axes={axes} has shape {s.shape}. Give it size 1 on the axes"
                f" {summed}."
            )
        # In units of the largest entry the squares neither overflow nor vanish. What
        # is infinite has no such unit, and stays infinite.
        largest = jnp.max(jnp.abs(x), axis=summed, keepdims=True, initial=0)
        scalable = (largest > 0) & (largest < jnp.inf)
        unit = jax.lax.stop_gradient(jnp.where(scalable, largest, 1))
        squares = jnp.sum(jnp.square(x / unit), axis=summed, keepdims=True)
        empty = squares == 0
        safe_norm = unit * jnp.sqrt(jnp.where(empty, 1, squares))
        norm = jnp.where(empty, 0, safe_norm)
        # `norm < s`, not `norm >= s`: a NaN must not be selected away.
        return jnp.where(norm < s, 0, (1 - s / jnp.maximum(safe_norm, s)) * x)

    return map_leaves("group_soft_threshold", rule, params, scaling)


def non_negative_soft_threshold(params: Any, scaling: Any = 1.0) -> Any:
    """Minimise `|y - x|^2 / 2 + s sum_i(y_i)` over `y >= 0`.

        y_i = max(x_i - s_i, 0)

    Args:
      params: x, an array or a pytree of floating-point arrays of any shape.
      scaling: s >= 0, the threshold; unit: weight. A scalar, or a prefix of `params`
        whose arrays broadcast to their leaves.

    Returns:
      y >= 0, as `params`. Suits scales and gates, which have a sign by design.

    Raises:
      ValueError: `scaling` is negative, not a prefix, or does not broadcast.
      TypeError: a leaf is not a floating-point array.

    Examples:
      >>> import jax.numpy as jnp
      >>> non_negative_soft_threshold(jnp.array([-2.0, 0.5, 3.0]), 1.0).tolist()
      [0.0, 0.0, 2.0]

    References:
      Parikh and Boyd, 2014, section 6.5.2.
    """
    return map_leaves(
        "non_negative_soft_threshold",
        lambda x, s, _: jnp.maximum(x - s, 0),
        params,
        scaling,
    )


def hard_threshold(params: Any, scaling: Any = 1.0) -> Any:
    """Minimise `|y - x|^2 / 2 + s |y|_0` over y.

        y_i = x_i if |x_i| > sqrt(2 s_i) else 0

    Not convex: at `|x_i| = sqrt(2 s_i)` both 0 and x are minimisers, and 0 is taken;
    the operator jumps there, so it is not non-expansive.

    Args:
      params: x, an array or a pytree of floating-point arrays of any shape.
      scaling: s >= 0, the penalty of one nonzero weight; unit: squared weight. A
        scalar, or a prefix of `params` whose arrays broadcast to their leaves.

    Returns:
      y, as `params`. The derivative is 1 where kept, 0 elsewhere; 0 in `scaling`.

    Raises:
      ValueError: `scaling` is negative, not a prefix, or does not broadcast.
      TypeError: a leaf is not a floating-point array.

    Examples:
      >>> import jax.numpy as jnp
      >>> hard_threshold(jnp.array([-2.0, 1.0, 3.0]), 0.5).tolist()
      [-2.0, 0.0, 3.0]

    References:
      Blumensath and Davies, Iterative Thresholding for Sparse Approximations, 2008.
    """

    def rule(x, s, _):
        return jnp.where(jnp.abs(x) <= jnp.sqrt(2 * jax.lax.stop_gradient(s)), 0, x)

    return map_leaves("hard_threshold", rule, params, scaling)


def box(params: Any, scaling: Any = 1.0, *, lower: Any, upper: Any) -> Any:
    """Minimise `|y - x|^2 / 2` over `l <= y <= u`.

        y_i = min(max(x_i, l), u)

    Args:
      params: x, an array or a pytree of floating-point arrays of any shape.
      scaling: without effect (a constraint has no strength).
      lower: l, a scalar; unit: weight.
      upper: u >= l, a scalar; unit: weight.

    Returns:
      y, as `params`.

    Raises:
      ValueError: `lower > upper`.
      TypeError: a leaf is not a floating-point array.

    Examples:
      >>> import jax.numpy as jnp
      >>> box(jnp.array([-2.0, 0.5, 3.0]), lower=-1.0, upper=1.0).tolist()
      [-1.0, 0.5, 1.0]
    """
    static = not (isinstance(lower, jax.Array) or isinstance(upper, jax.Array))
    if static and not lower <= upper:
        raise ValueError(
            f"`box(lower={lower!r}, upper={upper!r})`: must have lower <= upper."
            " Exchange the two."
        )
    return map_leaves("box", lambda x, *_: jnp.clip(x, lower, upper), params, scaling)


def _existing_axes(axes: tuple[int, ...], shape: tuple[int, ...], name: str) -> set:
    """Return `axes` counted from the front, refusing missing and repeated ones."""
    missing = [axis for axis in axes if not -len(shape) <= axis < len(shape)]
    found = {axis % len(shape) for axis in axes if axis not in missing}
    if missing or len(found) < len(axes):
        raise ValueError(
            f"`group_soft_threshold(group_axes={axes!r})`: must name different axes of"
            f" every leaf, leaf {name!r} has shape {shape}. Leave such leaves out with"
            " the `where` of the transformation."
        )
    return found
