"""What a network may cost: no price, a fixed price, or a hard limit.

A budget adds to the loss a price on costs (see `costs`) and moves the price after each
step. `weighted` keeps the price fixed, as the LTP paper does: the size reached is then
whatever the price makes it. `dual_ascent` holds the cost to a limit that may follow a
schedule, and finds the price by itself: say the size, get it.
"""

import enum
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxprune.base._protocols import Budget, Cost

_HIGHEST_LOG_PRICE = 20.0


class Result(enum.IntEnum):
    """How a budget stands. The value is what the `result` of a state holds."""

    NOT_YET_MET = 0
    MET = 1
    PRICE_EXHAUSTED = 2
    DIVERGED = 3
    INFEASIBLE = 4

    @property
    def message(self) -> str:
        """What the code means and what to do about it."""
        return _MESSAGES[self]


_MESSAGES = {
    Result.NOT_YET_MET: "The cost is above the limit; it is still being lowered.",
    Result.MET: "The cost is at or below the limit.",
    Result.PRICE_EXHAUSTED: (
        "The cost stays above the limit at the highest price. The limit may be below "
        "what the layers must keep, or the variables may not be trained (give them an "
        "optimizer), or the ramp may be too short for their learning rate."
    ),
    Result.DIVERGED: (
        "The cost is not finite. Look at the loss first: a diverging network has "
        "non-finite weights."
    ),
    Result.INFEASIBLE: (
        "The limits are below the cost of the least keep ratios. Raise the limits or "
        "lower `min_keep_ratio`."
    ),
}


def unlimited() -> Budget:
    """No price: the penalty is zero and the state is empty."""
    return Budget(
        init=lambda: (),
        penalty=lambda keep_ratios, state, /: jnp.float32(0),
        update=lambda keep_ratios, state, /: state,
    )


def weighted(cost: Cost, weight: float) -> Budget:
    """A fixed price: the penalty is `weight * cost(keep_ratios)`.

    With the loss of [LTP], `L + lambda * sum_l L0_l`, and the cost `density`,
    `weight = lambda * n` for n selected weights.

    Args:
      cost: `keep_ratios -> float32 scalar`, a fraction of the dense cost.
      weight: the price of the whole dense network, in units of the loss; not negative.

    Raises:
      ValueError: if `weight` is negative or not finite.
    """
    if not 0 <= weight < float("inf"):
        raise ValueError(
            f"`weighted(weight={weight})`: a price must be finite and not negative."
        )
    return Budget(
        init=lambda: (),
        penalty=lambda keep_ratios, state, /: jnp.float32(weight) * cost(keep_ratios),
        update=lambda keep_ratios, state, /: state,
    )


class DualAscentState(NamedTuple):
    """State of `dual_ascent`; every field has shape ().

    Attributes:
      step: int32, the number of updates so far.
      log_price: float32, m, the natural logarithm of the undamped price.
      cost: float32, the cost at the last update, a fraction of the dense cost.
      limit: float32, the limit that it was held to.
      result: int32, a `Result`.
    """

    step: jax.Array
    log_price: jax.Array
    cost: jax.Array
    limit: jax.Array
    result: jax.Array


def dual_ascent(
    cost: Cost,
    limit: optax.ScalarOrSchedule,
    *,
    rate: float = 0.1,
    gain: float = 2.0,
    init_price: float = 1e-2,
) -> Budget:
    """Holds a cost to a limit by damped multiplicative dual ascent on its price.

    With the relative violation `e_t = clip(log(cost_t / limit(t)), -1, 1)` the penalty
    of step t is

        exp(m_t + gain * e_{t-1}) * cost(keep_ratios),    m_{t+1} = m_t + rate * e_t

    so the price stays positive, and what drives it is relative: the same numbers serve
    a limit of 0.5 and one of 0.005. The sum m_t is the logarithm of the multiplier that
    a met limit settles at; the term in `gain` vanishes there, and on the way it damps
    the swing past the limit that dual ascent alone has. (It is proportional-integral
    control of the price.)

    Args:
      cost: `keep_ratios -> float32 scalar`, a fraction of the dense cost.
      limit: the most it may be, in (0, 1]; a number, or a schedule of the step, such as
        a `cubic_ramp` from 1 to the size asked for.
      rate: step size of m, the logarithm of the price, positive.
      gain: weight of the damping term, not negative; 0 is plain dual ascent.
      init_price: the price at the start, in units of the loss, positive.

    Returns:
      A budget with a `DualAscentState`.

    Raises:
      ValueError: if a number given for `limit` is outside (0, 1], `rate` or
        `init_price` is not positive, or `gain` is negative.

    >>> import jax.numpy as jnp
    >>> budget = dual_ascent(lambda keep: keep["w"], 0.5)
    >>> state = budget.update({"w": jnp.float32(0.4)}, budget.init())
    >>> Result(int(state.result)).message
    'The cost is at or below the limit.'
    """
    if not callable(limit) and not 0 < limit <= 1:
        raise ValueError(
            f"`dual_ascent(limit={limit})`: a limit is a fraction of the dense cost "
            "and must be in (0, 1]. Divide by the dense cost."
        )
    for name, value in (("rate", rate), ("init_price", init_price)):
        if not 0 < value < float("inf"):
            raise ValueError(
                f"`dual_ascent({name}={value})`: must be positive and finite."
            )
    if not 0 <= gain < float("inf"):
        raise ValueError(
            f"`dual_ascent(gain={gain})`: must be finite and not negative."
        )
    limit_at = limit if callable(limit) else lambda step: limit

    def init():
        return DualAscentState(
            step=jnp.zeros([], jnp.int32),
            log_price=jnp.log(jnp.float32(init_price)),
            cost=jnp.ones([], jnp.float32),
            limit=jnp.ones([], jnp.float32),
            result=jnp.int32(Result.NOT_YET_MET),
        )

    def penalty(keep_ratios, state, /):
        damping = gain * violation(state.cost, state.limit)
        return jnp.exp(state.log_price + damping) * cost(keep_ratios)

    def violation(now, bound):
        # A cost that is not finite says nothing, now or at the next step.
        relative = jnp.clip(jnp.log(now / bound), -1.0, 1.0)
        return jnp.where(jnp.isfinite(now), relative, 0.0)

    def update(keep_ratios, state, /):
        now = jnp.asarray(cost(keep_ratios), jnp.float32)
        bound = jnp.asarray(limit_at(state.step), jnp.float32)
        log_price = jnp.clip(
            state.log_price + rate * violation(now, bound),
            -_HIGHEST_LOG_PRICE,
            _HIGHEST_LOG_PRICE,
        )
        result = jnp.where(now <= bound, Result.MET, Result.NOT_YET_MET)
        exhausted = (now > bound) & (log_price >= _HIGHEST_LOG_PRICE)
        result = jnp.where(exhausted, Result.PRICE_EXHAUSTED, result)
        result = jnp.where(jnp.isfinite(now), result, Result.DIVERGED)
        return DualAscentState(
            step=jnp.asarray(optax.safe_increment(state.step)),
            log_price=log_price,
            cost=now,
            limit=bound,
            result=result.astype(jnp.int32),
        )

    return Budget(init, penalty, update)
