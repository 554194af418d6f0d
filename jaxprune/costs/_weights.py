"""The cost of single weights: the fraction of them that is kept."""

import jax.numpy as jnp

from jaxprune import tree
from jaxprune.base._protocols import Cost, Params


def density(params: Params, where: tree.Where = tree.kernels) -> Cost:
    """The fraction of the selected weights that is kept.

        cost = sum_l n_l k_l / sum_l n_l

    where k_l is the keep ratio of leaf l and n_l its size. If k_l is a vector (one
    entry for each of several stacked layers of equal size) its mean counts.

    Args:
      params: the parameters, possibly abstract: only shapes are used.
      where: the leaves that count; the selection given to the pruner.

    Returns:
      `keep_ratios -> float32 scalar`. Leaves without a keep ratio count as kept whole.

    Raises:
      ValueError: when called, if `keep_ratios` names a site that is not selected.

    >>> import jax.numpy as jnp
    >>> params = {"a": jnp.ones((3, 10)), "b": jnp.ones((1, 10))}
    >>> cost = density(params)
    >>> float(cost({"a": jnp.float32(0.5), "b": jnp.float32(1.0)}))
    0.625
    """
    sizes = tree.sizes(params, where)
    total = sum(sizes.values())

    def cost(keep_ratios):
        unknown = keep_ratios.keys() - sizes.keys()
        if unknown:
            raise ValueError(
                f"`density`: no selected leaf is called {sorted(unknown)}; the "
                f"selected leaves are {list(sizes)}. Give the cost the same `where` as "
                "the pruner."
            )
        ratio = jnp.float32(0)
        for name, size in sizes.items():
            share = jnp.float32(size / total)
            ratio += share * jnp.mean(keep_ratios.get(name, jnp.float32(1)))
        return ratio

    return cost
