"""Projection of the logarithms of keep ratios onto a budget.

A cost of channels is a sum of products of keep ratios, each with a positive factor: a
posynomial. So with y = log k every log F_j(exp y) is convex, the set of affordable y is
convex, and the nearest of them is unique:

    minimise   |y - y_0|^2 / 2
    subject to log F_j(exp y) <= log B_j  for all j,   low <= y <= 0

It is found by a primal-dual interior-point method with a fixed number of steps. In
keep ratios themselves the set is not convex, as a product of two shows.

References:
  Boyd, Kim, Vandenberghe, Hassibi, "A tutorial on geometric programming", 2007.
  Boyd, Vandenberghe, "Convex Optimization", 2004, Sec. 11.7.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

_ITERATIONS = 24
_CENTRING = 0.15
_TO_BOUNDARY = 0.98


class Projection(NamedTuple):
    """The nearest affordable point.

    Attributes:
      point: y, shape (n,).
      multipliers: of the costs, shape (m,), not negative.
    """

    point: jax.Array
    multipliers: jax.Array


def project(
    log_costs: Callable[[jax.Array], jax.Array],
    log_limits: jax.Array,
    target: jax.Array,
    low: jax.Array,
) -> Projection:
    """Projects `target` onto the budget.

    Args:
      log_costs: `y -> log F(exp y)`, shape (n,) to (m,), convex and not decreasing.
      log_limits: log B, shape (m,). There must be a y >= low that meets all of them
        with room to spare; otherwise the result is somewhere near `low`.
      target: y_0, shape (n,).
      low: the least y, shape (n,), negative.

    Returns:
      y, and the multiplier of every cost. y meets the limits to the rounding of the
      dtype of `target`.
    """
    dtype, m, n = target.dtype, log_limits.shape[0], target.shape[0]
    rounding = jnp.finfo(dtype).eps  # smaller slacks would be noise

    def constraints(y):  # all at most 0
        return jnp.concatenate([log_costs(y) - log_limits, y, low - y])

    def lagrangian(y, multipliers):
        return jnp.sum(multipliers * log_costs(y))

    jacobian, curvature = jax.jacrev(log_costs), jax.hessian(lagrangian)

    def improve(_, state):
        y, slack, dual = state
        slopes = jacobian(y)
        centre = jnp.maximum(_CENTRING * jnp.mean(slack * dual), 4 * rounding)
        weight = dual / slack
        residual = constraints(y) + slack
        # Newton's step on stationarity, feasibility and complementarity, with slacks
        # and multipliers eliminated; those of the bounds are diagonal.
        pull = weight * residual + centre / slack
        gradient = y - target + slopes.T @ pull[:m] + pull[m : m + n] - pull[m + n :]
        matrix = curvature(y, dual[:m]) + slopes.T @ (weight[:m, None] * slopes)
        matrix += jnp.diag(1 + weight[m : m + n] + weight[m + n :])
        step = -jnp.linalg.solve(matrix, gradient)
        moved = jnp.concatenate([slopes @ step, step, -step])
        slack_step = -residual - moved
        dual_step = (centre - dual * slack_step) / slack - dual
        length = _TO_BOUNDARY * jnp.minimum(
            _reach(slack, slack_step), _reach(dual, dual_step)
        )
        length = jnp.minimum(length, 1)
        new = (
            y + length * step,
            jnp.maximum(slack + length * slack_step, rounding),
            jnp.maximum(dual + length * dual_step, rounding),
        )
        fine = jnp.all(jnp.isfinite(jnp.concatenate(new)))
        return jax.tree.map(lambda a, b: jnp.where(fine, a, b), new, state)

    start = jnp.clip(target, low * 0.99, low * 0.01)
    slack = jnp.maximum(-constraints(start), 0.1).astype(dtype)
    dual = jnp.ones_like(slack)
    y, _, dual = jax.lax.fori_loop(0, _ITERATIONS, improve, (start, slack, dual))
    return Projection(jnp.clip(y, low, 0), dual[:m])


def _reach(value: jax.Array, step: jax.Array) -> jax.Array:
    """The length at which the first of positive numbers becomes zero."""
    return jnp.min(jnp.where(step < 0, -value / jnp.minimum(step, -1e-30), jnp.inf))
