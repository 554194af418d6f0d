"""Hard limits on one or several costs by ADMM with exact projections.

The problem, for whatever variables v decide keep ratios k(v), is

    minimise L(v)   subject to   F_j(k(v)) <= B_j  for all costs j,

with F_j and B_j as fractions of the dense cost. The alternating direction method of
multipliers splits it: the optimizer of the network minimises L and a penalty that ties
k to a copy z that meets the limits, and `update` moves that copy. Nothing here knows
channels: thresholds of LTP and LATS are held to their limits by the same values.

References:
  [DSA] Ning et al., ECCV 2020, arXiv:2004.02164, Sec. 3.4.
  [ADMM] Boyd et al., "Distributed Optimization and Statistical Learning via the
  Alternating Direction Method of Multipliers", 2011.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxprune.base._checks import check_positive
from jaxprune.base._protocols import Budget, Limit
from jaxprune.budgets._admm_state import (
    AdmmState,
    coordinates,
    filled,
    judged,
    rms,
    start,
)
from jaxprune.budgets._limits import (
    check_before_training,
    checked_limits,
    costs_of_vector,
    limits_at,
)
from jaxprune.budgets._projection import project

_RHO_RANGE = (1e-6, 1e6)
_FAR = 5.0  # in log k: nothing that far is worth telling from something further
# A multiplier below this, in units of rho, is none. A larger bound takes the
# multipliers of small losses for none, and rho then stays too large for ever.
_SLACK = 1e-6
_MARGIN = 1e-3  # the projection needs limits a little above the minimum costs
_STEEPEST = 0.01  # keep ratios below have the derivative of this one
_STILL = 2e-3  # relatively, in a step: a distance that falls by less does not fall
_SMALLER = 0.6  # the factor of rho where ratios have passed z
_LOOSEST = 0.02  # -log of the limits above which all count as this one


def admm(
    limits: Limit | Iterable[Limit],
    *,
    min_keep_ratio: float | Mapping[str, float] = 1e-3,
    tolerance: float | jax.Array = 0.05,
    rate: float | jax.Array = 0.1,
    dual_rate: float | jax.Array = 0.1,
    init_rho: float | jax.Array = 1e-4,
) -> Budget:
    """Hold costs to their limits by ADMM with exact projections.

    With y = log k, a copy z that meets the limits and dual variables u, the penalty is

        u . (y - z) + (rho / 2) |y - z|^2

    and after each step of the optimizer

        z   <- the point nearest to y + u / rho with log F_j(exp z) <= log B_j
        u   <- u + dual_rate rho (y - z)
        rho <- max(rho exp(rate clip(log(rms(y - z) / t), -1/4, 3)), rms u)

    with t = tolerance clip(-log min_j B_j, 0.02, 1), because under a limit near 1 all
    keep ratios are near z. In logarithms the costs are convex, so the projection is
    unique and exact. The penalty parameter rho finds itself: it grows while the ratios
    are further from z than t, falls while they are nearer, and stays while no limit
    binds. While they approach z from further than t, by 0.2 % a step or faster, u and
    rho stay: an optimizer with steps of bounded length takes its time whatever the
    penalty, and would find both far too large when it arrives. Where a step takes the
    ratios past z and further than t, rho falls to 0.6 of itself: the optimizer's steps
    are too long for it. rho starts so small that a raw gradient step is short, and
    grows tenfold in 8 steps. So neither the scale of the loss nor that of the costs
    matters to an optimizer that normalises gradients, as Adam does; of SGD the rate
    must be one at which it minimises the loss itself.

    The task decides which groups pay, because u settles where the loss's slope in
    log k_g is in proportion to the cost's slope, with one multiplier for all. Ratios
    below 1 % have the derivative of 1 %, so that an emptied site recovers, slowly.

    Args:
      limits: one `Limit` or several, from `at_most`. In the logarithms of keep ratios
        the logarithm of a cost must be convex, as that of every polynomial with
        positive coefficients is: all costs of this library are.
      min_keep_ratio: what every site keeps at least, in (0, 1]; for all or by name.
      tolerance: how far, relatively, keep ratios may be from z, positive; t above.
      rate: how fast rho adapts, positive.
      dual_rate: how fast u follows, positive. 1 is ADMM for convex problems that are
        solved exactly at each step; after a single step of a noisy optimizer it swings
        past the limit.
      init_rho: rho at the start, in units of the loss, positive.

    Returns:
      A budget with an `AdmmState`. `init` takes keep ratios, of which only names and
      shapes count.

    Raises:
      ValueError: if a number is out of range, or two limits share a name. From `init`:
        if `min_keep_ratio` and the keep ratios have different names, or a limit, also
        at the end of its schedule, is below the cost of the minimum keep ratios.
      TypeError: if `limits` are no limits, or a cost is no function of keep ratios.

    Examples:
      >>> import jax.numpy as jnp
      >>> import jaxprune
      >>> keep = {"a": jnp.float32(1.0), "b": jnp.float32(1.0)}
      >>> cost = lambda k: (k["a"] * k["b"] + k["b"]) / 2
      >>> budget = admm(jaxprune.at_most(cost, 0.5))
      >>> state = budget.update(keep, budget.init(keep))
      >>> jaxprune.budgets.Result(int(state.result)).name, state.cost.tolist()
      ('NOT_MET', [1.0])

    References:
      [DSA] Ning et al., ECCV 2020, arXiv:2004.02164, Sec. 3.4; [ADMM] Boyd et al.,
      2011, Sec. 3.1 and 3.4.1. Logarithms, projection and the rule for rho are ours.
    """
    limits = checked_limits("admm", limits)
    for name, value in (
        ("tolerance", tolerance),
        ("rate", rate),
        ("dual_rate", dual_rate),
        ("init_rho", init_rho),
    ):
        check_positive("admm", name, value)

    def init(keep_ratios, /):
        minimum = _minimum(keep_ratios, min_keep_ratio)
        z = jnp.zeros_like(_vector(minimum))
        check_before_training("admm", limits, minimum, margin=_MARGIN)
        return start(z, init_rho, len(limits))

    def penalty(keep_ratios, state, /):
        y = _log_ratios(limits, keep_ratios, state, min_keep_ratio)[0]
        apart = y - state.z
        return jnp.sum(state.dual * apart) + state.rho / 2 * jnp.sum(apart**2)

    def update(keep_ratios, state, /):
        y, low, costs = _log_ratios(limits, keep_ratios, state, min_keep_ratio)
        limit = limits_at(limits, state.step, y.dtype)

        def log_costs(y):
            return jnp.log(costs(jnp.exp(y)))

        smallest = jnp.exp(log_costs(low)) * (1 + _MARGIN)
        # Limits are raised to what can be met, so that z stays finite.
        raised = jnp.log(jnp.maximum(limit, smallest))
        target = jnp.clip(y + state.dual / state.rho, low - _FAR, _FAR)
        nearest = project(log_costs, raised, target, low)
        apart = y - nearest.point
        distance = rms(apart) / (tolerance * _tightness(limit))
        slack = jnp.all(nearest.multipliers < _SLACK)
        dual, rho = _adapt(state, y, apart, distance, slack, rate, dual_rate)
        new = AdmmState(
            step=jnp.asarray(optax.safe_increment(state.step)),
            y=y,
            z=nearest.point,
            dual=dual,
            rho=rho,
            multipliers=state.rho * nearest.multipliers,
            cost=jnp.exp(log_costs(y)),
            limit=limit,
            primal_residual=rms(apart),
            dual_residual=state.rho * rms(nearest.point - state.z),
            result=state.result,
        )
        return judged(new, state, smallest > limit)

    return Budget(init, penalty, update)


def _tightness(limit):
    """Return how far below the dense cost the tightest limit is, in log, at most 1."""
    return jnp.clip(-jnp.log(jnp.min(limit)), _LOOSEST, 1)


def _adapt(state: AdmmState, y, apart, distance, slack, rate, dual_rate):
    """Return the dual variables and rho for the next step.

    Both are held while the ratios approach z; rho also while the limits are slack, when
    the distance says nothing about it. It falls where a step took the ratios past z.

    Args:
      state: before the step.
      y: log k after it.
      apart: y - z, with the new z.
      distance: the root mean square of `apart`, in units of the tolerance.
      slack: whether no limit binds.
      rate: how fast rho adapts.
      dual_rate: how fast the dual variables follow.
    """
    far = (distance > 1) & ~slack
    approaching = far & (rms(apart) < (1 - _STILL) * state.primal_residual)
    passed = far & (jnp.sum((y - state.z) * (state.y - state.z)) < 0)
    dual = state.dual + jnp.where(approaching, 0, dual_rate * state.rho * apart)
    rho = state.rho * jnp.exp(rate * jnp.clip(jnp.log(distance + 1e-9), -0.25, 3))
    rho = jnp.where(slack | approaching, state.rho, rho)
    rho = jnp.where(passed, _SMALLER * state.rho, rho)
    lowest = jnp.maximum(rms(dual), _RHO_RANGE[0])
    return dual, jnp.clip(rho, lowest, _RHO_RANGE[1])


def _minimum(keep_ratios: Mapping[str, Any], given: Any) -> dict[str, np.ndarray]:
    """Return the minimum keep ratios, of the shapes of the keep ratios."""
    if not keep_ratios:
        raise ValueError(
            "`admm(...).init(keep_ratios)`: there are no keep ratios to hold to a "
            "limit. Give those of a method that has some, such as `ltp` or `dsa`."
        )
    by_name: dict[str, Any] = dict.fromkeys(keep_ratios, given)
    if isinstance(given, Mapping):
        by_name = dict(given)
    if by_name.keys() != keep_ratios.keys():
        raise ValueError(
            "`admm(min_keep_ratio=...)`: must name every site of the keep ratios, "
            f"{sorted(keep_ratios)}; got {sorted(by_name)}."
        )
    for name, value in by_name.items():
        if not 0 < value <= 1:
            raise ValueError(
                f"`admm(min_keep_ratio={value})`: must be in (0, 1], here of {name!r}; "
                "the logarithm of a keep ratio is what is projected."
            )
    below_one = {name: min(value, 1 - 1e-6) for name, value in by_name.items()}
    return filled(keep_ratios, below_one)


def _vector(keep_ratios: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return arrays of NumPy as one, by sorted name."""
    return np.concatenate([np.ravel(keep_ratios[name]) for name in sorted(keep_ratios)])


def _log_ratios(limits, keep_ratios, state: AdmmState, min_keep_ratio):
    """Return y = log k, the minimum of y, and the costs as a function of k.

    A keep ratio below a tenth of its minimum counts as that, with the derivative
    1 / max(k, 0.01). So an emptied site has a gradient, and recovers slowly:
    thresholds that are moved by the derivative as it is would be thrown out of reach.
    """
    ratios, sizes, ratios_of = coordinates("admm", keep_ratios, state.z.size)
    minimum = _vector(_minimum(keep_ratios, min_keep_ratio)).astype(ratios.dtype)
    still = jax.lax.stop_gradient(ratios)
    moved = (ratios - still) / jnp.maximum(still, _STEEPEST)
    y = jnp.log(jnp.maximum(still, minimum / 10)) + moved
    return y, jnp.log(minimum), costs_of_vector(limits, sizes, ratios_of)
