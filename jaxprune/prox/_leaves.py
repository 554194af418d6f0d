"""One rule for an array, applied to every leaf of a tree in float32 or better."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxprune.base._checks import check_non_negative
from jaxprune.base._dtypes import at_least_float32

Rule = Callable[[jax.Array, jax.Array, str], jax.Array]


def map_leaves(call: str, rule: Rule, params: Any, scaling: Any) -> Any:
    """Apply `rule(x, scaling, name)` to every leaf, keeping its dtype.

    Args:
      call: the public function, for messages.
      rule: receives the leaf and its scaling in the wider of the leaf's dtype and
        float32, and the leaf's name; returns an array of the leaf's shape.
      params: an array or a pytree of floating-point arrays.
      scaling: a scalar, or a prefix of `params`.

    Returns:
      A tree like `params`.
    """
    scalings = broadcast_scaling(call, params, scaling)

    def leaf(path, x, s):
        name = leaf_name(path)
        x = floating_leaf(call, name, x)
        dtype = at_least_float32(x.dtype)
        s = jnp.asarray(s, dtype)
        if s.ndim > x.ndim or any(
            a not in (1, b) for a, b in zip(s.shape[::-1], x.shape[::-1], strict=False)
        ):
            raise ValueError(
                f"`{call}(params, scaling)`: scalings must broadcast to their leaves,"
                f" got shape {s.shape} for leaf {name!r} of shape {x.shape}. Pass a"
                f" scalar or an array of a shape such as"
                f" {(1,) * max(x.ndim - 1, 0) + x.shape[-1:]}."
            )
        return rule(x.astype(dtype), s, name).astype(x.dtype)

    return jax.tree.map_with_path(leaf, params, scalings)


def leaf_name(path: Any) -> str:
    """Return a key path as text, `Conv_0/kernel`, for messages."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def floating_leaf(call: str, name: str, x: Any) -> jax.Array:
    """Return `x` as an array, refusing integers, booleans and complex numbers."""
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"`{call}(params, ...)`: leaves must be floating-point arrays, {name!r} is"
            f" of dtype {x.dtype}. Leave it out: select other leaves with the `where`"
            " of the transformation."
        )
    return x


def broadcast_scaling(call: str, params: Any, scaling: Any) -> Any:
    """Return `scaling` as a tree like `params`, refusing negative numbers."""
    for value in jax.tree.leaves(scaling):
        check_non_negative(call, "scaling", value)
    try:
        return jax.tree.broadcast(scaling, params)
    except ValueError as error:
        raise ValueError(
            f"`{call}(params, scaling)`: the scaling must be a number or a tree prefix"
            f" of the parameters, got {jax.tree.structure(scaling)} for"
            f" {jax.tree.structure(params)}. Pass one number for all leaves, or a tree"
            " like the parameters."
        ) from error
