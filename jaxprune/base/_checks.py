"""Checks of configuration numbers, made once, when a factory is called.

Only plain Python and NumPy numbers are looked at. A JAX array (a traced one under
`optax.inject_hyperparams`, say) and a schedule pass unchecked: reading the first would
stop a trace or wait for a device, and the second has no value yet.
"""

import math
import numbers
from collections.abc import Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np


def is_static_number(value: Any) -> bool:
    """Return whether `value` is a plain number whose value may be looked at."""
    return isinstance(value, numbers.Real | np.ndarray) and not isinstance(value, bool)


def is_one_number(value: Any) -> bool:
    """Return whether `value` is a real number or an array of one; no boolean is."""
    if isinstance(value, np.ndarray | jax.Array):
        return value.ndim == 0 and value.dtype.kind != "b"
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_whole(value: Any) -> bool:
    """Return whether `value` is an integer or a known array of one; no boolean is."""
    if isinstance(value, np.ndarray | jax.Array):
        known = not isinstance(value, jax.core.Tracer)
        return known and value.ndim == 0 and value.dtype.kind in "iu"
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def check_concrete(call: str, *values: Any) -> None:
    """Refuse traced arrays, for functions that decide by values on the host.

    Args:
      call: the function called, as the user wrote it: `"check(opt_state)"`.
      *values: pytrees.

    Raises:
      TypeError: a leaf is traced.
    """
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(values)):
        raise TypeError(
            f"`{call}`: the arrays must have values, some are traced. Call it outside"
            " of `jax.jit`, `jax.vmap` and `jax.grad`, on what they return."
        )


def varying_axes(x: Any) -> frozenset[Any]:
    """Return the mapped axes over which `jax.shard_map` knows an array to vary.

    Args:
      x: an array or what is known of one, a `ShapedArray`.
    """
    kind = jax.typeof(x) if isinstance(x, jax.core.Tracer) else x
    if not isinstance(kind, jax.core.ShapedArray):
        return frozenset()
    return frozenset(kind.manual_axis_type.varying)


def varying_zeros(like: Any, shape: Sequence[int] | None = None) -> jax.Array:
    """Return zeros that vary over the mapped axes over which an array does.

    Args:
      like: an array or what is known of one, which gives dtype and axes.
      shape: if it is not that of `like`.
    """
    zeros = jnp.zeros(like.shape if shape is None else shape, like.dtype)
    axes = tuple(varying_axes(like))
    return jax.lax.pcast(zeros, axes, to="varying") if axes else zeros


def check_whole(call: str, params: Any, *state: Any) -> None:
    """Refuse shards of parameters, of which each device would count its own.

    Inside of `jax.shard_map` a leaf that varies over a mesh axis is a shard or a copy.
    Copies vary together with the state beside them, or not at all.

    Args:
      call: the function called, as the user wrote it: `"pruning(trainable)"`.
      params: the weights.
      *state: pytrees of scalars that are the same on all devices.

    Raises:
      ValueError: a leaf varies over axes over which no leaf of `state` does.
    """
    common = frozenset().union(*map(varying_axes, jax.tree.leaves(state)))
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        axes = varying_axes(leaf) - common
        if axes:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise ValueError(
                f"`{call}`: must get whole parameters, but inside of `jax.shard_map`"
                f" leaf {name!r} differs over the mesh axes {sorted(map(str, axes))}:"
                f" a shard of shape {leaf.shape}, of which each device would count its"
                " own weights. Call it outside of `shard_map`, within the same"
                " `jax.jit`, where sharded arrays are whole; put the loss alone inside."
            )


def check_callable(call: str, name: str, value: Any, example: str) -> None:
    """Refuse what cannot be called.

    Args:
      call: the function called, as the user wrote it: `"snip"`.
      name: the argument's name.
      value: a function.
      example: what to pass, for the message.

    Raises:
      TypeError: `value` is no function.
    """
    if not callable(value):
        raise TypeError(
            f"`{call}({name}={value!r})`: must be a function, got a"
            f" {type(value).__name__}. Pass {example}."
        )


def check_key(call: str, key: Any) -> None:
    """Refuse what is no key of `jax.random`, typed or of the older raw form.

    Raises:
      TypeError: `key` is none.
    """
    if isinstance(key, jax.Array | np.ndarray):
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 0:
            return
        if key.dtype == np.uint32 and key.ndim == 1:
            return
    raise TypeError(
        f"`{call}(key={key!r})`: must be one key of `jax.random`. Pass e.g."
        " `jax.random.key(0)`."
    )


def check_non_negative(call: str, name: str, value: Any) -> None:
    """Refuse a negative or undefined number, and what is no number at all.

    Args:
      call: the function called, as the user wrote it: `"ista"`.
      name: the argument's name.
      value: a number >= 0 or an array.

    Raises:
      ValueError: a plain number is negative or not finite.
      TypeError: `value` is neither a number nor an array.
    """
    if isinstance(value, jax.Array):
        return
    _check_number(call, name, value)
    if not (np.all(np.isfinite(value)) and np.all(np.asarray(value) >= 0)):
        raise ValueError(
            f"`{call}({name}={value!r})`: must be finite and at least 0. Pass the"
            " magnitude: where a step has a sign, it is added inside."
        )


def check_scalar_or_schedule(call: str, name: str, value: Any) -> None:
    """As `check_non_negative`, with functions of the step let through."""
    if not callable(value):
        check_non_negative(call, name, value)


def check_fraction(call: str, name: str, value: Any, *, closed: bool) -> None:
    """Refuse a plain number outside [0, 1] or (0, 1).

    Args:
      call: see `check_non_negative`.
      name: the argument's name.
      value: a number or an array.
      closed: whether 0 and 1 are allowed.

    Raises:
      ValueError: `value` is outside, or neither a number nor an array.
    """
    if isinstance(value, jax.Array):
        return
    interval = "[0, 1]" if closed else "(0, 1)"
    inside = is_static_number(value) and (
        0 <= float(value) <= 1 if closed else 0 < float(value) < 1
    )
    if not inside:
        raise ValueError(
            f"`{call}({name}={value!r})`: must be a number in {interval}. Pass a"
            " fraction, such as 0.5."
        )


def check_momentum(call: str, value: Any) -> None:
    """Refuse a plain momentum outside [0, 1): 1 would never forget a gradient."""
    if isinstance(value, jax.Array):
        return
    if not (is_static_number(value) and 0 <= float(value) < 1):
        raise ValueError(
            f"`{call}(momentum={value!r})`: must be a number in [0, 1). Pass the decay"
            " of the optimizer's momentum, 0.0 for plain SGD."
        )


def check_positive_int(call: str, name: str, value: Any) -> int:
    """Return `value` as an int, refusing what is not a whole number >= 1."""
    if not is_whole(value) or value < 1:
        raise ValueError(
            f"`{call}({name}={value!r})`: must be a whole number, at least 1. Count"
            f" optimizer steps (or epochs) as a Python int, e.g."
            f" `{name}={_rounded(value)}`."
        )
    return int(value)


def _rounded(value: Any) -> int:
    """Return the nearest usable step count to what was passed, for a message."""
    if is_static_number(value) and math.isfinite(value) and value >= 1:
        return round(value)
    return 1000


def round_up(value: float) -> str:
    """Write a positive number with four digits, such that they are not below it."""
    return f"{value * 1.0006:.4g}"


def check_positive(call: str, name: str, value: Any) -> None:
    """Refuse a plain number that is not positive and finite; arrays pass.

    Args:
      call: the function called, as the user wrote it: `"ltp"`.
      name: the argument's name.
      value: a number > 0 or an array.

    Raises:
      ValueError: a plain number is not positive or not finite.
      TypeError: `value` is neither a number nor an array.
    """
    if isinstance(value, jax.Array):
        return
    _check_number(call, name, value)
    if not np.all(np.isfinite(value) & (np.asarray(value) > 0)):
        raise ValueError(
            f"`{call}({name}={value!r})`: must be positive and finite. Leave it out for"
            " the default, or pass a number above 0."
        )


def _check_number(call: str, name: str, value: Any) -> None:
    if not is_static_number(value):
        raise TypeError(
            f"`{call}({name}={value!r})`: must be a number, got"
            f" {type(value).__name__}. Pass a float (a function of the step only where"
            " the documentation asks for a schedule)."
        )
