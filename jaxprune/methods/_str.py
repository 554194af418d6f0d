"""Soft Threshold Reparameterization (STR): a trainable soft threshold for every layer.

The network sees w = S(theta, g(s_l)) with one variable s_l for each selected leaf, and
both theta and s_l are trained by the true derivative: a pruned weight gets none, a kept
one pushes its threshold. As published, weight decay drives: it pulls s_l up from far
below zero and with it the threshold; the size reached is what the decay makes it. Under
a `Budget` a price on what is kept drives instead, and a size can be asked for.

>>> import optax
>>> pruner = soft_threshold_reparameterization(init_value=-200.0)
>>> published = optax.chain(optax.add_decayed_weights(1e-4), optax.sgd(0.1, 0.9))
>>> to_a_size = optax.partition(  # with `dual_ascent`
...     {"weights": published, "thresholds": optax.adam(0.05)},
...     {"params": "weights", "variables": "thresholds"},
... )

In the terms of `jaxprune.schedules`: while the threshold of a layer rises by
dg in a step of learning rate eta, its weights feel the L1 coefficient dg / eta; STR
learns that coefficient layer by layer.

======  ================  ==============================
symbol  here              meaning
======  ================  ==============================
theta   `params`          dense latent weights
s_l     `variables`       trainable; no unit
g(s)    `jax.nn.sigmoid`  threshold; unit: weight
S       `soft_threshold`  `jaxprune.prox.soft_threshold`
======  ================  ==============================

References:
  [STR] Kusupati et al., Soft Threshold Weight Reparameterization for Learnable
  Sparsity, arXiv:2002.03231, 2020.
"""

import math

import jax
import jax.numpy as jnp

from jaxprune import tree
from jaxprune.base._protocols import Pruned, Pruner
from jaxprune.masks import _select as masks
from jaxprune.masks._soft import finalized, soft_threshold_masks

# Keeps the division by the spread finite for a layer whose weights are all equal.
_LEAST_SPREAD = 1e-10


def soft_threshold_reparameterization(
    *,
    init_value: float = -5.0,
    temperature: float = 0.1,
    min_keep_ratio: float = 1e-3,
    where: tree.Where = tree.kernels,
) -> Pruner:
    """Soft-threshold every leaf at the sigmoid of its own trainable variable.

        w_l = sign(theta_l) max(|theta_l| - g(s_l), 0),   g(s) = 1 / (1 + exp(-s))

    with the true derivatives in theta and s. The keep ratio is the fraction of nonzero
    entries; it has no derivative, and in its place stands that of the smooth count
    sum_i(sigm((|theta_i| - g(s_l)) / (T sigma_l))) / n_l, with sigma_l the standard
    deviation of `|theta_l|`, in s_l alone.

    Args:
      init_value: s_l at the start, finite. The paper has -3200 for ImageNet (threshold
        0 in float32: the price has no derivative there, only weight decay moves it).
      temperature: T > 0, without unit: how wide the smooth count looks.
      min_keep_ratio: what every leaf keeps at the least when masks are made, in
        [0, 1], rounded up to whole weights; the price stops pressing there.
      where: which leaves are pruned; the kernels by default.

    Returns:
      A pruner whose variables are s_l, `{leaf name: float32 ()}`. Its masks are the
      nonzero entries of w; for a keep ratio, the largest
      `(|theta| - g(s_l)) / sigma_l`. It finalizes to w.

    Raises:
      ValueError: if an argument is out of range.

    Examples:
      >>> import jax.numpy as jnp
      >>> pruner = soft_threshold_reparameterization(init_value=0.0)
      >>> params = {"kernel": jnp.array([[0.25, 3.0], [-2.0, 0.5]])}
      >>> pruner.apply(params, pruner.init(params)).params["kernel"].tolist()
      [[0.0, 2.5], [-1.5, 0.0]]

    References:
      [STR] Eq. (3) to (5); price, smooth count and order of weights are ours.
    """
    if not math.isfinite(init_value):
        raise ValueError(
            f"`soft_threshold_reparameterization(init_value={init_value})`: must be "
            "finite; -5 starts at a threshold of 0.007."
        )
    if not 0 < temperature < math.inf:
        raise ValueError(
            f"`soft_threshold_reparameterization(temperature={temperature})`: must be "
            "positive and finite."
        )
    masks.layer_floor(0, min_keep_ratio)  # checks the range

    def init(params, /):
        return {
            name: jnp.full((), init_value, jnp.float32)
            for name in tree.select(params, where)
        }

    def excess(leaf, variable):
        """How far each weight is above the threshold, and the spread, in float32."""
        size = jnp.abs(leaf.astype(jnp.float32))
        spread = jax.lax.stop_gradient(jnp.maximum(jnp.std(size), _LEAST_SPREAD))
        return size - jax.nn.sigmoid(variable), spread

    def thresholded(params, variables):
        pruned = {}
        for name, leaf in tree.select(params, where).items():
            above, _ = excess(leaf, variables[name])
            # Not `maximum`, which would halve the derivative at the threshold.
            shrunk = jnp.where(above > 0, above, 0) * jnp.sign(leaf).astype(jnp.float32)
            pruned[name] = shrunk.astype(leaf.dtype)
        return pruned

    def apply(params, variables, /, *, key=None, step=None):
        del key, step
        pruned, ratios = thresholded(params, variables), {}
        for name, leaf in tree.select(params, where).items():
            above, spread = excess(jax.lax.stop_gradient(leaf), variables[name])
            smooth = jnp.mean(jax.nn.sigmoid(above / (temperature * spread)))
            least = masks.layer_floor(leaf.size, min_keep_ratio) / leaf.size
            smooth = jnp.maximum(smooth, least)
            kept = jnp.mean(jax.lax.stop_gradient(pruned[name]) != 0, dtype=jnp.float32)
            ratios[name] = kept + (smooth - jax.lax.stop_gradient(smooth))
        return Pruned(tree.replace(params, pruned), ratios)

    def hard_masks(params, variables, /, *, keep_ratio=None):
        scores = {}
        for name, leaf in tree.select(params, where).items():
            above, spread = excess(leaf, variables[name])
            scores[name] = above / spread
        seen = thresholded(params, variables)
        return soft_threshold_masks(params, seen, scores, keep_ratio, min_keep_ratio)

    def finalize(params, variables, kept, /):
        return finalized(params, thresholded(params, variables), kept)

    return Pruner(init, apply, hard_masks, finalize)
