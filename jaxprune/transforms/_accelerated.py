"""Accelerated proximal gradient (FISTA); see `jaxprune.transforms`."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxprune import tree
from jaxprune.base._checks import check_scalar_or_schedule
from jaxprune.prox._operators import Prox, soft_threshold
from jaxprune.transforms import _arguments as checks
from jaxprune.transforms import _size as size_
from jaxprune.transforms import _steps as step_
from jaxprune.transforms import _watch as watch_
from jaxprune.transforms._selection import hold, merge, only, selection


class AcceleratedProximalState(NamedTuple):
    """State of `accelerated_proximal` and `fista`.

    Attributes:
      count: steps taken, int32 scalar.
      iterate: x_t, the last result of the prox, a tree like the parameters, float32 or
        wider; `optax.MaskedNode` in the place of leaves that are not selected. It holds
        the exact zeros; it is the solution.
      momentum: t_t >= 1 of the momentum sequence, float32 scalar; 1 after a restart.
      watch: a `Watch` of the exact parameters; see `jaxprune.check`.
    """

    count: jax.Array
    iterate: optax.Params
    momentum: jax.Array
    watch: watch_.Watch


def accelerated_proximal(
    prox: Prox,
    scaling: optax.ScalarOrSchedule = 1.0,
    *,
    where: tree.Where | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Take proximal gradient steps with Nesterov's extrapolation and restart.

        x_{k+1} = prox_{s_k g}(y_k + u_k),   t_{k+1} = (1 + sqrt(1 + 4 t_k^2)) / 2
        y_{k+1} = x_{k+1} + (t_k - 1) / t_{k+1} (x_{k+1} - x_k)

    with the incoming updates u_k, -eta times the gradient at y. The parameters are the
    points y at which gradients are wanted; the sequence x with its exact zeros is
    `state.iterate` and is the result, which `jaxprune.finalize` returns. Both converge
    to the minimum.

    The sequence starts anew (t = 1) whenever <y_k - x_{k+1}, x_{k+1} - x_k> > 0, so
    that the objective does not oscillate and no strong-convexity constant is needed.
    For full batches: gradient noise is accelerated as well.

    Must be the last element of a chain, behind plain SGD: it brings its own momentum.

    Args:
      prox: a function `(params, scaling) -> params`, of a convex penalty. It is given
        the selected leaves, and `optax.MaskedNode` for the others.
      scaling: s_k, a scalar >= 0 or a schedule of the step.
      where: the leaves that take these steps, see `jaxprune.tree`; None selects the
        kernels, True all leaves. The updates of the others pass unchanged.

    Returns:
      A transformation with state `AcceleratedProximalState`.

    Raises:
      ValueError: `scaling` is negative; at `init`, nothing is selected or `prox` does
        not suit the parameters; at `update`, `params` is missing.
      TypeError: `prox` is not a function, or `scaling` not a number or schedule.

    Warns:
      UserWarning: at `init`, selected parameters are in float16 or bfloat16.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> from jaxprune import prox
      >>> optimizer = optax.chain(
      ...     optax.sgd(0.5), accelerated_proximal(prox.soft_threshold, 0.5, where=True)
      ... )
      >>> params = jnp.array([2.0, 1.0])  # loss: the sum of (params - 2) ** 2 / 2
      >>> state = optimizer.init(params)
      >>> updates, state = optimizer.update(params - 2.0, state, params)
      >>> optax.tree.get(state, "iterate").tolist()
      [1.5, 1.0]

    References:
      Beck and Teboulle, 2009, Eqs. (4.1)-(4.3). O'Donoghue and Candes, Adaptive Restart
      for Accelerated Gradient Schemes, arXiv:1204.3982, 2012: the gradient scheme, with
      the prox's step in place of the gradient.
    """
    checks.check_prox("accelerated_proximal", prox)
    check_scalar_or_schedule("accelerated_proximal", "scaling", scaling)
    return _accelerated("accelerated_proximal", prox, scaling, where)


def _accelerated(call, prox, scaling, where):
    """Return the accelerated transformation under the name of the function called."""

    def init(params):
        if checks.is_abstract(params):
            return jax.eval_shape(init, params)
        whole = params
        params = only(selection(call, params, where), params)
        checks.check_result(call, prox, params)
        checks.warn_low_precision(call, params)
        varying = size_.zero_like(jax.tree.leaves(params))
        return AcceleratedProximalState(
            count=jnp.zeros([], jnp.int32),
            iterate=hold(whole, where, step_.wide_copy(params)),
            momentum=jnp.ones_like(varying, jnp.float32),
            watch=watch_.begin(watch_.checksum(params), selected=params),
        )

    def update(updates, state, params=None, **extra_args):
        del extra_args
        params = checks.require_params(call, params)
        watch_.check_whole(call, params, state.watch)
        chosen, whole = selection(call, params, where), params
        params = only(chosen, params)
        moved = hold(whole, where, step_.moved(params, only(chosen, updates)))
        y, x = jax.tree.map(step_.wide, params), state.iterate
        x_next = prox(moved, step_.at(scaling, state.count))
        step = jax.tree.map(jnp.subtract, x_next, x)
        # Not a dot product: leaves may be sharded over explicit axes.
        turns = jax.tree.map(lambda a, b, d: jnp.sum((a - b) * d), y, x_next, step)
        turn = sum(jax.tree.leaves(turns), jnp.zeros([], jnp.float32))
        t = jnp.where(turn > 0, 1.0, state.momentum)
        t_next = (1 + jnp.sqrt(1 + 4 * t**2)) / 2
        weight = (t - 1) / t_next
        y_next = jax.tree.map(lambda a, d: a + weight.astype(a.dtype) * d, x_next, step)
        steps = step_.updates_to(y_next, params)
        watch = watch_.proceed_with(state.watch, params, steps)
        return merge(chosen, steps, updates), AcceleratedProximalState(
            count=step_.next_count(state.count),
            iterate=x_next,
            momentum=t_next.astype(jnp.float32),
            watch=watch,
        )

    return optax.GradientTransformationExtraArgs(init, update)


def fista(
    strength: optax.ScalarOrSchedule,
    learning_rate: optax.ScalarOrSchedule,
    *,
    where: tree.Where | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Minimise `loss + strength * |w|_1` by accelerated soft-thresholding (FISTA).

        x_{k+1} = S(y_k + u_k, lambda_k eta_k),   y: see `accelerated_proximal`

    Place it last in a chain, behind plain SGD; `jaxprune.finalize` returns the
    sparse result x.

    Args:
      strength: lambda_t >= 0, a scalar or a schedule; unit: loss / weight.
      learning_rate: eta_t >= 0, the optimizer's own scalar or schedule; converges for
        eta up to the inverse of the gradient's Lipschitz constant.
      where: the leaves that are penalised; None selects the kernels.

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
    scaling = step_.product(strength, learning_rate)
    return _accelerated("fista", soft_threshold, scaling, where)
