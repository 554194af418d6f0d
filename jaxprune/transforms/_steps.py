"""Casts, schedules and moves that the transformations share."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxprune.base._dtypes import at_least_float32


def at(value: Any, step: jax.Array) -> Any:
    """Return a scalar, or the value of a schedule at `step`."""
    return value(step) if callable(value) else value


def product(*factors: Any) -> Any:
    """Return the product of scalars and schedules, as a scalar or a schedule."""
    if not any(callable(factor) for factor in factors):
        result = 1.0
        for factor in factors:
            result = result * factor
        return result

    def schedule(step):
        result = 1.0
        for factor in factors:
            result = result * at(factor, step)
        return result

    return schedule


def next_count(count: jax.Array) -> jax.Array:
    """Return `count + 1`, staying at the largest int32 once there."""
    return jnp.asarray(optax.safe_increment(count))


def wide(x: Any) -> jax.Array:
    """Return `x` in float32, or in its own dtype where that is wider."""
    return x.astype(at_least_float32(x.dtype))


def wide_copy(params: Any) -> Any:
    """Return a copy in new buffers, so that both it and `params` can be donated."""
    return jax.tree.map(lambda x: jnp.array(wide(jnp.asarray(x)), copy=True), params)


def moved(params: Any, updates: Any) -> Any:
    """Return `params + updates` in the wider of the parameter's dtype and float32."""

    def leaf(p, u):
        p = wide(p)
        return p + u.astype(p.dtype)

    return jax.tree.map(leaf, params, updates)


def updates_to(target: Any, params: Any) -> Any:
    """Return what takes `params` to `target`, in the dtype of the parameters.

    `params + (0 - params)` is exactly 0, so pruned weights are exact zeros after
    `optax.apply_updates`; the others differ from the target by one rounding.
    """
    return jax.tree.map(lambda t, p: t.astype(p.dtype) - p, target, params)
