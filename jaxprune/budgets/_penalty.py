"""Budgets without a limit: no penalty, or a fixed penalty weight.

A fixed weight is what the LTP paper has: the size reached is whatever it makes it.
`dual_ascent` and `admm` hold costs to limits instead.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxprune.base._checks import is_static_number
from jaxprune.base._protocols import Budget, Cost
from jaxprune.budgets._limits import check_bound_cost


def unlimited() -> Budget:
    """Return the budget without a penalty.

        penalty = 0

    Returns:
      A budget whose penalty is the float32 scalar 0 and whose state is `()`.

    Examples:
      >>> budget = unlimited()
      >>> float(budget.penalty({}, budget.init({})))
      0.0
    """
    return Budget(
        init=lambda keep_ratios, /: (),
        penalty=lambda keep_ratios, state, /: jnp.float32(0),
        update=lambda keep_ratios, state, /: state,
    )


def weighted(cost: Cost, weight: float | jax.Array) -> Budget:
    """Return the budget with a fixed penalty weight.

        penalty = weight * cost(keep_ratios)

    With the loss of [LTP], `L + lambda * sum_l L0_l`, and the cost `density(params)`,
    `weight = lambda * n` for n selected weights.

    Args:
      cost: `keep_ratios -> float32 scalar`, a fraction of the dense cost, or another
        penalty such as `costs.relative_entropy`, in nats.
      weight: in units of the loss per unit of the cost, so of a fraction what the dense
        network adds to the loss; at least 0; a number or an array of shape ().

    Returns:
      A budget whose state is `()`.

    Raises:
      ValueError: if a number for `weight` is negative or not finite.
      TypeError: if `cost` is no function of keep ratios, or `weight` no number.

    Examples:
      >>> budget = weighted(lambda keep_ratios: keep_ratios["w"], 0.5)
      >>> float(budget.penalty({"w": jnp.float32(0.5)}, budget.init({})))
      0.25

    References:
      [LTP] Azarian et al., "Learned Threshold Pruning", 2020, arXiv:2003.00075, Sec. 3.
    """
    check_bound_cost("weighted", cost)
    _check_weight(weight)

    def penalty(keep_ratios, state, /):
        del state
        return jnp.asarray(weight, jnp.float32) * cost(keep_ratios)

    return Budget(
        init=lambda keep_ratios, /: (),
        penalty=penalty,
        update=lambda keep_ratios, state, /: state,
    )


def _check_weight(weight: Any) -> None:
    if isinstance(weight, jax.Array):
        return
    if not is_static_number(weight):
        raise TypeError(
            f"`weighted(weight={weight!r})`: must be a number. Pass e.g. `1e-4`."
        )
    if not 0 <= float(weight) <= float(jnp.finfo(jnp.float32).max):
        raise ValueError(
            f"`weighted(weight={weight})`: must be finite and not negative. A positive "
            "weight makes the network smaller."
        )
