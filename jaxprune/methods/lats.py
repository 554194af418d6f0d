r"""LATS: soft-threshold pruning with a threshold that follows the learning rate.

Dense latent weights :math:`\theta` are trained; the network computes with

.. math:: w_t = S(\theta_t, D_t) = \mathrm{sign}(\theta_t)\max(|\theta_t| - D_t, 0)

and the gradient at w is given to :math:`\theta` unchanged, so a pruned weight keeps
learning and may return. One threshold serves all layers; it grows from 0 to D.

Two forms of the same method, with the same trajectory:

=======================================  =========================================
:func:`lats`                             around the optimizer: the network's
                                         parameters are w, exact zeros every step
:func:`straight_through_soft_threshold`  inside the forward pass: the network's
                                         parameters are theta
=======================================  =========================================

>>> import optax
>>> from jaxprune import threshold_schedules
>>> rate = optax.warmup_cosine_decay_schedule(0.0, 0.256, 500, 10_000)
>>> threshold = threshold_schedules.from_learning_rate(rate, final=0.02, steps=10_000)
>>> sgd = optax.chain(optax.add_decayed_weights(3e-5), optax.sgd(rate, 0.875))
>>> optimizer = lats(sgd, threshold=threshold)

==========  ==================  ==================================================
symbol      here                meaning
==========  ==================  ==================================================
theta       ``state.latent``    dense latent weights
w           ``params``          weights of the network
D_t         ``threshold``       threshold after t steps; unit: weight
S           ``soft_threshold``  :func:`jaxprune.prox.soft_threshold`
==========  ==================  ==================================================

References:
  [LATS] Chen et al., `A Unified Framework for Soft Threshold Pruning
  <https://arxiv.org/abs/2302.13019>`_, 2023, with the authors' code.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxprune._numbers import check_scalar_or_schedule
from jaxprune.prox import soft_threshold
from jaxprune.proximal import latent_proximal


def lats(
    optimizer: optax.GradientTransformation, *, threshold: optax.ScalarOrSchedule
) -> optax.GradientTransformationExtraArgs:
    r"""Prune by soft-thresholding the latent weights that ``optimizer`` trains.

    .. math::
       \theta_{t+1} = \theta_t + \mathrm{optimizer}(\nabla L(w_t), \theta_t),
       \qquad w_{t+1} = S(\theta_{t+1}, D_{t+1})

    :func:`jaxprune.proximal.latent_proximal` with the soft threshold. The latent
    weights start at :math:`\theta_0 = \mathrm{sign}(w_0)(|w_0| + D_0)`, of which the
    given parameters are the soft threshold: :math:`\theta_0 = w_0` for a threshold
    that starts at 0.

    Args:
      optimizer: trains the latent weights, weight decay included.
      threshold: D_t >= 0, a scalar or a schedule of the number of steps taken; see
        :mod:`jaxprune.threshold_schedules`.

    Returns:
      A transformation, complete in itself, with state
      :class:`jaxprune.proximal.LatentProximalState`. Nothing may come behind it in a
      chain; wrap it in ``optax.masked`` or ``optax.partition`` to choose leaves.

    Raises:
      ValueError: ``threshold`` is negative; at ``update``, ``params`` is missing.
      TypeError: ``optimizer`` or ``threshold`` is of another kind.

    Examples:
      >>> import jax.numpy as jnp
      >>> optimizer = lats(optax.sgd(1.0), threshold=optax.linear_schedule(0, 1, 4))
      >>> params = jnp.array([1.0, 0.125])
      >>> state = optimizer.init(params)
      >>> updates, state = optimizer.update(jnp.zeros(2), state, params)
      >>> optax.apply_updates(params, updates).tolist()
      [0.75, 0.0]

    References:
      [LATS]; the authors threshold inside the forward pass, which this equals.
    """
    check_scalar_or_schedule("lats", "threshold", threshold)
    return latent_proximal(
        optimizer, soft_threshold, threshold, initialize=inverse_soft_threshold
    )


def inverse_soft_threshold(params: Any, threshold: Any) -> Any:
    r"""Return latent weights of which ``params`` are the soft threshold.

    .. math:: \theta_i = \mathrm{sign}(w_i)\,(|w_i| + D)

    A weight that is zero gets a latent weight of zero, the middle of those it could
    have. Weights smaller than the rounding of D are lost.

    Args:
      params: w, an array or a pytree of floating-point arrays of any shape.
      threshold: D >= 0, a scalar; unit: weight.

    Returns:
      theta, as ``params``.

    Examples:
      >>> import jax.numpy as jnp
      >>> inverse_soft_threshold(jnp.array([-1.0, 0.0, 2.0]), 0.5).tolist()
      [-1.5, 0.0, 2.5]

    References:
      [LATS], the initial mapping of the authors' code.
    """
    return jax.tree.map(
        lambda w: w + jnp.sign(w) * jnp.asarray(threshold, w.dtype), params
    )


@jax.custom_vjp
def straight_through_soft_threshold(params: Any, threshold: Any) -> Any:
    r"""Soft-threshold, with the identity for a derivative.

    .. math::
       w = S(\theta, D), \qquad
       \frac{\partial L}{\partial \theta} := \frac{\partial L}{\partial w}, \qquad
       \frac{\partial L}{\partial D} := 0

    Every latent weight learns, whether its weight is pruned or not. The threshold is
    scheduled, not learned, so no derivative reaches it. The authors multiply by
    :math:`\mathrm{sign}(\theta)^2`, which differs at :math:`\theta = 0` alone: there
    their latent weight stays 0 for ever, ours moves.

    Args:
      params: theta, an array or a pytree of floating-point arrays of any shape.
      threshold: D >= 0; unit: weight. A scalar or a prefix of ``params``.

    Returns:
      w, as ``params``.

    Raises:
      ValueError: ``threshold`` does not broadcast.
      TypeError: a leaf is not a floating-point array.

    Examples:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> theta = jnp.array([-2.0, 0.5, 3.0])
      >>> straight_through_soft_threshold(theta, 1.0).tolist()
      [-1.0, 0.0, 2.0]
      >>> loss = lambda theta: straight_through_soft_threshold(theta, 1.0).sum()
      >>> jax.grad(loss)(theta).tolist()
      [1.0, 1.0, 1.0]

    References:
      [LATS], the layer of the authors' code.
    """
    return soft_threshold(params, threshold)


def _forward(params, threshold):
    return soft_threshold(params, threshold), threshold


def _backward(threshold, cotangents):
    return cotangents, jax.tree.map(jnp.zeros_like, threshold)


straight_through_soft_threshold.defvjp(_forward, _backward)
