"""Proximal steps as optax transformations: ISTA, FISTA and latent weights.

A prox (`jaxprune.prox`) is applied to the weights after every optimizer step, so that
pruned weights are exactly zero while training goes on. Three ways:

======================  ===================================================
`proximal`              last in a chain: the weights themselves are moved
`accelerated_proximal`  the same with Nesterov's extrapolation and restart
`latent_proximal`       around an optimizer: dense latent weights are moved,
                        the network holds their prox; pruned weights keep
                        learning and may return
======================  ===================================================

`ista` and `fista` are the first two with the soft threshold, that is, with an L1
penalty. Behind Adam use `preconditioned_proximal` or `adam_ista`: their fixed point is
the L1 minimiser, which that of the plain form is not.

>>> import optax
>>> optimizer = optax.chain(optax.sgd(0.1, 0.9), ista(1e-4, 0.1, momentum=0.9))

To leave leaves alone, wrap in `optax.masked`. Under `optax.inject_hyperparams` name
`prox` (and `initialize`, `preconditioner`) in `static_args`: functions that are no
schedules.

======  ===============  ============================================
symbol  here             meaning
======  ===============  ============================================
s_t     `scaling`        scaling of the prox at step t = 0, 1, ...
lambda  `strength`       coefficient of the L1 norm in the loss
eta_t   `learning_rate`  that of the optimizer in front, at step t
mu      `momentum`       decay of its heavy-ball or Nesterov momentum
======  ===============  ============================================

References:
  Beck and Teboulle, A Fast Iterative Shrinkage-Thresholding Algorithm for Linear
  Inverse Problems, SIAM J. Imaging Sciences, 2009.
  O'Donoghue and Candes, Adaptive Restart for Accelerated Gradient Schemes,
  arXiv:1204.3982, 2012.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxprune.base._checks import check_momentum, check_scalar_or_schedule
from jaxprune.prox._operators import Prox, soft_threshold
from jaxprune.transforms import _common as step_
from jaxprune.transforms._accelerated import (
    AcceleratedProximalState as AcceleratedProximalState,
)
from jaxprune.transforms._accelerated import (
    accelerated_proximal as accelerated_proximal,
)
from jaxprune.transforms._accelerated import fista as fista
from jaxprune.transforms._preconditioned import (
    PreconditionedProximalState as PreconditionedProximalState,
)
from jaxprune.transforms._preconditioned import adam_ista as adam_ista
from jaxprune.transforms._preconditioned import (
    adam_preconditioner as adam_preconditioner,
)
from jaxprune.transforms._preconditioned import (
    preconditioned_proximal as preconditioned_proximal,
)


class ProximalState(NamedTuple):
    """State of `proximal`.

    Attributes:
      count: steps taken, int32 scalar.
      zeros: exact zeros among the parameters that the last step asked for, int32
        scalar.
      misplaced: bool scalar, True once parameters came back with fewer zeros than the
        step before had asked for: something changed the updates behind this
        transformation, which must be the last of its chain (or the parameters were
        reset without a new `init`). It stays True.
    """

    count: jax.Array
    zeros: jax.Array
    misplaced: jax.Array


def proximal(
    prox: Prox, scaling: optax.ScalarOrSchedule = 1.0
) -> optax.GradientTransformationExtraArgs:
    """Move the parameters to the prox of where the chain so far would move them.

        w_{t+1} = prox_{s_t g}(w_t + u_t)

    with the incoming updates u_t. The minimiser of `loss + lambda * g` is a fixed point
    behind gradient descent when s_t = lambda eta_t.

    Must be the **last** element of a chain: an optimizer behind it would rescale its
    updates. That cannot be seen when the chain is built; it is seen one step later and
    kept in the state (`optax.tree.get(state, "misplaced")`), for every prox that makes
    zeros.

    Args:
      prox: a function `(params, scaling) -> params` such as those of `jaxprune.prox`.
      scaling: s_t, a scalar >= 0 or a schedule of the step (t = 0 at the first update),
        given to `prox` as its second argument.

    Returns:
      A transformation with state `ProximalState`. Its updates have the dtypes of the
      parameters; entries that the prox sets to zero are exactly zero after
      `optax.apply_updates`.

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
      >>> optimizer = optax.chain(optax.sgd(1.0), proximal(prox.soft_threshold, 0.25))
      >>> params = jnp.array([1.0, -0.5, 0.1])
      >>> state = optimizer.init(params)
      >>> updates, state = optimizer.update(jnp.zeros(3), state, params)
      >>> optax.apply_updates(params, updates).tolist()
      [0.75, -0.25, 0.0]

    References:
      Parikh and Boyd, Proximal Algorithms, 2014, section 4.2.
    """
    step_.check_prox("proximal", prox)
    check_scalar_or_schedule("proximal", "scaling", scaling)

    def init(params):
        step_.check_result("proximal", prox, params)
        step_.warn_low_precision("proximal", params)
        zero = jnp.zeros([], jnp.int32)
        return ProximalState(zero, jnp.copy(zero), jnp.zeros([], bool))

    def update(updates, state, params=None, **extra_args):
        del extra_args
        params = step_.require_params("proximal", params)
        target = prox(step_.moved(params, updates), step_.at(scaling, state.count))
        updates = step_.updates_to(target, params)
        # The difference, not the order, survives int32 wrapping around.
        lost = step_.count_zeros(params) - state.zeros < 0
        return updates, ProximalState(
            count=step_.next_count(state.count),
            zeros=step_.count_zeros(optax.apply_updates(params, updates)),
            misplaced=state.misplaced | lost,
        )

    return optax.GradientTransformationExtraArgs(init, update)


def ista(
    strength: optax.ScalarOrSchedule,
    learning_rate: optax.ScalarOrSchedule,
    *,
    momentum: float = 0.0,
) -> optax.GradientTransformationExtraArgs:
    """Add an L1 penalty to the loss by soft-thresholding after every step (ISTA).

        w_{t+1} = S(w_t + u_t, lambda_t eta_t / (1 - mu)),   S the soft threshold

    Place it last in a chain, behind SGD. Steady momentum multiplies the gradient's
    steps by 1 / (1 - mu); the threshold follows, so that the fixed point is the
    minimiser of `loss + strength * |w|_1` with momentum too.

    Args:
      strength: lambda_t >= 0, a scalar or a schedule; unit: loss / weight.
      learning_rate: eta_t >= 0, the optimizer's own scalar or schedule.
      momentum: mu in [0, 1), the optimizer's own, 0 for plain SGD.

    Returns:
      A transformation with state `ProximalState`; see `proximal`.

    Raises:
      ValueError: an argument is negative, or `momentum` outside [0, 1).
      TypeError: an argument is neither a number nor a schedule.

    Examples:
      >>> import optax
      >>> schedule = optax.cosine_decay_schedule(0.1, 1000)
      >>> optimizer = optax.chain(optax.sgd(schedule), ista(1e-4, schedule))

    References:
      Beck and Teboulle, 2009, Eq. (3.1); the factor of momentum is ours.
    """
    check_scalar_or_schedule("ista", "strength", strength)
    check_scalar_or_schedule("ista", "learning_rate", learning_rate)
    check_momentum("ista", momentum)
    return proximal(
        soft_threshold, step_.product(strength, learning_rate, 1 / (1 - momentum))
    )


class LatentProximalState(NamedTuple):
    """State of `latent_proximal`.

    Attributes:
      count: steps taken, int32 scalar.
      latent: the dense weights, a tree like the parameters, float32 or wider.
      inner_state: the state of the wrapped optimizer, on the latent weights.
    """

    count: jax.Array
    latent: optax.Params
    inner_state: optax.OptState


def latent_proximal(
    optimizer: optax.GradientTransformation,
    prox: Prox,
    scaling: optax.ScalarOrSchedule = 1.0,
    *,
    initialize: Callable[[Any, Any], Any] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Train dense latent weights of which the network sees the prox.

        theta_{t+1} = theta_t + optimizer(dL/dw_t, theta_t)
        w_{t+1} = prox_{s_{t+1} g}(theta_{t+1})

    The latent weights theta live in the state; the parameters w are what the network,
    the loss and the user see. Gradients are taken at w and given to theta unchanged
    (straight-through), so a pruned weight keeps learning and may return. Weight decay
    inside `optimizer` acts on theta.

    The scaling is a level here, not an increment: constant s prunes at the constant
    threshold s; s_t belongs to w_t, and the first update computes s_1.
    `optax.inject_hyperparams` evaluates schedules at t instead of t + 1: give it
    `lambda step: schedule(step + 1)`.

    Args:
      optimizer: moves the latent weights; receives extra arguments unchanged.
      prox: a function `(params, scaling) -> params`.
      scaling: s_t, a scalar >= 0 or a schedule of the number of steps taken.
      initialize: `(params, s_0) -> latent`, the first latent weights; by default the
        parameters, so that the first step sees them dense.

    Returns:
      A transformation, complete in itself, with state `LatentProximalState`. Nothing
      may come behind it in a chain.

    Raises:
      ValueError: `scaling` is negative; at `init`, `prox` does not suit the parameters;
        at `update`, `params` is missing.
      TypeError: `optimizer`, `prox` or `scaling` is of another kind.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> from jaxprune import prox
      >>> optimizer = latent_proximal(optax.sgd(1.0), prox.soft_threshold, 0.25)
      >>> params = jnp.array([1.0, 0.5])
      >>> state = optimizer.init(params)
      >>> updates, state = optimizer.update(jnp.array([0.0, 0.5]), state, params)
      >>> optax.apply_updates(params, updates).tolist(), state.latent.tolist()
      ([0.75, 0.0], [1.0, 0.0])

    References:
      Chen et al., A Unified Framework for Soft Threshold Pruning, arXiv:2302.13019,
      2023: the reparametrisation, there inside the forward pass. Xiao, Dual Averaging
      Methods, 2010: the convex case.
    """
    step_.check_prox("latent_proximal", prox)
    check_scalar_or_schedule("latent_proximal", "scaling", scaling)
    inner = step_.with_extra_args("latent_proximal", optimizer)

    def init(params):
        if step_.is_abstract(params):
            return jax.eval_shape(init, params)
        step_.check_result("latent_proximal", prox, params)
        count = jnp.zeros([], jnp.int32)
        latent = step_.wide_copy(params)
        if initialize is not None:
            latent = initialize(latent, step_.at(scaling, count))
        return LatentProximalState(count, latent, inner.init(latent))

    def update(updates, state, params=None, **extra_args):
        params = step_.require_params("latent_proximal", params)
        grads = jax.tree.map(lambda g, t: g.astype(t.dtype), updates, state.latent)
        moves, inner_state = inner.update(
            grads, state.inner_state, state.latent, **extra_args
        )
        latent = optax.apply_updates(state.latent, moves)
        count = step_.next_count(state.count)
        target = prox(latent, step_.at(scaling, count))
        return step_.updates_to(target, params), LatentProximalState(
            count, latent, inner_state
        )

    return optax.GradientTransformationExtraArgs(init, update)
