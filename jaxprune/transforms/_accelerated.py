"""Accelerated proximal gradient (FISTA); see `jaxprune.transforms`."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxprune.base._checks import check_scalar_or_schedule
from jaxprune.prox._operators import Prox, soft_threshold
from jaxprune.transforms import _common as step_


class AcceleratedProximalState(NamedTuple):
    """State of `accelerated_proximal`.

    Attributes:
      count: steps taken, int32 scalar.
      iterate: x_t, the last result of the prox, a tree like the parameters, float32
        or wider. It holds the exact zeros; it is the solution.
      momentum: t_t >= 1 of the momentum sequence, float32 scalar; 1 after a restart.
    """

    count: jax.Array
    iterate: optax.Params
    momentum: jax.Array


def accelerated_proximal(
    prox: Prox, scaling: optax.ScalarOrSchedule = 1.0
) -> optax.GradientTransformationExtraArgs:
    """Take proximal gradient steps with Nesterov's extrapolation and restart.

        x_{k+1} = prox_{s_k g}(y_k + u_k),   t_{k+1} = (1 + sqrt(1 + 4 t_k^2)) / 2
        y_{k+1} = x_{k+1} + (t_k - 1) / t_{k+1} (x_{k+1} - x_k)

    with the incoming updates u_k, -eta times the gradient at y. The parameters are the
    points y at which gradients are wanted; the sequence x with its exact zeros is
    `state.iterate` and is the result: `optax.tree.get(state, "iterate")`. Both converge
    to the minimiser.

    The sequence starts anew (t = 1) whenever <y_k - x_{k+1}, x_{k+1} - x_k> > 0, so
    that the objective does not oscillate and no strong-convexity constant is asked for.
    For full batches: gradient noise is accelerated as well.

    Must be the last element of a chain, behind plain SGD: it brings its own momentum.

    Args:
      prox: a function `(params, scaling) -> params`, of a convex penalty.
      scaling: s_k, a scalar >= 0 or a schedule of the step.

    Returns:
      A transformation with state `AcceleratedProximalState`.

    Raises:
      ValueError: `scaling` is negative; at `init`, `prox` does not suit the parameters;
        at `update`, `params` is missing.
      TypeError: `prox` is not a function, or `scaling` not a number or schedule.

    Warns:
      UserWarning: at `init`, parameters are in float16 or bfloat16.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> from jaxprune import prox
      >>> optimizer = optax.chain(
      ...     optax.sgd(0.5), accelerated_proximal(prox.soft_threshold, 0.5)
      ... )
      >>> params = jnp.array([2.0, 1.0])  # loss: the sum of (params - 2) ** 2 / 2
      >>> state = optimizer.init(params)
      >>> updates, state = optimizer.update(params - 2.0, state, params)
      >>> optax.tree.get(state, "iterate").tolist()
      [1.5, 1.0]

    References:
      Beck and Teboulle, 2009, Eqs. (4.1)-(4.3). O'Donoghue and Candes, 2012:
      the gradient scheme, with the prox's step in place of the gradient.
    """
    step_.check_prox("accelerated_proximal", prox)
    check_scalar_or_schedule("accelerated_proximal", "scaling", scaling)

    def init(params):
        if step_.is_abstract(params):
            return jax.eval_shape(init, params)
        step_.check_result("accelerated_proximal", prox, params)
        step_.warn_low_precision("accelerated_proximal", params)
        return AcceleratedProximalState(
            count=jnp.zeros([], jnp.int32),
            iterate=step_.wide_copy(params),
            momentum=jnp.ones([], jnp.float32),
        )

    def update(updates, state, params=None, **extra_args):
        del extra_args
        params = step_.require_params("accelerated_proximal", params)
        y, x = jax.tree.map(step_.wide, params), state.iterate
        x_next = prox(step_.moved(params, updates), step_.at(scaling, state.count))
        step = jax.tree.map(jnp.subtract, x_next, x)
        turn = optax.tree.vdot(jax.tree.map(jnp.subtract, y, x_next), step)
        t = jnp.where(jnp.asarray(turn) > 0, 1.0, state.momentum)
        t_next = (1 + jnp.sqrt(1 + 4 * t**2)) / 2
        weight = (t - 1) / t_next
        y_next = jax.tree.map(lambda a, d: a + weight.astype(a.dtype) * d, x_next, step)
        return step_.updates_to(y_next, params), AcceleratedProximalState(
            count=step_.next_count(state.count),
            iterate=x_next,
            momentum=t_next.astype(jnp.float32),
        )

    return optax.GradientTransformationExtraArgs(init, update)


def fista(
    strength: optax.ScalarOrSchedule, learning_rate: optax.ScalarOrSchedule
) -> optax.GradientTransformationExtraArgs:
    """Minimise `loss + strength * |w|_1` by accelerated soft-thresholding (FISTA).

    `accelerated_proximal` with the soft threshold and s_t = lambda_t eta_t. Place it
    last in a chain, behind plain SGD; the sparse result is
    `optax.tree.get(state, "iterate")`.

    Args:
      strength: lambda_t >= 0, a scalar or a schedule; unit: loss / weight.
      learning_rate: eta_t >= 0, the optimizer's own scalar or schedule; converges for
        eta up to the inverse of the gradient's Lipschitz constant.

    Returns:
      A transformation with state `AcceleratedProximalState`.

    Raises:
      ValueError: an argument is negative.
      TypeError: an argument is neither a number nor a schedule.

    Examples:
      >>> import optax
      >>> optimizer = optax.chain(optax.sgd(0.1), fista(1e-3, 0.1))

    References:
      Beck and Teboulle, 2009, Eqs. (4.1)-(4.3).
    """
    check_scalar_or_schedule("fista", "strength", strength)
    check_scalar_or_schedule("fista", "learning_rate", learning_rate)
    return accelerated_proximal(soft_threshold, step_.product(strength, learning_rate))
