"""Budgets that hold one or several costs to hard limits by ADMM.

The problem, for whatever variables v decide keep ratios k(v), is

    minimise L(v)   subject to   F_j(k(v)) <= B_j  for all costs j,

with F_j and B_j as fractions of the dense cost. The alternating direction method of
multipliers splits it: the optimizer of the network minimises L and a penalty that ties
k to a point that is affordable, and `update` moves that point. Nothing here knows
channels: thresholds of LTP and LATS are held to their budgets by the same values.

References:
  [DSA] Ning et al., ECCV 2020, arXiv:2004.02164, Sec. 3.4.
  [ADMM] Boyd et al., "Distributed Optimization and Statistical Learning via the
  Alternating Direction Method of Multipliers", 2011.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

from jaxprune.base._protocols import Budget, Cost, KeepRatios
from jaxprune.budgets._limits import AdmmState as AdmmState
from jaxprune.budgets._limits import (
    check_feasible,
    check_positive,
    coordinates,
    judged,
    least_ratios,
    limits_at,
    paired,
    rms,
    start,
)
from jaxprune.budgets._projection import project

_STIFFNESS_RANGE = (1e-6, 1e6)
_FAR = 5.0  # in log k: nothing that far is worth telling from something further
_SLACK = 1e-4
_ROOM = 1e-3


def admm(
    costs: Cost | Mapping[str, Cost],
    limits: optax.ScalarOrSchedule | Mapping[str, optax.ScalarOrSchedule],
    like: KeepRatios,
    *,
    min_keep_ratio: float | Mapping[str, float] = 1e-3,
    tolerance: float = 0.05,
    rate: float = 0.1,
    dual_rate: float = 0.1,
    init_stiffness: float = 1.0,
) -> Budget:
    """Holds costs to their limits by ADMM with exact projections.

    With y = log k, an affordable point z and multipliers u, the penalty is

        u . (y - z) + (rho / 2) |y - z|^2

    and after each step of the optimizer

        z   <- the point nearest to y + u / rho with log F_j(exp z) <= log B_j
        u   <- u + dual_rate rho (y - z)
        rho <- max(rho exp(rate clip(log(rms(y - z) / tolerance), -1/4, 1)), rms u)

    In logarithms the costs are convex, so the projection is unique and exact. The
    stiffness rho finds itself: it grows while the ratios are further from z than the
    tolerance, 5 %, falls while they are nearer, and stays while no limit binds; so
    neither the scale of the loss nor that of the costs matters. The task decides which
    groups pay, because u settles where the loss's slope in log k_g is in proportion to
    the cost's slope, one price for all. Ratios below 1 % have the derivative of 1 %, so
    that a site that was emptied is pulled back, and gently.

    Args:
      costs: `keep_ratios -> fraction of the dense cost`, or several by name.
      limits: the most each may be, in (0, 1]; a number or a schedule of the step; by
        the same names if there are several.
      like: keep ratios with the names and shapes that the pruner gives, possibly
        abstract.
      min_keep_ratio: what every site keeps at the least, in (0, 1); for all or by name.
      tolerance: how far, relatively, ratios may be from the affordable point.
      rate: how fast the stiffness adapts, positive.
      dual_rate: how fast the multipliers follow, positive. 1 is ADMM for convex
        problems that are solved exactly at each step; after a single step of a noisy
        optimizer it swings past the limit.
      init_stiffness: rho at the start, in units of the loss, positive.

    Returns:
      A budget with an `AdmmState`. `Result.INFEASIBLE` says that the limits are below
      the cost of the least keep ratios.

    Raises:
      ValueError: if names differ, a number for a limit is outside (0, 1] or below the
        least cost, or a rate is not positive.

    >>> import jax.numpy as jnp
    >>> from jaxprune.budgets import Result
    >>> keep = {"a": jnp.float32(1.0), "b": jnp.float32(1.0)}
    >>> cost = lambda k: (k["a"] * k["b"] + k["b"]) / 2
    >>> budget = admm(cost, 0.5, keep)
    >>> state = budget.update(keep, budget.init())
    >>> Result(int(state.result)).name, state.cost.tolist()
    ('NOT_YET_MET', [1.0])
    """
    call = "admm"
    names, functions, bounds = paired(call, costs, limits)
    for name, value in (
        ("tolerance", tolerance),
        ("rate", rate),
        ("dual_rate", dual_rate),
        ("init_stiffness", init_stiffness),
    ):
        check_positive(call, name, value)
    space = coordinates(like)
    low = jnp.log(least_ratios(call, like, min_keep_ratio))

    def log_costs(y):
        ratios = space.ratios_of(jnp.exp(y))
        return jnp.log(jnp.stack([function(ratios) for function in functions]))

    # The projection needs room: the limits must be a little above the least costs.
    least = jnp.exp(log_costs(low)) * (1 + _ROOM)
    floor = jnp.exp(low) / 10
    check_feasible(call, names, bounds, least)

    def init():
        return start(jnp.zeros_like(low), init_stiffness, len(names))

    def penalty(keep_ratios, state, /):
        apart = space.log_of(keep_ratios, floor) - state.point
        return jnp.sum(state.pull * apart) + state.stiffness / 2 * jnp.sum(apart**2)

    def update(keep_ratios, state, /):
        y = space.log_of(keep_ratios, floor)
        limit = limits_at(bounds, state.step, y.dtype)
        target = jnp.clip(y + state.pull / state.stiffness, low - _FAR, _FAR)
        # The limits are widened to what can be met, so that the point stays finite.
        wide = jnp.log(jnp.maximum(limit, least))
        nearest = project(log_costs, wide, target, low)
        apart = y - nearest.point
        violation = jnp.log(rms(apart) / tolerance + 1e-9)
        pull = state.pull + dual_rate * state.stiffness * apart
        stiffness = state.stiffness * jnp.exp(rate * jnp.clip(violation, -0.25, 1))
        # While the limits are slack nothing pulls, which says nothing of stiffness.
        slack = jnp.all(nearest.multipliers < _SLACK)
        stiffness = jnp.where(slack, state.stiffness, stiffness)
        low_end = jnp.maximum(rms(pull), _STIFFNESS_RANGE[0])
        new = AdmmState(
            step=jnp.asarray(optax.safe_increment(state.step)),
            point=nearest.point,
            pull=pull,
            stiffness=jnp.clip(stiffness, low_end, _STIFFNESS_RANGE[1]),
            multipliers=state.stiffness * nearest.multipliers,
            cost=jnp.exp(log_costs(y)),
            limit=limit,
            primal_residual=rms(apart),
            dual_residual=state.stiffness * rms(nearest.point - state.point),
            result=state.result,
        )
        return judged(new, state, least)

    return Budget(init, penalty, update)


def admm_as_published(
    costs: Cost | Mapping[str, Cost],
    limits: optax.ScalarOrSchedule | Mapping[str, optax.ScalarOrSchedule],
    like: KeepRatios,
    *,
    unit: float = 100.0,
    rho1: float = 0.01,
    rho2: float = 0.01,
    loss_scale: float = 1e5,
    inner_steps: int = 50,
    inner_rate: float = 1e-3,
) -> Budget:
    """The alternation of the DSA paper, for comparison; prefer `admm`.

    With theta = logit k, excess e_j = [F_j(sigmoid z) - B_j]_+ and multipliers u_1, u_2
    the penalty is (u_2 . (theta - z) + (rho_2 / 2) |theta - z|^2) / loss_scale, and an
    update takes `inner_steps` times

        z   <- z - rate d/dz (u_1 . e + (rho_1 / 2) |e|^2
                              + u_2 . (theta - z) + (rho_2 / 2) |theta - z|^2)
        u_1 <- u_1 + rho_1 e

    and then u_2 <- u_2 + rho_2 (theta - z).           [DSA] Sec. 3.4, Algorithm 1

    The paper gives neither the unit of F nor the rate of theta. F is taken in units of
    the dense cost divided by `unit`: 100 is near the 82 million FLOPs of ResNet-20.

    Args:
      costs: as for `admm`.
      limits: as for `admm`.
      like: keep ratios at the start, of the pruner; values count.
      unit: what the dense cost is measured as.
      rho1: weight of the squared excess, and step of u_1.
      rho2: weight of the squared distance, and step of u_2.
      loss_scale: what the loss would be multiplied with.
      inner_steps: of z.
      inner_rate: of z.

    Returns:
      A budget with an `AdmmState`, `stiffness` being rho_2.

    Raises:
      ValueError: as `admm`.
    """
    call = "admm_as_published"
    names, functions, bounds = paired(call, costs, limits)
    for name, value in (
        ("unit", unit),
        ("rho1", rho1),
        ("rho2", rho2),
        ("loss_scale", loss_scale),
        ("inner_rate", inner_rate),
        ("inner_steps", inner_steps),
    ):
        check_positive(call, name, value)
    space = coordinates(like)

    def costs_at(point):
        ratios = space.ratios_of(jax.nn.sigmoid(point))
        return jnp.stack([function(ratios) for function in functions])

    def init():
        return start(space.logit_of(like), rho2, len(names))

    def coupling(theta, point, pull):
        apart = theta - point
        return jnp.sum(pull * apart) + rho2 / 2 * jnp.sum(apart**2)

    def penalty(keep_ratios, state, /):
        theta = space.logit_of(keep_ratios)
        return coupling(theta, state.point, state.pull) / loss_scale

    def update(keep_ratios, state, /):
        theta = space.logit_of(keep_ratios)
        limit = limits_at(bounds, state.step, theta.dtype)

        def excess(point):
            return jnp.maximum(costs_at(point) - limit, 0) * unit

        def inner(point, multipliers):
            over = excess(point)
            priced = jnp.sum(multipliers * over) + rho1 / 2 * jnp.sum(over**2)
            return priced + coupling(theta, point, state.pull)

        def alternate(_, carry):
            point, multipliers = carry
            point -= inner_rate * jax.grad(inner)(point, multipliers)
            return point, multipliers + rho1 * excess(point)

        carry = state.point, state.multipliers
        point, multipliers = jax.lax.fori_loop(0, inner_steps, alternate, carry)
        new = AdmmState(
            step=jnp.asarray(optax.safe_increment(state.step)),
            point=point,
            pull=state.pull + rho2 * (theta - point),
            stiffness=state.stiffness,
            multipliers=multipliers,
            cost=costs_at(theta),
            limit=limit,
            primal_residual=rms(theta - point),
            dual_residual=rho2 * rms(point - state.point),
            result=state.result,
        )
        return judged(new, state, jnp.zeros_like(limit))

    return Budget(init, penalty, update)
