"""GraSP: keep the weights that the flow of gradients needs, before any training.

References:
  [GraSP] Wang, Zhang, Grosse, Picking Winning Tickets Before Training by Preserving
  Gradient Flow, arXiv:2002.07376, 2020.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxprune import tree
from jaxprune.base._protocols import Params, Pruner
from jaxprune.masks._distributions import Distribution, global_
from jaxprune.methods._one_shot import (
    LossFn,
    compiled,
    loss_gradient,
    prune_by_loss,
)


def grasp_scores(
    loss_fn: LossFn, params: Params, *, where: tree.Where = tree.kernels
) -> dict[str, jax.Array]:
    """Return how much each selected weight contributes to the flow of gradients.

        s = w * (H g),   g = dL/dw,   H = d2L/dw2

    the first-order loss of |g|^2 / 2 when a weight is removed, over the selected leaves
    alone. The paper's score is its negative, and removes the highest: weights without
    which the gradient is larger.

    Args:
      loss_fn: L, twice differentiable almost everywhere, on a sample of the training
        data. The paper divides the logits by 200 first; do so inside.
      params: w, a pytree of arrays.
      where: which leaves are scored; the kernels by default.

    Returns:
      Leaf name to scores, float32, of the shape of the leaf, of either sign; the
      highest are kept.

    Raises:
      ValueError, TypeError: see `jaxprune.tree.select`.

    Examples:
      >>> import jax.numpy as jnp
      >>> params = {"kernel": jnp.array([[1.0, -2.0, 3.0]])}
      >>> loss = lambda p: jnp.sum(p["kernel"] ** 2 * jnp.array([1.0, 0.5, 0.25]))
      >>> grasp_scores(loss, params)["kernel"].tolist()  # w h^2 w, h = (2, 1, 0.5)
      [[4.0, 4.0, 2.25]]

    References:
      [GraSP] Eq. (8).
    """
    chosen = tree.select(params, where, call="grasp_scores")
    return compiled(_scores, loss_fn)(params, chosen)


def _scores(loss_fn, params, chosen):
    slope, gradient = loss_gradient(loss_fn, params, chosen)
    _, curved = jax.jvp(slope, (chosen,), (gradient,))
    return {
        name: leaf.astype(jnp.float32) * curved[name].astype(jnp.float32)
        for name, leaf in chosen.items()
    }


def grasp(
    loss_fn: LossFn,
    *,
    distribution: Distribution = global_,
    min_keep_ratio: Any = 1e-3,
    where: tree.Where = tree.kernels,
) -> Pruner:
    """Prune once, keeping the flow of gradients; until then the network is dense.

        m_i = 1 for the highest w_i (H g)_i

    Args:
      loss_fn: see `grasp_scores`.
      distribution: see `jaxprune.snip`.
      min_keep_ratio: see `jaxprune.snip`.
      where: see `jaxprune.snip`.

    Returns:
      A pruner without variables, whose `masks` needs a `keep_ratio`.

    Raises:
      ValueError: `min_keep_ratio` is outside [0, 1].

    Examples:
      >>> import jax.numpy as jnp
      >>> params = {"kernel": jnp.array([[1.0, -3.0, 2.0]])}
      >>> loss = lambda p: jnp.sum(p["kernel"] ** 2)
      >>> grasp(loss).masks(params, {}, keep_ratio=0.34)["kernel"].tolist()
      [[False, True, False]]

    References:
      [GraSP], Algorithm 1.
    """
    return prune_by_loss(
        "grasp",
        _scores,
        loss_fn,
        distribution=distribution,
        min_keep_ratio=min_keep_ratio,
        where=where,
    )
