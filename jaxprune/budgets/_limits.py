"""What hard budgets share: their state, ratios as vectors, checks of arguments."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.core
import jax.flatten_util
import jax.numpy as jnp

from jaxprune.base._checks import round_up
from jaxprune.base._protocols import Cost, KeepRatios
from jaxprune.budgets._penalty import Result

_LEAST = 1e-6
_STEEP = 0.01


class AdmmState(NamedTuple):
    """State of `admm` and `admm_as_published`, for n keep ratios and m costs.

    Numbers have the dtype of the keep ratios, float32 as a rule.

    Attributes:
      step: int32, the number of updates so far.
      point: shape (n,), the affordable point: log k, or logit k as published.
      pull: shape (n,), the multipliers u that tie k to the point.
      stiffness: rho, the weight of the quadratic term.
      multipliers: shape (m,), of the limits.
      cost: shape (m,), the costs at the last update.
      limit: shape (m,), the limits that they were held to.
      primal_residual: root mean square of k's distance from the point.
      dual_residual: rho times the root mean square of the point's last move.
      result: int32, a `Result`.
    """

    step: jax.Array
    point: jax.Array
    pull: jax.Array
    stiffness: jax.Array
    multipliers: jax.Array
    cost: jax.Array
    limit: jax.Array
    primal_residual: jax.Array
    dual_residual: jax.Array
    result: jax.Array


def start(point, stiffness: float, count: int) -> AdmmState:
    """The state before the first update."""
    dtype = point.dtype
    return AdmmState(
        step=jnp.zeros([], jnp.int32),
        point=point,
        pull=jnp.zeros_like(point),
        stiffness=jnp.asarray(stiffness, dtype),
        multipliers=jnp.zeros(count, dtype),
        cost=jnp.ones(count, dtype),
        limit=jnp.ones(count, dtype),
        primal_residual=jnp.zeros([], dtype),
        dual_residual=jnp.zeros([], dtype),
        result=jnp.int32(Result.NOT_YET_MET),
    )


def judged(new: AdmmState, old: AdmmState, least: jax.Array) -> AdmmState:
    """Says how the budget stands; a cost that is not finite changes nothing else."""
    result = jnp.where(jnp.all(new.cost <= new.limit), Result.MET, Result.NOT_YET_MET)
    result = jnp.where(jnp.any(least > new.limit), Result.INFEASIBLE, result)
    fine = jnp.all(jnp.isfinite(new.cost))
    kept = jax.tree.map(lambda a, b: jnp.where(fine, a, b), new, old)
    result = jnp.where(fine, result, Result.DIVERGED).astype(jnp.int32)
    return kept._replace(step=new.step, cost=new.cost, result=result)


class Coordinates(NamedTuple):
    """Keep ratios as vectors.

    Attributes:
      vector_of: keep ratios to one vector, by sorted name; sites that are missing are
        whole.
      ratios_of: the way back.
    """

    vector_of: Callable[[Mapping[str, Any]], jax.Array]
    ratios_of: Callable[[jax.Array], KeepRatios]

    def log_of(self, keep_ratios: Mapping[str, Any], least: jax.Array) -> jax.Array:
        """Logarithms, of `least` at the least, with the derivative 1 / max(k, 0.01).

        So an emptied site is felt, and comes back gently: thresholds that are moved by
        the derivative as it is would be thrown out of reach.
        """
        ratios = self.vector_of(keep_ratios)
        still = jax.lax.stop_gradient(ratios)
        moved = (ratios - still) / jnp.maximum(still, _STEEP)
        return jnp.log(jnp.maximum(still, least)) + moved

    def logit_of(self, keep_ratios: Mapping[str, Any]) -> jax.Array:
        """Logits, of 1e-6 to 1 - 1e-6."""
        ratios = jnp.clip(self.vector_of(keep_ratios), _LEAST, 1 - _LEAST)
        return jnp.log(ratios) - jnp.log1p(-ratios)


def coordinates(like: KeepRatios) -> Coordinates:
    """The coordinates of keep ratios of these names and shapes."""
    whole = {name: filled(leaf, 1.0) for name, leaf in like.items()}
    _, ratios_of = jax.flatten_util.ravel_pytree(whole)

    def vector_of(keep_ratios):
        unknown = keep_ratios.keys() - whole.keys()
        if unknown:
            raise ValueError(
                f"hard budget: no site is called {sorted(unknown)}; `like` has "
                f"{sorted(whole)}. Give the budget the keep ratios of this pruner."
            )
        return jax.flatten_util.ravel_pytree({**whole, **keep_ratios})[0]

    return Coordinates(vector_of, ratios_of)


def filled(like: Any, value: float) -> jax.Array:
    """An array of the shape of another, in single precision at least."""
    dtype = jnp.promote_types(jnp.result_type(like), jnp.float32)
    return jnp.full(jnp.shape(like), value, dtype)


def rms(x: jax.Array) -> jax.Array:
    """Root mean square."""
    return jnp.sqrt(jnp.mean(jnp.square(x)))


def limits_at(bounds, step, dtype) -> jax.Array:
    """The limits at a step, shape (m,)."""
    values = [bound(step) if callable(bound) else bound for bound in bounds]
    return jnp.stack([jnp.asarray(value, dtype) for value in values])


def least_ratios(
    call: str, like: KeepRatios, min_keep_ratio: float | Mapping[str, float]
) -> jax.Array:
    """The least keep ratios, as a vector."""
    given = min_keep_ratio
    by_name = dict(given) if isinstance(given, Mapping) else dict.fromkeys(like, given)
    if by_name.keys() != like.keys():
        raise ValueError(
            f"`{call}(min_keep_ratio=...)` must name every site of `like`, "
            f"{sorted(like)}; got {sorted(by_name)}."
        )
    for name, value in by_name.items():
        if not 0 < value <= 1:
            raise ValueError(
                f"`{call}(min_keep_ratio={value})` of {name!r}: must be in (0, 1]; the "
                "logarithm of a keep ratio is what is projected."
            )
    return (
        coordinates(like)
        .vector_of({name: filled(leaf, by_name[name]) for name, leaf in like.items()})
        .clip(max=1 - 1e-6)
    )


def paired(call: str, costs, limits) -> tuple[list[str], list[Cost], list[Any]]:
    """Names, costs and limits in one order; one cost alone is called `cost`."""
    if not isinstance(costs, Mapping):
        costs = {"cost": costs}
        limits = limits if isinstance(limits, Mapping) else {"cost": limits}
    if not costs:
        raise ValueError(
            f"`{call}(costs, ...)`: at least one cost is needed, got none. Without a "
            "limit use `unlimited`."
        )
    if not isinstance(limits, Mapping) or limits.keys() != costs.keys():
        raise ValueError(
            f"`{call}(costs, limits, ...)`: every cost needs its limit, by the same "
            f"name; got costs {list(costs)} and limits {limits!r}."
        )
    for name, limit in limits.items():
        if not callable(limit) and not 0 < limit <= 1:
            raise ValueError(
                f"`{call}(..., limits)`: the limit {limit} of {name!r} must be in "
                "(0, 1], a fraction of the dense cost. Divide by the dense cost; a "
                "limit above it is none: leave it out."
            )
    return list(costs), list(costs.values()), [limits[name] for name in costs]


def check_feasible(call: str, names, bounds, least: jax.Array) -> None:
    """Refuses limits below the least costs, naming them."""
    if isinstance(least, jax.core.Tracer):
        return  # abstract: the result code will say so
    for name, bound, reachable in zip(names, bounds, least.tolist(), strict=True):
        if not callable(bound) and bound < reachable:
            raise ValueError(
                f"`{call}(..., limits)`: the limit {bound} of {name!r} cannot be met; "
                f"the smallest reachable cost is {round_up(reachable)} of the dense "
                "cost, with every site near its `min_keep_ratio`. Raise the limit."
            )


def check_positive(call: str, name: str, value: float) -> None:
    """Refuses what is not positive and finite."""
    if not 0 < value < float("inf"):
        raise ValueError(f"`{call}({name}={value})`: must be positive and finite.")
