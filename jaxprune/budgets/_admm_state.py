"""What `admm` and `admm_as_published` share: their state, keep ratios as vectors."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from jaxprune.base._protocols import KeepRatios
from jaxprune.budgets._result import Result, result_of


class AdmmState(NamedTuple):
    """Hold the state of `admm` or `admm_as_published`, for n keep ratios and m limits.

    Vectors over keep ratios are in the order of sorted site names. Numbers are float32,
    or wider if the keep ratios are.

    Attributes:
      step: int32, shape (), the number of updates so far.
      y: shape (n,), the variables at the last update: log k in `admm`, logit k in
        `admm_as_published`.
      z: shape (n,), the copy of the variables that meets the limits.
      dual: shape (n,), the dual variables u of the constraint that ties k to z.
      rho: shape (), the penalty parameter of the augmented Lagrangian.
      multipliers: shape (m,), the Lagrange multipliers of the limits.
      cost: shape (m,), the costs at the last update, fractions of the dense costs.
      limit: shape (m,), the limits that they were held to.
      primal_residual: shape (), the root mean square of y - z.
      dual_residual: shape (), rho times the root mean square of the last step of z.
      result: int32, shape (), a `Result`.
    """

    step: jax.Array
    y: jax.Array
    z: jax.Array
    dual: jax.Array
    rho: jax.Array
    multipliers: jax.Array
    cost: jax.Array
    limit: jax.Array
    primal_residual: jax.Array
    dual_residual: jax.Array
    result: jax.Array


def start(z: jax.Array, rho: Any, count: int) -> AdmmState:
    """Return the state before the first update."""
    dtype = z.dtype
    return AdmmState(
        step=jnp.zeros([], jnp.int32),
        y=z,
        z=jnp.copy(z),
        dual=jnp.zeros_like(z),
        rho=jnp.asarray(rho, dtype),
        multipliers=jnp.zeros(count, dtype),
        cost=jnp.ones(count, dtype),
        limit=jnp.ones(count, dtype),
        primal_residual=jnp.zeros([], dtype),
        dual_residual=jnp.zeros([], dtype),
        result=jnp.int32(Result.NOT_MET),
    )


def judged(
    new: AdmmState, old: AdmmState, infeasible: jax.Array | bool = False
) -> AdmmState:
    """Return the new state with its result; a cost that is not finite moves nothing."""
    fine = jnp.all(jnp.isfinite(new.cost))
    kept = jax.tree.map(lambda a, b: jnp.where(fine, a, b), new, old)
    result = result_of(new.cost, new.limit, infeasible=infeasible)
    return kept._replace(step=new.step, cost=new.cost, result=result)


class Coordinates(NamedTuple):
    """Hold the change of form between keep ratios by name and one vector.

    Attributes:
      vector: the keep ratios, shape (n,), by sorted name.
      sizes: the number of keep ratios by name, in the order of the vector.
      ratios_of: the way from such a vector to keep ratios by name.
    """

    vector: jax.Array
    sizes: dict[str, int]
    ratios_of: Callable[[jax.Array], KeepRatios]


def coordinates(
    call: str, keep_ratios: Mapping[str, Any], size: int | None = None
) -> Coordinates:
    """Return keep ratios as a vector, in single precision at least, and the way back.

    Raises:
      ValueError: if there is none, or their number is not `size`.
    """
    if not keep_ratios:
        raise ValueError(
            f"`{call}`: there are no keep ratios, so nothing can be held to a limit. "
            "Give the keep ratios of a pruner that learns some."
        )
    dtype = jnp.promote_types(jnp.result_type(*keep_ratios.values()), jnp.float32)
    wide = {name: jnp.asarray(keep_ratios[name], dtype) for name in sorted(keep_ratios)}
    vector, ratios_of = jax.flatten_util.ravel_pytree(wide)
    if size is not None and vector.size != size:
        raise ValueError(
            f"`{call}`: got {vector.size} keep ratios of {sorted(wide)}; the state was "
            f"initialised for {size}. Initialise the budget with the keep ratios of "
            "this pruner."
        )
    return Coordinates(vector, {n: r.size for n, r in wide.items()}, ratios_of)


def filled(
    keep_ratios: Mapping[str, Any], values: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Return keep ratios of the given values, of the shapes of an example.

    They are arrays of NumPy, so that they are known while something is traced.
    """
    dtypes = {
        name: jnp.promote_types(jnp.result_type(r), jnp.float32)
        for name, r in keep_ratios.items()
    }
    return {
        name: np.full(jnp.shape(r), values[name], dtypes[name])
        for name, r in keep_ratios.items()
    }


def rms(x: jax.Array) -> jax.Array:
    """Return the root mean square."""
    return jnp.sqrt(jnp.mean(jnp.square(x)))
