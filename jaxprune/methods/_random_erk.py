"""Random pruning with layer densities by Erdos-Renyi-Kernel: the baseline to beat.

Which weights of a layer are kept is left to chance; how many is decided by its shape:
the more a layer has inputs and outputs for its size, the denser it stays.

References:
  [ERK] Evci et al., Rigging the Lottery: Making All Tickets Winners, arXiv:1911.11134,
    2020.
"""

from typing import Any

import jax

from jaxprune import tree
from jaxprune.base._checks import check_key
from jaxprune.base._protocols import Pruner
from jaxprune.masks._distributions import Distribution, erk
from jaxprune.methods._one_shot import prune_once


def random_erk(
    key: jax.Array,
    *,
    distribution: Distribution = erk,
    min_keep_ratio: Any = 1e-3,
    where: tree.Where = tree.kernels,
) -> Pruner:
    """Prune once, at random, with as many weights in each layer as `masks.erk` says.

        k_l = min(epsilon sum_d n_ld, n_l)

    Args:
      key: a typed PRNG key; the masks depend on it and on shapes alone.
      distribution: how what is kept is divided among layers; see `jaxprune.magnitude`.
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
      >>> pruner = random_erk(jax.random.key(0))
      >>> masks = pruner.masks({"kernel": jnp.ones((4, 5))}, {}, keep_ratio=0.25)
      >>> int(masks["kernel"].sum())
      5

    References:
      [ERK] Sec. 3, "Sparsity distribution".
    """
    check_key("random_erk", key)

    def scores(net):
        return {
            name: _uniform(jax.random.fold_in(key, i), leaf)
            for i, (name, leaf) in enumerate(net.arrays.items())
        }

    return prune_once(
        "random_erk",
        scores,
        distribution=distribution,
        min_keep_ratio=min_keep_ratio,
        where=where,
    )


def _uniform(key, leaf):
    """Return a random number for each weight, sharded as the leaf is."""
    sharding = jax.typeof(leaf).sharding if isinstance(leaf, jax.Array) else None
    if sharding is not None and any(axis is not None for axis in sharding.spec):
        return jax.random.uniform(key, leaf.shape, out_sharding=sharding)
    return jax.random.uniform(key, leaf.shape)
