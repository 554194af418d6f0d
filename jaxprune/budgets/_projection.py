"""Projection of the logarithms of keep ratios onto limits.

A cost of channels is a sum of products of keep ratios, each with a positive factor: a
posynomial. So with y = log k every log F_j(exp y) is convex, the set of y that meet the
limits is convex, and the nearest of them is unique:

    minimise   |y - y_0|^2 / 2
    subject to log F_j(exp y) <= log B_j  for all j,   low <= y <= 0

It is found by a primal-dual interior-point method. In keep ratios themselves the set is
not convex, as a product of two shows.

The Hessian of the Lagrangian is never formed: the Newton equations are solved by
conjugate gradients, with products of the Hessian and a vector. Since the costs have
positive coefficients, the sums of its rows bound it from above, which makes them a good
preconditioner. So memory, work and the compiled program grow with the costs and the
number of keep ratios, not with its square.

References:
  [GP] Boyd, Kim, Vandenberghe, Hassibi, "A tutorial on geometric programming", 2007.
  [CO] Boyd, Vandenberghe, "Convex Optimization", 2004, Sec. 11.7.
  [NO] Nocedal, Wright, "Numerical Optimization", 2006, Alg. 5.3 (preconditioned
  conjugate gradients), Sec. 16.2 (Schur complements).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

_ITERATIONS = 40
_CG_ITERATIONS = 60
_CENTRING = 0.15
_TO_BOUNDARY = 0.98


class Projection(NamedTuple):
    """Hold the nearest point that meets the limits.

    Attributes:
      point: y, shape (n,).
      multipliers: of the costs, shape (m,), not negative.
    """

    point: jax.Array
    multipliers: jax.Array


class _Constraints(NamedTuple):
    """Hold one number for each constraint.

    Attributes:
      cost: of log F_j(y) - log B_j <= 0, shape (m,).
      upper: of y <= 0, shape (n,).
      lower: of low - y <= 0, shape (n,).
    """

    cost: jax.Array
    upper: jax.Array
    lower: jax.Array


class _Iterate(NamedTuple):
    """Hold the primal and dual variables of the interior-point method.

    Attributes:
      y: shape (n,).
      slack: positive; minus the constraints when these are met.
      dual: positive, the Lagrange multipliers.
    """

    y: jax.Array
    slack: _Constraints
    dual: _Constraints


def project(
    log_costs: Callable[[jax.Array], jax.Array],
    log_limits: jax.Array,
    target: jax.Array,
    low: jax.Array,
) -> Projection:
    """Return the point nearest to `target` that meets the limits.

    Args:
      log_costs: `y -> log F(exp y)`, shape (n,) to (m,), convex and not decreasing.
      log_limits: log B, shape (m,). There must be a y >= low that meets all of them
        with a margin; otherwise the result is somewhere near `low`.
      target: y_0, shape (n,).
      low: the smallest y, shape (n,), negative.

    Returns:
      y, and the multiplier of every cost. y meets the limits to the rounding of the
      dtype of `target`.
    """
    rounding = jnp.finfo(target.dtype).eps  # smaller slacks would be noise

    def constraints(y):
        return _Constraints(log_costs(y) - log_limits, y, low - y)

    def unfinished(carry):
        at, length, iteration = carry
        gaps = jax.tree.map(lambda s, d: jnp.max(s * d), at.slack, at.dual)
        open_ = (jnp.max(jnp.stack(gaps)) > 16 * rounding) | (length < 0.9)
        return (iteration < _ITERATIONS) & open_

    def improve(carry):
        at, _, iteration = carry
        new, length = _newton(log_costs, constraints, target, at)
        fine = jnp.all(
            jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(new)])
        )
        new = jax.tree.map(lambda a, b: jnp.where(fine, a, b), new, at)
        return new, length, iteration + 1

    y = jnp.clip(target, low * 0.99, low * 0.01)
    slack = jax.tree.map(lambda c: jnp.maximum(-c, 0.1), constraints(y))
    start = _Iterate(y, slack, jax.tree.map(jnp.ones_like, slack))
    carry = start, jnp.zeros([], target.dtype), jnp.zeros([], jnp.int32)
    at = jax.lax.while_loop(unfinished, improve, carry)[0]
    return Projection(jnp.clip(at.y, low, 0), at.dual.cost)


def _newton(log_costs, constraints, target, at: _Iterate) -> tuple[_Iterate, jax.Array]:
    """Take one primal-dual step, [CO] Sec. 11.7.1; return its length too.

    Slacks and multipliers are eliminated. What is left of the bounds is diagonal; the
    multipliers of the costs are found from their Schur complement, so that no large
    weight of a limit that is met exactly spoils the rest.
    """
    y, slack, dual = at
    rounding = jnp.finfo(y.dtype).eps
    residual = jax.tree.map(jnp.add, constraints(y), slack)
    gap = jnp.mean(jnp.concatenate(jax.tree.map(jnp.multiply, slack, dual)))
    centre = jnp.maximum(_CENTRING * gap, 4 * rounding)

    weight = jax.tree.map(jnp.divide, dual, slack)
    force = jax.tree.map(lambda w, r, s: w * r + centre / s, weight, residual, slack)
    slopes = jax.jacrev(log_costs)(y)
    product = _hessian_product(log_costs, y, dual.cost)
    diagonal = 1 + weight.upper + weight.lower
    # For positive coefficients, sums of rows bound the Hessian of F_j / F_j.
    rows = product(jnp.ones_like(y)) + (dual.cost * slopes.sum(1)) @ slopes
    right = jnp.concatenate([(y - target + force.upper - force.lower)[None], slopes])
    bound = jnp.maximum(rows, 0)
    solved = jax.vmap(lambda r: _solve(product, diagonal, bound, r))(right)
    schur = jnp.diag(slack.cost / dual.cost) + slopes @ solved[1:].T
    moved = residual.cost + centre / dual.cost - slopes @ solved[0]
    multipliers = jnp.linalg.solve(schur, moved)
    step = -solved[0] - multipliers @ solved[1:]

    change = _Constraints(slopes @ step, step, -step)
    slack_step = jax.tree.map(lambda r, c: -r - c, residual, change)
    dual_step = jax.tree.map(
        lambda s, d, ds: (centre - d * ds) / s - d, slack, dual, slack_step
    )
    # Those of the costs are known; the slack of a limit that binds is mostly rounding.
    dual_step = dual_step._replace(cost=multipliers - dual.cost)
    reach = jnp.minimum(_reach(slack, slack_step), _reach(dual, dual_step))
    length = jnp.minimum(_TO_BOUNDARY * reach, 1)
    new_slack, new_dual = (
        jax.tree.map(lambda a, b: jnp.maximum(a + length * b, rounding), old, change)
        for old, change in ((slack, slack_step), (dual, dual_step))
    )
    return _Iterate(y + length * step, new_slack, new_dual), length


def _hessian_product(log_costs, y, multipliers) -> Callable[[jax.Array], jax.Array]:
    """Return `v -> H v` with H the Hessian of sum_j multipliers_j log F_j."""
    slope = jax.grad(lambda y: jnp.sum(multipliers * log_costs(y)))
    return jax.linearize(slope, y)[1]


def _solve(product, diagonal, bound, right: jax.Array) -> jax.Array:
    """Solve (diag(diagonal) + H) x = right, shapes (n,), by conjugate gradients.

    [NO] Alg. 5.3; `diagonal + bound` is the preconditioner.
    """
    inverse = 1 / (diagonal + bound)
    size = jnp.sum(right * inverse * right)
    goal = size * jnp.finfo(right.dtype).eps ** 1.5

    def unfinished(carry):
        return (carry[4] < _CG_ITERATIONS) & (carry[3] > goal)

    def improve(carry):
        x, rest, direction, size, iteration = carry
        image = diagonal * direction + product(direction)
        length = size / jnp.sum(direction * image)
        x, rest = x + length * direction, rest - length * image
        new = jnp.sum(rest * inverse * rest)
        direction = inverse * rest + new / size * direction
        return x, rest, direction, new, iteration + 1

    start = jnp.zeros_like(right), right, inverse * right, size, jnp.int32(0)
    return jax.lax.while_loop(unfinished, improve, start)[0]


def _reach(value: Any, step: Any) -> jax.Array:
    """Return the length at which the first of positive numbers becomes zero."""
    ends = jax.tree.map(
        lambda v, s: jnp.min(jnp.where(s < 0, -v / jnp.minimum(s, -1e-30), jnp.inf)),
        value,
        step,
    )
    return jnp.min(jnp.stack(ends))
