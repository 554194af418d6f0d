"""The cost of single weights: the fraction of them that is kept."""

import jax.numpy as jnp
import numpy as np

from jaxprune import tree
from jaxprune.base._protocols import Cost, Params


def density(params: Params, where: tree.Where = tree.kernels) -> Cost:
    """Return the cost that is the fraction of the selected weights that is kept.

        cost = sum_l n_l k_l / sum_l n_l

    where k_l is the keep ratio of leaf l and n_l its size. If k_l is a vector (one
    entry for each of several stacked layers of equal size) its mean counts.

    Args:
      params: the parameters, possibly abstract: only shapes are used.
      where: the leaves that count; the selection given to the pruner.

    Returns:
      `keep_ratios -> float32 scalar`. Leaves without a keep ratio count as kept whole.

    Raises:
      ValueError: if no leaf is selected. When the cost is called: if `keep_ratios`
        names a site that is not selected.

    Examples:
      >>> import jax.numpy as jnp
      >>> params = {"a": jnp.ones((3, 10)), "b": jnp.ones((1, 10))}
      >>> cost = density(params)
      >>> float(cost({"a": jnp.float32(0.5), "b": jnp.float32(1.0)}))
      0.625

    References:
      [LTP] Azarian et al., "Learned Threshold Pruning", 2020, arXiv:2003.00075,
      Eq. (6), divided by the number of weights.
    """
    sizes = tree.sizes(params, where)
    total = sum(sizes.values())
    shares = np.array([size / total for size in sizes.values()], np.float32)

    def cost(keep_ratios):
        unknown = keep_ratios.keys() - sizes.keys()
        if unknown:
            raise ValueError(
                f"`density(params)(keep_ratios)`: no selected leaf is called "
                f"{sorted(unknown)}; the selected leaves are {list(sizes)}. Give the "
                "cost the same `where` as the pruner."
            )
        dtype = jnp.result_type(jnp.float32, *keep_ratios.values())
        ratios = (jnp.asarray(keep_ratios.get(n, 1.0), dtype) for n in sizes)
        means = [jnp.mean(ratio) if ratio.ndim else ratio for ratio in ratios]
        return jnp.sum(shares * jnp.stack(means))

    cost.__name__ = "density"
    return cost
