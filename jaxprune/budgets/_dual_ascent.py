"""Hard limits on costs by dual ascent on their Lagrange multipliers."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxprune.base._checks import check_non_negative, check_positive
from jaxprune.base._protocols import Budget, Limit
from jaxprune.budgets._admm_state import filled
from jaxprune.budgets._limits import (
    check_before_training,
    checked_limits,
    costs_of,
    limits_at,
)
from jaxprune.budgets._result import Result, result_of

_LARGEST_LOG_MULTIPLIER = 20.0
_SMALLEST = float(np.finfo(np.float32).tiny)


class DualAscentState(NamedTuple):
    """Hold the state of `dual_ascent`, for m limits.

    Attributes:
      step: int32, shape (), the number of updates so far.
      log_multiplier: float32, shape (m,), the natural logarithms of the multipliers.
      cost: float32, shape (m,), the costs at the last update, fractions of the dense
        costs.
      limit: float32, shape (m,), the limits that they were held to.
      result: int32, shape (), a `Result`.
    """

    step: jax.Array
    log_multiplier: jax.Array
    cost: jax.Array
    limit: jax.Array
    result: jax.Array


def dual_ascent(
    limits: Limit | Iterable[Limit],
    *,
    rate: float | jax.Array = 0.1,
    gain: float | jax.Array = 2.0,
    init_multiplier: float | jax.Array = 1e-2,
) -> Budget:
    """Hold costs to limits by damped multiplicative dual ascent on their multipliers.

    With the relative violation of limit j

        e_j(t) = clip(log(cost_j(t) / limit_j(t)), -1, 1)

    the penalty of step t and the step of the log-multipliers m are

        penalty  = sum_j exp(m_j(t) + gain e_j(t - 1)) cost_j(keep_ratios)
        m_j(t+1) = m_j(t) + rate e_j(t)

    The multipliers stay positive, and what drives them is relative: the same numbers
    serve a limit of 0.5 and one of 0.005. The sum m_j is the logarithm of the Lagrange
    multiplier that a met limit settles at; the term in `gain` vanishes there, and on
    the way it damps the swing past the limit that dual ascent alone has. (It is
    proportional-integral control of the multiplier.)

    Args:
      limits: one `Limit` or several, from `at_most`.
      rate: step size of m, positive.
      gain: weight of the damping term, at least 0; 0 is plain dual ascent.
      init_multiplier: the multipliers at the start, in units of the loss, between
        2.1e-9 and 4.8e8.

    Returns:
      A budget with a `DualAscentState`. `init` takes keep ratios, of which only names
      and shapes count.

    Raises:
      ValueError: if a number is out of range, or two limits share a name. From `init`:
        if a cost does not know a site, or a schedule ends outside (0, 1] or below the
        cost of an empty network.
      TypeError: if `limits` are no limits, or a cost is no function of keep ratios.

    Examples:
      >>> import jaxprune
      >>> ratios = {"w": jnp.float32(0.4)}
      >>> budget = dual_ascent(jaxprune.at_most(lambda keep: keep["w"], 0.5))
      >>> state = budget.update(ratios, budget.init(ratios))
      >>> jaxprune.budgets.Result(int(state.result)).name, state.cost.tolist()
      ('MET', [0.4000000059604645])

    References:
      Boyd et al., "Distributed Optimization and Statistical Learning via the
      Alternating Direction Method of Multipliers", 2011, Sec. 2.1 (dual ascent); the
      logarithms and the damping are ours.
    """
    limits = checked_limits("dual_ascent", limits)
    check_positive("dual_ascent", "rate", rate)
    _check_numbers(gain, init_multiplier)
    costs = costs_of(limits)

    def init(keep_ratios, /):
        empty = filled(keep_ratios, dict.fromkeys(keep_ratios, 0.0))
        check_before_training("dual_ascent", limits, empty)
        ones = jnp.ones(len(limits), jnp.float32)
        return DualAscentState(
            step=jnp.zeros([], jnp.int32),
            log_multiplier=ones * jnp.log(jnp.asarray(init_multiplier, jnp.float32)),
            cost=ones,
            limit=ones,
            result=jnp.int32(Result.NOT_MET),
        )

    def penalty(keep_ratios, state, /):
        damping = gain * _violation(state.cost, state.limit)
        weights = jnp.exp(state.log_multiplier + damping)
        return jnp.sum(weights * costs(keep_ratios)).astype(jnp.float32)

    def update(keep_ratios, state, /):
        now = costs(keep_ratios).astype(jnp.float32)
        limit = limits_at(limits, state.step, jnp.float32)
        log_multiplier = jnp.clip(
            state.log_multiplier + rate * _violation(now, limit),
            -_LARGEST_LOG_MULTIPLIER,
            _LARGEST_LOG_MULTIPLIER,
        )
        at_bound = log_multiplier >= _LARGEST_LOG_MULTIPLIER
        return DualAscentState(
            step=jnp.asarray(optax.safe_increment(state.step)),
            log_multiplier=log_multiplier,
            cost=now,
            limit=limit,
            result=result_of(now, limit, at_bound=at_bound),
        )

    return Budget(init, penalty, update)


def _violation(cost: jax.Array, limit: jax.Array) -> jax.Array:
    """Return clip(log(cost / limit), -1, 1); a cost that is not finite counts as met.

    The logarithms are subtracted, since quotients of small numbers overflow.
    """
    log_cost, log_limit = (jnp.log(jnp.maximum(x, _SMALLEST)) for x in (cost, limit))
    relative = jnp.clip(log_cost - log_limit, -1.0, 1.0)
    return jnp.where(jnp.isfinite(cost), relative, 0.0)


def _check_numbers(gain: Any, init_multiplier: Any) -> None:
    check_non_negative("dual_ascent", "gain", gain)
    check_positive("dual_ascent", "init_multiplier", init_multiplier)
    largest = float(np.exp(_LARGEST_LOG_MULTIPLIER))
    if isinstance(init_multiplier, jax.Array):
        return
    if not 1 / largest <= init_multiplier <= largest:
        raise ValueError(
            f"`dual_ascent(init_multiplier={init_multiplier})`: must be between "
            f"{1 / largest:.2g} and {largest:.2g}. Start from 1e-2; it adapts."
        )
