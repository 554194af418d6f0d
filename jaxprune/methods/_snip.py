"""SNIP: keep the weights whose removal changes the loss most, before any training.

A score is a function of the loss and the weights, and nothing else; ranked over the
whole network it becomes a mask. At initialisation this is pruning before training; on
trained weights it is first-order (Taylor) pruning.

>>> import jax.numpy as jnp
>>> params = {"kernel": jnp.array([[1.0, -2.0, 3.0]])}
>>> loss = lambda p: jnp.sum(p["kernel"] * jnp.array([0.5, 1.0, 0.0]))
>>> snip_scores(loss, params)["kernel"].tolist()
[[0.5, 2.0, 0.0]]
>>> snip(loss, min_keep_ratio=0.0).masks(params, {}, keep_ratio=0.34)["kernel"].tolist()
[[False, True, False]]

References:
  [SNIP] Lee, Ajanthan, Torr, SNIP: Single-shot Network Pruning based on Connection
  Sensitivity, arXiv:1810.02340, 2019.
"""

import jax
import jax.numpy as jnp

from jaxprune import tree
from jaxprune.base._protocols import Params, Pruner
from jaxprune.methods._one_shot import LossFn, by_score


def snip_scores(
    loss_fn: LossFn, params: Params, *, where: tree.Where = tree.kernels
) -> dict[str, jax.Array]:
    """Return the connection sensitivity of every selected weight.

        s_i = |dL(c * w)/dc_i| at c = 1 = |w_i dL/dw_i|

    Args:
      loss_fn: L, on a sample of the training data; a hundred examples or more.
      params: w.
      where: which leaves are scored; the kernels by default.

    Returns:
      Leaf name to scores, float32, of the shape of the leaf; unit: loss. The paper
      divides by their sum, which changes no order.

    References:
      [SNIP] Eq. (5), (6).
    """
    slopes = tree.named_leaves(jax.grad(loss_fn)(params))
    return {
        name: jnp.abs(leaf.astype(jnp.float32) * slopes[name].astype(jnp.float32))
        for name, leaf in tree.select(params, where).items()
    }


def snip(
    loss_fn: LossFn,
    *,
    min_keep_ratio: float = 1e-3,
    where: tree.Where = tree.kernels,
) -> Pruner:
    """Prunes once, by connection sensitivity; until then the network is dense.

    Args:
      loss_fn: see `snip_scores`.
      min_keep_ratio: what every leaf keeps at the least, in [0, 1], rounded up.
      where: which leaves are pruned; the kernels by default.

    Returns:
      A pruner without variables, whose `masks` needs a `keep_ratio`.

    Raises:
      ValueError: if `min_keep_ratio` is outside [0, 1].

    References:
      [SNIP], Algorithm 1.
    """
    return by_score(
        "snip", snip_scores, loss_fn, min_keep_ratio=min_keep_ratio, where=where
    )
