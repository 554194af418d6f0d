"""Random pruning with layer densities by Erdos-Renyi-Kernel: the baseline to beat.

Which weights of a layer are kept is left to chance; how many is decided by its shape:
the more a layer has inputs and outputs for its size, the denser it stays.

References:
  [ERK] Evci et al., Rigging the Lottery: Making All Tickets Winners, arXiv:1911.11134,
    2020.
  [SET] Mocanu et al., Scalable training of artificial neural networks with adaptive
  sparse connectivity, 2018 (Erdos-Renyi).
"""

import math
from collections.abc import Mapping

import jax

from jaxprune import tree
from jaxprune.base._protocols import Pruner
from jaxprune.masks import _select as masks
from jaxprune.methods._one_shot import prune_once


def erk_counts(
    shapes: Mapping[str, tuple[int, ...]],
    *,
    keep_ratio: float,
    min_keep_ratio: float = 0.0,
) -> dict[str, int]:
    """Return how many weights each layer keeps.

        k_l = min(epsilon sum_d(n_ld) / prod_d(n_ld), 1)

    for a layer of shape `(n_l1, n_l2, ...)`, kernel axes included, with the epsilon
    that makes the counts add up. Dense layers get Erdos-Renyi densities, layers that
    would be more than whole are kept whole.

    Args:
      shapes: leaf name to shape.
      keep_ratio: of all weights together, in (0, 1].
      min_keep_ratio: in [0, 1], of each layer, rounded up.

    Returns:
      Leaf name to count; together exactly `floor(keep_ratio * n)`. What rounding down
      loses goes to the layers that lost most of it.

    Raises:
      ValueError: if an argument is out of range, or the floors exceed the count.

    >>> erk_counts({"conv": (3, 3, 16, 16), "dense": (1024, 10)}, keep_ratio=0.1)
    {'conv': 44, 'dense': 1210}

    References:
      [ERK] Sec. 3, "Sparsity distribution"; [SET] Eq. (1).
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    keep = masks.keep_count(keep_ratio, sum(sizes.values()))
    floors = {name: masks.layer_floor(n, min_keep_ratio) for name, n in sizes.items()}
    if sum(floors.values()) > keep:
        raise ValueError(
            f"`erk_counts(keep_ratio={keep_ratio}, min_keep_ratio={min_keep_ratio})`: "
            f"the layers together keep at least {sum(floors.values())}, more than the "
            f"{keep} asked for. Lower `min_keep_ratio`."
        )
    # Each pass fixes the layers that the common factor would take past a bound.
    exact: dict[str, float] = {}
    while len(exact) < len(sizes):
        free = {name: sum(shapes[name]) for name in sizes if name not in exact}
        factor = (keep - sum(exact.values())) / sum(free.values())
        over = {name: sizes[name] for name in free if factor * free[name] > sizes[name]}
        under = {
            name: floors[name] for name in free if factor * free[name] < floors[name]
        }
        exact |= over or under or {name: factor * free[name] for name in free}
    counts = {name: math.floor(exact[name]) for name in sizes}
    losers = sorted(sizes, key=lambda name: counts[name] - exact[name])
    for name in losers[: keep - sum(counts.values())]:
        counts[name] += 1
    return counts


def random_erk(
    key: jax.Array,
    *,
    min_keep_ratio: float = 1e-3,
    where: tree.Where = tree.kernels,
) -> Pruner:
    """Prunes once, at random, with the counts of `erk_counts`.

    Args:
      key: a typed PRNG key; the masks depend on it and on shapes alone.
      min_keep_ratio: what every leaf keeps at the least, in [0, 1], rounded up.
      where: which leaves are pruned; the kernels by default.

    Returns:
      A pruner without variables, whose `masks` needs a `keep_ratio`.

    Raises:
      ValueError: if `min_keep_ratio` is outside [0, 1].

    >>> import jax.numpy as jnp
    >>> pruner = random_erk(jax.random.key(0))
    >>> masks = pruner.masks({"kernel": jnp.ones((4, 5))}, {}, keep_ratio=0.25)
    >>> int(masks["kernel"].sum())
    5
    """

    def named_masks(params, keep_ratio):
        leaves = tree.select(params, where)
        counts = erk_counts(
            {name: leaf.shape for name, leaf in leaves.items()},
            keep_ratio=keep_ratio,
            min_keep_ratio=min_keep_ratio,
        )
        kept = {}
        for i, (name, leaf) in enumerate(leaves.items()):
            scores = jax.random.uniform(jax.random.fold_in(key, i), leaf.shape)
            kept[name] = masks.top_k_masks(scores, counts[name])
        return kept

    return prune_once(
        "random_erk", named_masks, min_keep_ratio=min_keep_ratio, where=where
    )
