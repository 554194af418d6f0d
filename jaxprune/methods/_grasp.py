"""GraSP: keep the weights that the flow of gradients needs, before any training.

>>> import jax.numpy as jnp
>>> params = {"kernel": jnp.array([[1.0, -2.0, 3.0]])}
>>> loss = lambda p: jnp.sum(p["kernel"] ** 2 * jnp.array([1.0, 0.5, 0.25]))
>>> grasp_scores(loss, params)["kernel"].tolist()  # w_i h_i^2 w_i for h = (2, 1, 0.5)
[[4.0, 4.0, 2.25]]

References:
  [GraSP] Wang, Zhang, Grosse, Picking Winning Tickets Before Training by Preserving
  Gradient Flow, arXiv:2002.07376, 2020.
"""

import jax
import jax.numpy as jnp

from jaxprune import tree
from jaxprune.base._protocols import Params, Pruner
from jaxprune.methods._one_shot import LossFn, by_score


def grasp_scores(
    loss_fn: LossFn, params: Params, *, where: tree.Where = tree.kernels
) -> dict[str, jax.Array]:
    """Return how much each selected weight holds up the flow of gradients.

        s = w * (H g),   g = dL/dw,   H = d2L/dw2

    the first-order loss of |g|^2 / 2 when a weight is removed, over the selected leaves
    alone. The paper's score is its negative, and removes the highest: weights without
    which the gradient is larger.

    Args:
      loss_fn: L, twice differentiable almost everywhere, on a sample of the training
        data. The paper divides the logits by 200 first; do so inside.
      params: w.
      where: which leaves are scored; the kernels by default.

    Returns:
      Leaf name to scores, float32, of the shape of the leaf, of either sign; the
      highest are to be kept.

    References:
      [GraSP] Eq. (8).
    """
    chosen = tree.resolve(params, where)

    def slope(p):
        gradient = jax.grad(loss_fn)(p)
        return jax.tree.map(
            lambda g, use: g if use else jnp.zeros_like(g), gradient, chosen
        )

    gradient = slope(params)
    _, curved = jax.jvp(slope, (params,), (gradient,))
    curved = tree.named_leaves(curved)
    return {
        name: leaf.astype(jnp.float32) * curved[name].astype(jnp.float32)
        for name, leaf in tree.select(params, where).items()
    }


def grasp(
    loss_fn: LossFn,
    *,
    min_keep_ratio: float = 1e-3,
    where: tree.Where = tree.kernels,
) -> Pruner:
    """Prunes once, keeping the flow of gradients; until then the network is dense.

    Args:
      loss_fn: see `grasp_scores`.
      min_keep_ratio: what every leaf keeps at the least, in [0, 1], rounded up.
      where: which leaves are pruned; the kernels by default.

    Returns:
      A pruner without variables, whose `masks` needs a `keep_ratio`.

    Raises:
      ValueError: if `min_keep_ratio` is outside [0, 1].

    References:
      [GraSP], Algorithm 1.
    """
    return by_score(
        "grasp", grasp_scores, loss_fn, min_keep_ratio=min_keep_ratio, where=where
    )
