"""LATS: soft-threshold pruning with a threshold that follows the learning rate.

Dense latent weights theta are trained; the network computes with

    w_t = S(theta_t, D_t) = sign(theta_t) max(|theta_t| - D_t, 0)

and the gradient at w is given to theta unchanged, so a pruned weight keeps learning and
may return. One threshold serves all layers; it grows from 0 to D.

Two forms of the same method, with the same trajectory:

===================  ===========================================================
`jaxprune.lats`      around the optimizer: the network's parameters are w, exact
                     zeros every step
`soft_thresholding`  inside the forward pass, as a `Pruner`: the parameters are
                     theta, the thresholds its variables
===================  ===========================================================

What moves the thresholds of the forward form:

===============================================  ===========================
`jaxprune.transforms.follow_threshold`    a given schedule, open loop
`jaxprune.transforms.reach_keep_ratio`    a size, no trials
`optax.sgd(eta)` and `weighted(cost, lambda)`    a given L1 coefficient
`optax.sgd(eta)` and `dual_ascent(cost, limit)`  a limit on any cost
===============================================  ===========================

======  ================  =====================================
symbol  here              meaning
======  ================  =====================================
theta   `params`          dense latent weights
w       -                 weights of the network
D_t     `variables`       threshold after t steps; unit: weight
S       `soft_threshold`  `jaxprune.prox.soft_threshold`
======  ================  =====================================

References:
  [LATS] Chen et al., A Unified Framework for Soft Threshold Pruning, arXiv:2302.13019,
    2023, with the authors' code.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxprune import tree
from jaxprune.base._checks import check_non_negative
from jaxprune.base._protocols import Pruned, Pruner
from jaxprune.masks import _select as masks
from jaxprune.masks._soft import finalized, soft_threshold_masks
from jaxprune.prox._operators import soft_threshold


@jax.custom_vjp
def straight_through_soft_threshold(params: Any, threshold: Any) -> Any:
    """Soft-threshold, with the identity for a derivative.

        w = S(theta, D),   dL/dtheta := dL/dw,   dL/dD := 0

    Every latent weight learns, whether its weight is pruned or not. The threshold is
    scheduled, not learned, so no derivative reaches it. The authors multiply by
    sign(theta)^2, which differs at theta = 0 alone: there their latent weight stays 0
    for ever, ours moves.

    Args:
      params: theta, an array or a pytree of floating-point arrays of any shape.
      threshold: D >= 0; unit: weight. A scalar or a prefix of `params`.

    Returns:
      w, as `params`.

    Raises:
      ValueError: `threshold` does not broadcast.
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


def soft_thresholding(
    *,
    init_threshold: float = 0.0,
    min_keep_ratio: float = 1e-3,
    where: tree.Where = tree.kernels,
) -> Pruner:
    """Show the network the soft threshold of its weights, straight through.

        w_l = S(theta_l, D_l),   k_l = count(|theta_l| > D_l) / n_l
        dk_l/dD_l := -n / n_l

    for every selected leaf l of n_l weights, n together. The variables are the
    thresholds, all equal in LATS; the optimizer moves them, see the table above.

    The count has no derivative; the one put in its place makes the price of a budget an
    L1 coefficient. Under `weighted(density(params), price)` and
    `optax.sgd(eta)` for the variables, D_{t+1} = D_t + eta_t p with the price p:
    constant lambda = p, whatever the learning rate. Under another cost the coefficient
    of a leaf is the price times what one of its weights costs, relative to the average.

    Args:
      init_threshold: D_0 >= 0; unit: weight.
      min_keep_ratio: what every leaf keeps at the least when masks are made, in
        [0, 1], rounded up to whole weights.
      where: which leaves are pruned; the kernels by default.

    Returns:
      A pruner whose variables are D_l, `{leaf name: float32 ()}`. Its masks are the
      nonzero entries of w; for a keep ratio, the largest `|theta| - D`. What it finalizes
      to is w, so weights that the masks keep beyond it start at 0.

    Raises:
      ValueError: if an argument is out of range.

    Examples:
      >>> import jax.numpy as jnp
      >>> pruner = soft_thresholding(init_threshold=1.0)
      >>> params = {"kernel": jnp.array([[0.5, 3.0], [-2.0, 0.25]])}
      >>> pruned = pruner.apply(params, pruner.init(params))
      >>> pruned.params["kernel"].tolist(), float(pruned.keep_ratios["kernel"])
      ([[0.0, 2.0], [-1.0, 0.0]], 0.5)

    References:
      [LATS]; the link of price and L1 coefficient is ours.
    """
    check_non_negative("soft_thresholding", "init_threshold", init_threshold)
    masks.layer_floor(0, min_keep_ratio)  # checks the range

    def init(params, /):
        return {
            name: jnp.full((), init_threshold, jnp.float32)
            for name in tree.select(params, where)
        }

    def thresholded(params, variables):
        return {
            name: straight_through_soft_threshold(leaf, jnp.maximum(variables[name], 0))
            for name, leaf in tree.select(params, where).items()
        }

    def apply(params, variables, /, *, key=None, step=None):
        del key, step
        pruned = thresholded(params, variables)
        size = sum(leaf.size for leaf in pruned.values())
        ratios = {}
        for name, leaf in pruned.items():
            threshold = variables[name]
            fall = (threshold - jax.lax.stop_gradient(threshold)) * (size / leaf.size)
            kept = jnp.mean(jax.lax.stop_gradient(leaf) != 0, dtype=jnp.float32)
            ratios[name] = kept - fall.astype(jnp.float32)
        return Pruned(tree.replace(params, pruned), ratios)

    def hard_masks(params, variables, /, *, keep_ratio=None):
        leaves = tree.select(params, where)
        scores = {
            name: jnp.abs(leaf.astype(jnp.float32)) - jnp.maximum(variables[name], 0)
            for name, leaf in leaves.items()
        }
        seen = thresholded(params, variables)
        return soft_threshold_masks(params, seen, scores, keep_ratio, min_keep_ratio)

    def finalize(params, variables, kept, /):
        return finalized(params, thresholded(params, variables), kept)

    return Pruner(init, apply, hard_masks, finalize)
