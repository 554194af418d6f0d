"""What every transformation checks of its arguments."""

import warnings
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import optax

from jaxprune.base._checks import check_positive_int, is_one_number
from jaxprune.prox._operators import Prox


def check_prox(call: str, prox: Any) -> None:
    """Refuse what is not a function `(params, scaling) -> params`."""
    if not callable(prox):
        raise TypeError(
            f"`{call}(prox={prox!r})`: must be a function (params, scaling) -> params,"
            f" got a {type(prox).__name__}. Pass `jaxprune.prox.soft_threshold` itself,"
            " or bind its configuration with `functools.partial`."
        )


def check_result(call: str, prox: Prox, params: Any) -> None:
    """Trace `prox` on the parameters' shapes: it must return a tree like them.

    Operators that do not suit a leaf (a group axis that does not exist) raise here,
    when the state is made, rather than inside the first training step.
    """
    if not jax.tree.leaves(params):  # optax's placeholder, or all leaves masked
        return
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    result = jax.eval_shape(prox, shapes, jax.ShapeDtypeStruct((), jnp.float32))
    if jax.tree.structure(result) != jax.tree.structure(shapes):
        raise ValueError(
            f"`{call}(prox={_named(prox)})`: must return a tree of the structure that"
            f" it gets, returns {jax.tree.structure(result)} for"
            f" {jax.tree.structure(shapes)}. Apply it to each leaf, with"
            " `jax.tree.map`."
        )
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(shapes),
        jax.tree.leaves(result),
        strict=True,
    ):
        if x.shape != y.shape:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise ValueError(
                f"`{call}(prox={_named(prox)})`: must keep the shape of every leaf,"
                f" returns {y.shape} for leaf {name!r} of shape {x.shape}. Leave such"
                " leaves out with `where`."
            )


def _named(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__)


def require_params(call: str, params: Any) -> Any:
    """Return the parameters, refusing an update without them."""
    if params is None:
        raise ValueError(
            f"`{call}(...).update(updates, state, params=None)`: the parameters are"
            " needed. Pass the current ones as the third argument of `update`."
        )
    return params


def warn_low_precision(call: str, params: Any) -> None:
    """Warn that 16-bit weights lose small steps; the figures were measured."""
    low = sorted(
        {
            str(x.dtype)
            for x in jax.tree.leaves(params)
            if jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize < 4
        }
    )
    if low:
        warnings.warn(
            f"`{call}(...)` was given master weights in {', '.join(low)}: steps smaller"
            " than half a unit in the last place are lost. After 1000 ISTA steps of a"
            " small digits network the weights were 21 % off the float32 ones in"
            " bfloat16, 2 % in float16."
            " Keep float32 weights and cast a copy for the forward pass, or use"
            " `latent_proximal`, whose latent weights are float32.",
            UserWarning,
            stacklevel=3,
        )


def is_abstract(params: Any) -> bool:
    """Return whether a leaf is a shape without an array."""
    return any(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(params))


def with_extra_args(
    call: str, optimizer: Any, *, name: str = "optimizer"
) -> optax.GradientTransformationExtraArgs:
    """Return `optimizer` taking any extra arguments, refusing what is none."""
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise TypeError(
            f"`{call}({name}={optimizer!r})`: must be an"
            f" `optax.GradientTransformation`, got a {type(optimizer).__name__}. Pass"
            " e.g. `optax.sgd(0.1)`."
        )
    return optax.with_extra_args_support(optimizer)


def check_size(call: str, sparsity: Any, steps: Any) -> int:
    """Check a size, and return the number of steps over which it is reached.

    Raises:
      ValueError: `sparsity` is no number in [0, 1), save for a traced one, or `steps`
        no whole number >= 1.
    """
    traced = isinstance(sparsity, jax.core.Tracer)
    if not traced and not (is_one_number(sparsity) and 0 <= float(sparsity) < 1):
        raise ValueError(
            f"`{call}(sparsity={sparsity!r})`: the fraction of zeros must be in [0, 1)."
            " For 95 % zeros pass 0.95; of several sizes, chain one of each with its"
            " `where`."
        )
    if steps is None:
        raise ValueError(
            f"`{call}(sparsity=..., steps=None)`: a number of steps is needed. Pass the"
            " number of updates after which the size is met."
        )
    return check_positive_int(call, "steps", steps)


def check_exactly_one(call: str, given: dict[str, Any]) -> None:
    """Refuse all but exactly one argument of `given`, name to value."""
    names = [name for name, value in given.items() if value is not None]
    if len(names) != 1:
        wanted = " or ".join(f"`{name}=`" for name in given)
        raise ValueError(
            f"`{call}(...)`: exactly one of {wanted} is needed, got"
            f" {names or 'none'}. Pass the first for a fixed schedule, the other for a"
            " size."
        )
