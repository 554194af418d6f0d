"""SNIP: keep the weights whose removal changes the loss most, before any training.

A score is a function of the loss and the weights, and nothing else; ranked over the
whole network it becomes a mask. At initialisation this is pruning before training; on
trained weights it is first-order (Taylor) pruning.

References:
  [SNIP] Lee, Ajanthan, Torr, SNIP: Single-shot Network Pruning based on Connection
  Sensitivity, arXiv:1810.02340, 2019.
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


def snip_scores(
    loss_fn: LossFn, params: Params, *, where: tree.Where = tree.kernels
) -> dict[str, jax.Array]:
    """Return the connection sensitivity of every selected weight.

        s_i = |dL(c * w)/dc_i| at c = 1 = |w_i dL/dw_i|

    Args:
      loss_fn: L, on a sample of the training data; a hundred examples or more.
      params: w, a pytree of arrays.
      where: which leaves are scored; the kernels by default.

    Returns:
      Leaf name to scores, float32, of the shape of the leaf; unit: loss. The paper
      divides by their sum, which changes no order.

    Raises:
      ValueError, TypeError: see `jaxprune.tree.select`.

    Examples:
      >>> import jax.numpy as jnp
      >>> params = {"kernel": jnp.array([[1.0, -2.0, 3.0]])}
      >>> loss = lambda p: jnp.sum(p["kernel"] * jnp.array([0.5, 1.0, 0.0]))
      >>> snip_scores(loss, params)["kernel"].tolist()
      [[0.5, 2.0, 0.0]]

    References:
      [SNIP] Eq. (5), (6).
    """
    chosen = tree.select(params, where, call="snip_scores")
    return compiled(_scores, loss_fn)(params, chosen)


def _scores(loss_fn, params, chosen):
    _, slopes = loss_gradient(loss_fn, params, chosen)
    return {
        name: jnp.abs(leaf.astype(jnp.float32) * slopes[name].astype(jnp.float32))
        for name, leaf in chosen.items()
    }


def snip(
    loss_fn: LossFn,
    *,
    distribution: Distribution = global_,
    min_keep_ratio: Any = 1e-3,
    where: tree.Where = tree.kernels,
) -> Pruner:
    """Prune once, by connection sensitivity; until then the network is dense.

        m_i = 1 for the highest |w_i dL/dw_i|

    Args:
      loss_fn: see `snip_scores`.
      distribution: how what is kept is divided among layers; all weights are ranked
        together by default. See `jaxprune.magnitude`.
      min_keep_ratio: the minimum that every layer keeps, in [0, 1], rounded up, or
        shell pattern to such a number.
      where: which leaves are pruned; the kernels by default. Stacked layers and masks
        that already hold are declared by `jaxprune.selection`.

    Returns:
      A pruner without variables, whose `masks` needs a `keep_ratio`.

    Raises:
      ValueError: `min_keep_ratio` is outside [0, 1].

    Examples:
      >>> import jax.numpy as jnp
      >>> params = {"kernel": jnp.array([[1.0, -2.0, 3.0]])}
      >>> loss = lambda p: jnp.sum(p["kernel"] * jnp.array([0.5, 1.0, 0.0]))
      >>> snip(loss).masks(params, {}, keep_ratio=0.34)["kernel"].tolist()
      [[False, True, False]]

    References:
      [SNIP], Algorithm 1.
    """
    return prune_by_loss(
        "snip",
        _scores,
        loss_fn,
        distribution=distribution,
        min_keep_ratio=min_keep_ratio,
        where=where,
    )
