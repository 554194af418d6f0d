"""The alternation of the DSA paper, for comparison with `admm`.

References:
  [DSA] Ning et al., ECCV 2020, arXiv:2004.02164, Sec. 3.4, Algorithm 1.
"""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
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

_CALL = "admm_as_published"
_MINIMUM = 1e-6


def admm_as_published(
    limits: Limit | Iterable[Limit],
    *,
    unit: float | jax.Array = 100.0,
    rho1: float | jax.Array = 0.01,
    rho2: float | jax.Array = 0.01,
    loss_scale: float | jax.Array = 1e5,
    inner_steps: int = 50,
    inner_rate: float | jax.Array = 1e-3,
) -> Budget:
    """Hold costs to limits by the alternation of the DSA paper; prefer `admm`.

    With theta = logit k, excess e_j = [F_j(sigmoid z) - B_j]_+ and dual variables u_1,
    u_2 the penalty is (u_2 . (theta - z) + (rho_2 / 2) |theta - z|^2) / loss_scale, and
    an update takes `inner_steps` times

        z   <- z - inner_rate d/dz (u_1 . e + (rho_1 / 2) |e|^2
                                    + u_2 . (theta - z) + (rho_2 / 2) |theta - z|^2)
        u_1 <- u_1 + rho_1 e

    and then u_2 <- u_2 + rho_2 (theta - z). At the first step z is theta.

    The paper gives neither the unit of F nor the rate of theta. F is taken in units of
    the dense cost divided by `unit`: 100 is near the 82 million FLOPs of ResNet-20.

    Args:
      limits: one `Limit` or several, from `at_most`.
      unit: what the dense cost is measured as, positive.
      rho1: weight of the squared excess, and step of u_1, positive.
      rho2: weight of the squared distance, and step of u_2, positive.
      loss_scale: what the loss would be multiplied with, positive.
      inner_steps: the number of steps of z in an update.
      inner_rate: step size of z, positive.

    Returns:
      A budget with an `AdmmState`: `rho` is rho_2, `dual` u_2, `multipliers` u_1.

    Raises:
      ValueError: if a number is out of range, or two limits share a name. From `init`:
        if a limit, also at the end of its schedule, is below the cost of an empty
        network.
      TypeError: if `limits` are no limits, or a cost is no function of keep ratios.

    Examples:
      >>> import jaxprune
      >>> keep = {"a": jnp.float32(0.9)}
      >>> budget = admm_as_published(jaxprune.at_most(lambda k: k["a"], 0.5))
      >>> state = budget.update(keep, budget.init(keep))
      >>> [round(float(x), 4) for x in (state.cost[0], state.multipliers[0])]
      [0.9, 8.1779]

    References:
      [DSA] Ning et al., ECCV 2020, arXiv:2004.02164, Sec. 3.4, Algorithm 1.
    """
    limits = checked_limits(_CALL, limits)
    for name, value in (
        ("unit", unit),
        ("rho1", rho1),
        ("rho2", rho2),
        ("loss_scale", loss_scale),
        ("inner_steps", inner_steps),
        ("inner_rate", inner_rate),
    ):
        check_positive(_CALL, name, value)

    def init(keep_ratios, /):
        minimum = filled(keep_ratios, dict.fromkeys(keep_ratios, _MINIMUM))
        z = jnp.zeros_like(coordinates(_CALL, minimum).vector)
        check_before_training(_CALL, limits, minimum)
        return start(z, rho2, len(limits))

    def coupling(apart, dual):
        return jnp.sum(dual * apart) + rho2 / 2 * jnp.sum(apart**2)

    def penalty(keep_ratios, state, /):
        theta, z, _ = _logits(limits, keep_ratios, state)
        return coupling(theta - z, state.dual) / loss_scale

    def update(keep_ratios, state, /):
        theta, first, costs = _logits(limits, keep_ratios, state)
        limit = limits_at(limits, state.step, theta.dtype)

        def costs_at(z):
            return costs(jax.nn.sigmoid(z))

        def excess(z):
            return jnp.maximum(costs_at(z) - limit, 0) * unit

        def inner(z, multipliers):
            over = excess(z)
            lagrangian = jnp.sum(multipliers * over) + rho1 / 2 * jnp.sum(over**2)
            return lagrangian + coupling(theta - z, state.dual)

        def alternate(_, carry):
            z, multipliers = carry
            z -= inner_rate * jax.grad(inner)(z, multipliers)
            return z, multipliers + rho1 * excess(z)

        z, multipliers = jax.lax.fori_loop(
            0, inner_steps, alternate, (first, state.multipliers)
        )
        new = AdmmState(
            step=jnp.asarray(optax.safe_increment(state.step)),
            y=theta,
            z=z,
            dual=state.dual + rho2 * (theta - z),
            rho=state.rho,
            multipliers=multipliers,
            cost=costs_at(theta),
            limit=limit,
            primal_residual=rms(theta - z),
            dual_residual=rho2 * rms(z - first),
            result=state.result,
        )
        return judged(new, state)

    return Budget(init, penalty, update)


def _logits(limits, keep_ratios, state: AdmmState):
    """Return theta, the z to start from, and the costs as a function of k."""
    ratios, sizes, ratios_of = coordinates(_CALL, keep_ratios, state.z.size)
    ratios = jnp.clip(ratios, _MINIMUM, 1 - _MINIMUM)
    theta = jnp.log(ratios) - jnp.log1p(-ratios)
    z = jnp.where(state.step == 0, jax.lax.stop_gradient(theta), state.z)
    return theta, z, costs_of_vector(limits, sizes, ratios_of)
