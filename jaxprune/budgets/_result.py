"""How a budget stands: the codes that the state of a budget holds."""

import enum

import jax
import jax.numpy as jnp

TOLERANCE = 0.01
"""How far above its limit, relatively, a cost may be and still count as met."""


class Result(enum.IntEnum):
    """Say how a budget stands; `state.result` holds the number.

    A cost counts as met up to 1 % above its limit: a converged run moves around the
    limit, on either side. The masks that are made in the end meet the limit exactly.

    Examples:
      >>> Result(1).name, Result(1).message
      ('MET', 'Every cost is at its limit or below, within 1 %.')
    """

    NOT_MET = 0
    MET = 1
    MULTIPLIER_AT_BOUND = 2
    DIVERGED = 3
    INFEASIBLE = 4

    @property
    def message(self) -> str:
        """Say what the code means and what to do about it."""
        return _MESSAGES[self]


_MESSAGES = {
    Result.NOT_MET: (
        "A cost is above its limit. Train for more steps, or lengthen the ramp."
    ),
    Result.MET: "Every cost is at its limit or below, within 1 %.",
    Result.MULTIPLIER_AT_BOUND: (
        "A cost stays above its limit at the largest Lagrange multiplier. The limit "
        "may be below what the layers must keep, or the variables may not be trained "
        "(give them an optimizer), or the ramp may be too short for their learning "
        "rate."
    ),
    Result.DIVERGED: (
        "A cost is not finite. Look at the loss first: a diverging network has "
        "non-finite weights."
    ),
    Result.INFEASIBLE: (
        "A limit is below the cost of the minimum keep ratios. Raise the limit or "
        "lower `min_keep_ratio`."
    ),
}


def result_of(
    cost: jax.Array,
    limit: jax.Array,
    *,
    at_bound: jax.Array | bool = False,
    infeasible: jax.Array | bool = False,
) -> jax.Array:
    """Return the code of costs and limits of shape (m,), an int32 scalar."""
    above = cost > limit * (1 + TOLERANCE)
    result = jnp.where(jnp.any(above), Result.NOT_MET, Result.MET)
    result = jnp.where(jnp.any(above & at_bound), Result.MULTIPLIER_AT_BOUND, result)
    result = jnp.where(jnp.any(infeasible), Result.INFEASIBLE, result)
    result = jnp.where(jnp.all(jnp.isfinite(cost)), result, Result.DIVERGED)
    return result.astype(jnp.int32)
