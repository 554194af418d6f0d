"""Limits on costs: how they are written, checked and followed over the steps."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax

from jaxprune.base._checks import is_one_number, is_static_number, round_up
from jaxprune.base._protocols import Cost, KeepRatios, Limit
from jaxprune.costs._density import density
from jaxprune.costs._relative_entropy import relative_entropy
from jaxprune.schedules._ramps import cubic_ramp

_SMALLEST = float(np.finfo(np.float32).tiny)
# Steps at which a schedule is looked at before training: all of the first, and then
# 64 of every octave.
_STEPS = np.unique(
    np.concatenate([np.arange(2**12), np.geomspace(2**12, 2**31 - 1, 19 * 64)]).astype(
        np.int32
    )
)
_FEW_STEPS = tuple(2**i - 1 for i in range(31))


def at_most(
    cost: Cost,
    limit: optax.ScalarOrSchedule,
    *,
    ramp: tuple[int, int] | None = None,
    name: str | None = None,
) -> Limit:
    """Return an upper bound on a cost.

        cost(keep_ratios) <= limit

    With `ramp=(begin, end)` the bound falls from 1 to `limit` along the cubic ramp of
    `schedules.cubic_ramp`:

        1                                                     up to step `begin`,
        limit + (1 - limit) (1 - (t - begin) / (end - begin))^3     between,
        limit                                                 from step `end` on.

    Args:
      cost: `keep_ratios -> scalar`, a fraction of the dense cost, such as
        `density(params)` or `costs.macs(graph)`. `density` itself is accepted where
        something binds the parameters later.
      limit: the bound, in (0, 1]; a number, an array of shape (), or (without a ramp)
        a schedule of the step.
      ramp: the steps at which the cubic ramp begins and ends.
      name: what messages and metrics call the limit; the name of the cost if not given.

    Returns:
      A `Limit`, for `dual_ascent`, `admm` and everything else that takes limits.

    Raises:
      ValueError: if a number for the limit is not in (0, 1], a ramp is given for a
        schedule, or its steps are not 0 <= begin < end.
      TypeError: if `cost` is no function, or `limit` neither a number nor a schedule.

    Examples:
      >>> import jaxprune
      >>> limit = at_most(jaxprune.density, 0.25, ramp=(0, 100))
      >>> limit.name, [round(float(limit.at_most(t)), 3) for t in (0, 50, 100)]
      ('density', [1.0, 0.344, 0.25])

    References:
      Zhu and Gupta, "To prune, or not to prune", 2017, arXiv:1710.01878, Eq. (1).
    """
    _check_cost("at_most", cost)
    _check_bound("at_most", "limit", limit)
    if ramp is not None:
        if callable(limit):
            raise ValueError(
                "`at_most(limit=<schedule>, ramp=...)`: a schedule has its own course. "
                "Give the end value as a number, or leave `ramp` out."
            )
        begin, end = _checked_ramp(ramp)
        end_value: Any = limit  # a number, or an array, which a schedule takes as well
        limit = cubic_ramp(1.0, end_value, begin_step=begin, end_step=end)
    return Limit(cost, limit, _name_of(cost) if name is None else name)


def _checked_ramp(ramp: Any) -> tuple[Any, Any]:
    """Return the two steps of a ramp; one without an end would never be a limit."""
    pair = tuple(ramp) if isinstance(ramp, tuple | list) else ()
    if len(pair) != 2 or not all(
        isinstance(n, jax.core.Tracer) or (is_one_number(n) and np.isfinite(n))
        for n in pair
    ):
        raise ValueError(
            f"`at_most(ramp={ramp!r})`: must be the two steps at which the ramp begins "
            "and ends. Pass `(0, 5_000)`, or leave it out."
        )
    return pair[0], pair[1]


def _name_of(cost: Cost) -> str:
    """Return the name of a cost: its field `name`, or that of the function."""
    found = getattr(cost, "name", None) or getattr(cost, "__name__", "")
    return found if isinstance(found, str) and found.isidentifier() else "cost"


def checked_limits(call: str, limits: Limit | Iterable[Limit]) -> tuple[Limit, ...]:
    """Return limits as a tuple; refuse what cannot be held.

    Raises:
      TypeError: if something is no `Limit`, or a cost is no function of keep ratios.
      ValueError: if there is none, two share a name, or a number is not in (0, 1].
    """
    given = (limits,) if isinstance(limits, Limit) else limits
    if isinstance(given, Mapping) or not isinstance(given, Iterable):
        raise TypeError(_not_limits(call, limits))
    given = tuple(given)
    if not given:
        raise ValueError(
            f"`{call}(limits=())`: at least one limit is needed. Without a limit use "
            "`unlimited()`."
        )
    for limit in given:
        if not isinstance(limit, Limit):
            raise TypeError(_not_limits(call, limits))
        check_bound_cost(call, limit.cost)
        _check_bound(call, limit.name, limit.at_most)
    names = [limit.name for limit in given]
    if len(set(names)) < len(names):
        raise ValueError(
            f"`{call}(limits=...)`: the names {names} must differ. Give each a name, "
            "`at_most(cost, limit, name=...)`."
        )
    return given


def _not_limits(call: str, limits: Any) -> str:
    kind = type(limits).__name__
    return (
        f"`{call}(limits=<{kind}>)`: must be a `Limit` or a sequence of them. Write "
        f"`{call}(at_most(cost, 0.5))`."
    )


def _check_cost(call: str, cost: Any) -> None:
    if not callable(cost):
        raise TypeError(
            f"`{call}(cost={cost!r})`: must be a function of keep ratios. Use "
            "`density(params)`, `costs.macs(graph)` or a function of your own."
        )


def check_bound_cost(call: str, cost: Any) -> None:
    """Refuse a cost that is no function, and what makes one, without parameters."""
    _check_cost(call, cost)
    if cost is density or cost is relative_entropy:
        name = cost.__name__
        raise TypeError(
            f"`{call}(cost={name})`: `{name}` makes a cost out of parameters. Pass "
            f"`{name}(params)`."
        )


def _check_bound(call: str, name: str, bound: Any) -> None:
    """Refuse a number outside (0, 1]; arrays and schedules pass."""
    if callable(bound) or isinstance(bound, jax.Array):
        return
    if not is_static_number(bound):
        raise TypeError(
            f"`{call}({name}={bound!r})`: a limit must be a number in (0, 1] or a "
            "schedule of the step. Pass the fraction of the dense cost, such as 0.5."
        )
    _check_range(call, name, bound, "")


def _check_range(call: str, name: str, value: Any, where: str) -> None:
    if not _SMALLEST <= float(value) <= 1:
        raise ValueError(
            f"`{call}({name}={value}{where})`: a limit is a fraction of the dense cost "
            "and must be in (0, 1], at least 1.2e-38. Divide by the dense cost."
        )


def limits_at(limits: Sequence[Limit], step: jax.Array, dtype: Any) -> jax.Array:
    """Return the bounds at a step, shape (m,)."""
    values = [b(step) if callable(b) else b for b in (x.at_most for x in limits)]
    return jnp.stack([jnp.asarray(value, dtype) for value in values])


def costs_of(limits: Sequence[Limit]) -> Callable[[Mapping[str, Any]], jax.Array]:
    """Return the function from keep ratios to the costs, shape (m,)."""
    return lambda ratios: jnp.stack([jnp.asarray(x.cost(ratios)) for x in limits])


def costs_of_vector(
    limits: Sequence[Limit],
    sizes: Mapping[str, int],
    ratios_of: Callable[[jax.Array], KeepRatios],
) -> Callable[[jax.Array], jax.Array]:
    """Return the function from one vector of keep ratios to the costs, shape (m,).

    Costs of the library take the vector as it is, so that the traced program does not
    grow with the number of sites.
    """

    def of_vector(cost):
        if hasattr(cost, "of_vector"):
            return cost.of_vector(sizes)
        return lambda vector: jnp.asarray(cost(ratios_of(vector)))

    functions = [of_vector(limit.cost) for limit in limits]
    return lambda vector: jnp.stack([function(vector) for function in functions])


def check_before_training(
    call: str,
    limits: Sequence[Limit],
    minimum: Mapping[str, Any],
    *,
    margin: float = 0.0,
) -> None:
    """Refuse limits, and ends of schedules, below the cost of minimum keep ratios.

    A schedule is looked at for steps up to 2**31, at all of the first 4,096. What is
    being traced (a limit under `vmap`, say) is left to the result code of the state.

    Raises:
      ValueError: if a limit cannot be met, with the smallest that can.
    """
    if not minimum:
        return
    with jax.ensure_compile_time_eval():
        for limit in limits:
            reachable = _concrete(limit.cost(dict(minimum)))
            smallest, where = _smallest_bound(call, limit)
            if reachable is None or smallest is None:
                continue
            reachable *= 1 + margin
            if not smallest >= reachable:
                raise ValueError(
                    f"`{call}({limit.name}={smallest:.6g}{where})`: the limit cannot "
                    f"be met; the smallest reachable cost is {round_up(reachable)} of "
                    "the dense cost, with every site at its minimum. Raise the limit "
                    "or lower the minimum keep ratios."
                )


def _smallest_bound(call: str, limit: Limit) -> tuple[float | None, str]:
    """Return the smallest value of a bound over the steps, and where it is."""
    if not callable(limit.at_most):
        return _concrete(limit.at_most), ""
    steps, values = _course(limit.at_most)
    if values is None:
        return None, ""
    # The first NaN, or else the smallest.
    at = int(np.argmin(values))
    smallest, where = float(values[at]), f" at step {steps[at]}"
    if not smallest >= 1:  # values above 1, early in a ramp, are no fault
        _check_range(call, limit.name, smallest, where)
    return smallest, where


def _course(schedule: Callable) -> tuple[Any, np.ndarray | None]:
    """Return steps and the values of a schedule there, None where they are traced."""
    try:
        values = jax.vmap(schedule)(jnp.asarray(_STEPS))
    except (TypeError, ValueError):
        pass  # It decides by the value of a step, and takes one at a time.
    else:
        traced = isinstance(values, jax.core.Tracer)
        if not traced and np.shape(values) == _STEPS.shape:
            return _STEPS, np.asarray(values, np.float64)
    found = [_concrete(schedule(jnp.int32(step))) for step in _FEW_STEPS]
    known = [value for value in found if value is not None]
    return _FEW_STEPS, np.array(known) if len(known) == len(found) else None


def _concrete(value: Any) -> float | None:
    """Return a number, or None for what is being traced or has several entries."""
    if isinstance(value, jax.core.Tracer) or np.size(value) != 1:
        return None
    return float(np.asarray(value).reshape(()))
