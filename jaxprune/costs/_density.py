"""The cost of single weights: the fraction of them that is kept."""

from jaxprune import tree
from jaxprune.base._protocols import Params
from jaxprune.costs._polynomial import PolynomialCost, polynomial


def density(params: Params, where: tree.Where = tree.kernels) -> PolynomialCost:
    """Return the cost that is the fraction of the selected weights that is kept.

        cost = sum_l n_l k_l / sum_l n_l

    where k_l is the keep ratio of leaf l and n_l its size. If k_l is a vector (one
    entry for each of several stacked layers of equal size) its mean counts.

    Args:
      params: the parameters, possibly abstract: only shapes are used.
      where: the leaves that count; the selection given to the pruner.

    Returns:
      `keep_ratios -> float32 scalar`. Leaves without a keep ratio count as dense.

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
    kept = tuple((size, (i,)) for i, size in enumerate(sizes.values()))
    total = sum(sizes.values())
    return PolynomialCost(
        name="density",
        dense=total,
        sites=tuple(sizes),
        polynomial=polynomial({(kept,): total}, len(sizes)),
    )
