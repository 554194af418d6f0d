"""Soft Threshold Reparameterization (STR): a trainable soft threshold for every layer.

The network computes with w = S(theta, t_l). The threshold t_l of a layer is a function
of one variable s_l; theta and s_l are trained by the true derivative: a pruned weight
gets none, a kept one lowers or raises its threshold. As published, weight decay drives:
it moves s_l up from far below zero, and the size that is reached is what the decay
makes it. Under a `Budget` a penalty on what is kept drives instead, to a target size.

>>> import optax
>>> pruner = soft_threshold_reparameterization_as_published(init_value=-200.0)
>>> published = optax.chain(optax.add_decayed_weights(1e-4), optax.sgd(0.1, 0.9))
>>> to_a_size = optax.partition(  # with `dual_ascent`
...     {"weights": published, "thresholds": optax.adam(0.05)},
...     {"params": "weights", "variables": "thresholds"},
... )

In the terms of `jaxprune.schedules`: while the threshold of a layer rises by dt in a
step of learning rate eta, its weights feel the L1 coefficient dt / eta; STR learns that
coefficient layer by layer.

======  ================  ==============================
symbol  here              meaning
======  ================  ==============================
theta   `params`          dense latent weights
s_l     `variables`       trainable; no unit
t_l     -                 threshold; unit: weight
S       `soft_threshold`  `jaxprune.prox.soft_threshold`
======  ================  ==============================

References:
  [STR] Kusupati et al., Soft Threshold Weight Reparameterization for Learnable
    Sparsity, arXiv:2002.03231, 2020.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxprune import tree
from jaxprune.base._checks import check_positive, is_static_number
from jaxprune.base._protocols import Pruner
from jaxprune.methods._soft_threshold_base import Rule, soft_thresholds
from jaxprune.methods._weights import (
    check_min_keep_ratio,
    layer_mean,
    per_layer,
    spread,
)
from jaxprune.tree._selection import Weights

# No weight of a layer is likely to be further out than so many standard deviations.
_REACH = 10.0


def soft_threshold_reparameterization(
    *,
    init_value: Any = -7.0,
    temperature: Any = 0.1,
    min_keep_ratio: Any = 1e-3,
    where: tree.Where = tree.kernels,
) -> Pruner:
    """Soft-threshold every layer at a trainable multiple of its spread.

        w_l = sign(theta_l) max(|theta_l| - t_l, 0),   t_l = 10 sigma_l g(s_l)
        g(s) = 1 / (1 + exp(-s))

    with sigma_l the standard deviation of theta_l, recomputed at every step and taken
    as a constant by the derivative; the derivatives in theta and s are the true ones.
    The threshold scales with the weights of its layer and can pass every one of them,
    so any size can be reached whatever the scale of the network.

    The keep ratio is the fraction of nonzero entries; it has no derivative, and in its
    place stands that of the smooth count
    `sum_i(sigm((|theta_i| - t_l) / (T sigma_l))) / n_l` in s_l alone.

    Args:
      init_value: s_l at the start, finite. At -7 the threshold is 0.009 sigma_l, below
        which 0.7 % of normally distributed weights lie.
      temperature: T > 0, without unit: the width of the smooth count.
      min_keep_ratio: the minimum that every layer keeps, in [0, 1], rounded up to whole
        weights, or shell pattern to such a number. There the keep ratio has no
        derivative.
      where: which leaves are pruned; the kernels by default. Stacked layers and masks
        that already hold are declared by `jaxprune.selection`.

    Returns:
      A pruner whose variables are s_l, `{leaf name: float32 () or (layers,)}`; its
      `optimizer` is `optax.adam(0.05)`. Its masks are the nonzero entries of w; for a
      keep ratio, the largest `(|theta| - t_l) / sigma_l`. It finalizes to w.

    Raises:
      ValueError: an argument is out of range.

    Examples:
      >>> import jax.numpy as jnp
      >>> pruner = soft_threshold_reparameterization(init_value=-3.0)
      >>> params = {"kernel": jnp.array([[0.5, 3.0], [-2.0, -0.5]])}
      >>> pruner.masks(params, pruner.init(params))["kernel"].tolist()
      [[False, True], [True, False]]

    References:
      [STR] Eq. (3) to (5); thresholds in units of the spread, penalty, smooth count and
      order of weights are ours.
    """

    def threshold(leaf, variable):
        sigma = spread(leaf, signed=True)
        return _REACH * sigma * jax.nn.sigmoid(variable), sigma

    return _reparameterized(
        "soft_threshold_reparameterization",
        threshold,
        init_value,
        temperature,
        min_keep_ratio,
        where,
        optax.adam(0.05),
    )


def soft_threshold_reparameterization_as_published(
    *,
    init_value: Any = -5.0,
    temperature: Any = 0.1,
    min_keep_ratio: Any = 1e-3,
    where: tree.Where = tree.kernels,
) -> Pruner:
    """Soft-threshold every layer at the sigmoid of its own trainable variable.

        w_l = sign(theta_l) max(|theta_l| - g(s_l), 0),   g(s) = 1 / (1 + exp(-s))

    with the true derivatives in theta and s. The threshold is at most 1, so a layer
    whose weights exceed 1 cannot be pruned to every size. The keep ratio is that of
    `soft_threshold_reparameterization`, with sigma_l the standard deviation of
    `|theta_l|`.

    Args:
      init_value: s_l at the start, finite. The paper has -3200 for ImageNet (threshold
        0 in float32: a penalty has no derivative there, only weight decay moves it).
      temperature: see `soft_threshold_reparameterization`.
      min_keep_ratio: see `soft_threshold_reparameterization`.
      where: see `soft_threshold_reparameterization`.

    Returns:
      A pruner whose variables are s_l; see `soft_threshold_reparameterization`. Its
      `optimizer` is `optax.adam(0.05)`; in the paper the one of the weights, decay
      included, moves them.

    Raises:
      ValueError: an argument is out of range.

    Examples:
      >>> import jax.numpy as jnp
      >>> pruner = soft_threshold_reparameterization_as_published(init_value=0.0)
      >>> params = {"kernel": jnp.array([[0.25, 3.0], [-2.0, 0.5]])}
      >>> pruner.apply(params, pruner.init(params)).params["kernel"].tolist()
      [[0.0, 2.5], [-1.5, 0.0]]

    References:
      [STR] Eq. (3) to (5); penalty, smooth count and order of weights are ours.
    """

    def threshold(leaf, variable):
        return jax.nn.sigmoid(variable), spread(leaf)

    return _reparameterized(
        "soft_threshold_reparameterization_as_published",
        threshold,
        init_value,
        temperature,
        min_keep_ratio,
        where,
        optax.adam(0.05),
    )


def _reparameterized(
    call: str,
    threshold: Callable[[Weights, jax.Array], tuple[jax.Array, jax.Array]],
    init_value: Any,
    temperature: Any,
    min_keep_ratio: Any,
    where: tree.Where,
    optimizer: optax.GradientTransformation,
) -> Pruner:
    if is_static_number(init_value) and not np.all(np.isfinite(init_value)):
        raise ValueError(
            f"`{call}(init_value={init_value})`: must be finite. Leave it out for the "
            "default."
        )
    check_positive(call, "temperature", temperature)
    check_min_keep_ratio(call, min_keep_ratio)

    def excess(leaf, variable):
        """Return how far each weight is above its threshold, and the unit of it."""
        limit, sigma = threshold(leaf, per_layer(variable, leaf))
        return jnp.abs(leaf.array.astype(jnp.float32)) - limit, sigma

    def shrink(leaf, variable):
        above, _ = excess(leaf, variable)
        sign = jnp.sign(leaf.array).astype(jnp.float32)
        # Not `maximum`, which would halve the derivative at the threshold. NaN stays.
        return (jnp.where(above <= 0, 0, above) * sign).astype(leaf.array.dtype)

    def score(leaf, variable):
        above, sigma = excess(leaf, variable)
        return above / sigma

    def keep_ratio(leaf, variable, pruned, share, floor):
        del share
        leaf = leaf._replace(array=jax.lax.stop_gradient(leaf.array))
        above, sigma = excess(leaf, variable)
        smooth = layer_mean(jax.nn.sigmoid(above / (temperature * sigma)), leaf)
        smooth = jnp.maximum(smooth, floor / leaf.layer_size)
        kept = layer_mean(pruned != 0, leaf)
        return kept + (smooth - jax.lax.stop_gradient(smooth))

    return soft_thresholds(
        call,
        Rule(shrink, score, keep_ratio),
        init_value=init_value,
        min_keep_ratio=min_keep_ratio,
        where=where,
        optimizer=optimizer,
    )
