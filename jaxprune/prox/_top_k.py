"""The two projections on a number of nonzero weights; see `jaxprune.prox`."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxprune.base._checks import check_fraction, is_static_number
from jaxprune.masks._counts import keep_count, traced_count
from jaxprune.masks._k_largest import largest
from jaxprune.prox._leaves import (
    broadcast_scaling,
    floating_leaf,
    leaf_name,
    map_leaves,
)


def top_k(params: Any, scaling: Any = 1.0, *, keep_ratio: Any) -> Any:
    """Minimise `|y - x|^2 / 2` over `|y|_0 <= k` per leaf.

        y_i = x_i if |x_i| is among the k largest, else 0
        k = floor(keep_ratio n)

    Exactly k entries of each leaf are kept; among equals the first in row-major order
    (entries that are zero anyway count as kept). A NaN counts as the largest.

    Args:
      params: x, an array or a pytree of floating-point arrays of any shape, each with
        its own n entries.
      scaling: without effect (a constraint has no strength); for the common
        signature.
      keep_ratio: the fraction kept, a number in [0, 1] or a traced scalar. A plain
        number gives k exactly, in decimal arithmetic; a traced one within one float32
        rounding of the product.

    Returns:
      y, as `params`. The derivative is 1 where kept, 0 elsewhere.

    Raises:
      ValueError: `keep_ratio` is outside [0, 1].
      TypeError: a leaf is not a floating-point array.

    Examples:
      >>> import jax.numpy as jnp
      >>> top_k(jnp.array([-2.0, 0.5, 2.0, 3.0]), keep_ratio=0.5).tolist()
      [-2.0, 0.0, 0.0, 3.0]

    References:
      Blumensath and Davies, Iterative Hard Thresholding for Compressed Sensing, 2009.
    """
    check_fraction("top_k", "keep_ratio", keep_ratio, closed=True)

    def rule(x, *_):
        (kept,) = largest([magnitudes(x)], _count(keep_ratio, x.size))
        return jnp.where(kept, x, 0)

    return map_leaves("top_k", rule, params, scaling)


def global_top_k(params: Any, scaling: Any = 1.0, *, keep_ratio: Any) -> Any:
    """Minimise `|y - x|^2 / 2` over `|y|_0 <= k` in the tree.

    As `top_k` with one k for all leaves together, so that a leaf of large weights keeps
    more of them. Equals are settled by the order of the tree's leaves, then row-major.

    Args:
      params: x, a pytree of floating-point arrays with n < 2^31 entries in all.
      scaling: without effect; for the common signature.
      keep_ratio: the fraction of the n entries kept, a number in [0, 1] or a traced
        scalar, rounded as in `top_k`.

    Returns:
      y, as `params`.

    Raises:
      ValueError: `keep_ratio` is outside [0, 1].
      TypeError: a leaf is not a floating-point array.

    Examples:
      >>> import jax.numpy as jnp
      >>> params = {"a": jnp.array([1.0, 5.0]), "b": jnp.array([3.0, -4.0])}
      >>> kept = global_top_k(params, keep_ratio=0.5)
      >>> kept["a"].tolist(), kept["b"].tolist()
      ([0.0, 5.0], [0.0, -4.0])

    References:
      Blumensath and Davies, Iterative Hard Thresholding for Compressed Sensing, 2009.
    """
    check_fraction("global_top_k", "keep_ratio", keep_ratio, closed=True)
    broadcast_scaling("global_top_k", params, scaling)
    leaves = [
        floating_leaf("global_top_k", leaf_name(path), x)
        for path, x in jax.tree_util.tree_leaves_with_path(params)
    ]
    if not leaves:
        return params
    size = sum(x.size for x in leaves)
    masks = largest([magnitudes(x) for x in leaves], _count(keep_ratio, size))
    kept = [jnp.where(mask, x, 0) for x, mask in zip(leaves, masks, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(params), kept)


def magnitudes(x: jax.Array) -> jax.Array:
    """Return the magnitudes by which entries are ranked, NaN as infinity.

    A NaN ranks highest and stays, so that it is not pruned without notice.
    """
    return jnp.where(jnp.isnan(x), jnp.inf, jnp.abs(x))


def _count(keep_ratio: Any, size: int) -> Any:
    """Return `floor(keep_ratio * size)`, exact for a plain number."""
    if is_static_number(keep_ratio):
        return keep_count(float(keep_ratio), size) if keep_ratio else 0
    return traced_count(keep_ratio, size)
