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
`optax.sgd(eta)` and `dual_ascent(limits)`       limits on any cost
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
import optax

from jaxprune import tree
from jaxprune.base._checks import check_non_negative
from jaxprune.base._protocols import Pruner
from jaxprune.methods._soft_threshold_base import Rule, soft_thresholds
from jaxprune.methods._weights import (
    check_min_keep_ratio,
    layer_mean,
    per_layer,
)
from jaxprune.prox._operators import soft_threshold


@jax.custom_jvp
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


@straight_through_soft_threshold.defjvp
def _straight_through(primals, tangents):
    return soft_threshold(*primals), tangents[0]


def soft_thresholding(
    *,
    init_threshold: Any = 0.0,
    min_keep_ratio: Any = 1e-3,
    where: tree.Where = tree.kernels,
) -> Pruner:
    """Soft-threshold every layer, with the identity for a derivative.

        w_l = S(theta_l, D_l),   k_l = count(|theta_l| > D_l) / n_l
        dk_l/dD_l := -n / n_l

    for every selected layer l of n_l weights, n together. The variables are the
    thresholds, all equal in LATS; the optimizer moves them, see the table above.

    The count has no derivative; the one put in its place makes the penalty weight of a
    budget an L1 coefficient. Under `weighted(density(params), penalty_weight)` and
    `optax.sgd(eta)` for the variables, D_{t+1} = D_t + eta_t p with the penalty weight
    p: constant lambda = p, whatever the learning rate. Under another cost the
    coefficient of a layer is the penalty weight times what one of its weights costs,
    relative to the average.

    Args:
      init_threshold: D_0 >= 0; unit: weight.
      min_keep_ratio: the minimum that every layer keeps when masks are made, in [0, 1],
        rounded up to whole weights, or shell pattern to such a number.
      where: which leaves are pruned; the kernels by default. Stacked layers and masks
        that already hold are declared by `jaxprune.selection`.

    Returns:
      A pruner whose variables are D_l, `{leaf name: float32 () or (layers,)}`; its
      `optimizer` is SGD at 0.1 that keeps them from falling below 0. Its masks are the
      nonzero entries of w; for a keep ratio, the largest `|theta| - D`. It finalizes to
      w, so weights that the masks keep beyond it start at 0.

    Raises:
      ValueError: an argument is out of range.
      TypeError: `init_threshold` is not a number.

    Examples:
      >>> import jax.numpy as jnp
      >>> pruner = soft_thresholding(init_threshold=1.0)
      >>> params = {"kernel": jnp.array([[0.5, 3.0], [-2.0, 0.25]])}
      >>> pruned = pruner.apply(params, pruner.init(params))
      >>> pruned.params["kernel"].tolist(), float(pruned.keep_ratios["kernel"])
      ([[0.0, 2.0], [-1.0, 0.0]], 0.5)

    References:
      [LATS]; the link of penalty weight and L1 coefficient is ours.
    """
    check_non_negative("soft_thresholding", "init_threshold", init_threshold)
    check_min_keep_ratio("soft_thresholding", min_keep_ratio)

    def threshold(leaf, variable):
        return per_layer(jnp.maximum(variable, 0), leaf)

    def shrink(leaf, variable):
        return straight_through_soft_threshold(leaf.array, threshold(leaf, variable))

    def score(leaf, variable):
        return jnp.abs(leaf.array.astype(jnp.float32)) - threshold(leaf, variable)

    def keep_ratio(leaf, variable, pruned, share, floor):
        del floor
        fall = (variable - jax.lax.stop_gradient(variable)) / share
        kept = layer_mean(pruned != 0, leaf)
        return kept - fall.astype(jnp.float32)

    return soft_thresholds(
        "soft_thresholding",
        Rule(shrink, score, keep_ratio),
        init_value=init_threshold,
        min_keep_ratio=min_keep_ratio,
        where=where,
        optimizer=optax.chain(optax.sgd(0.1), optax.keep_params_nonnegative()),
    )
