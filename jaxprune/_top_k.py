"""The two projections on a number of nonzero weights; see :mod:`jaxprune.prox`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxprune._leaves import broadcast_scaling, floating_leaf, leaf_name, map_leaves
from jaxprune._numbers import check_fraction, is_static_number


def top_k(params: Any, scaling: Any = 1.0, *, keep_ratio: Any) -> Any:
    r"""Minimise :math:`\tfrac12\|y - x\|_2^2` over :math:`\|y\|_0 \le k` per leaf.

    .. math::
       y_i = x_i \;\text{if}\; |x_i| \;\text{is among the}\; k \;\text{largest, else}\;
       0, \qquad k = \mathrm{round}(\mathrm{keep\_ratio} \cdot n)

    Exactly k entries of each leaf are kept; among equals the first in row-major order
    (entries that are zero anyway count as kept). A NaN counts as the largest.

    Args:
      params: x, an array or a pytree of floating-point arrays of any shape, each with
        its own n entries.
      scaling: without effect (a constraint has no strength); for the common
        signature.
      keep_ratio: the fraction kept, a number in [0, 1] or a traced scalar. A plain
        number gives k exactly; a traced one within one float32 rounding of the
        product. A half is rounded to the even count.

    Returns:
      y, as ``params``. The derivative is 1 where kept, 0 elsewhere.

    Raises:
      ValueError: ``keep_ratio`` is outside [0, 1].
      TypeError: a leaf is not a floating-point array.

    Examples:
      >>> import jax.numpy as jnp
      >>> top_k(jnp.array([-2.0, 0.5, 2.0, 3.0]), keep_ratio=0.5).tolist()
      [-2.0, 0.0, 0.0, 3.0]
    """
    check_fraction("top_k", "keep_ratio", keep_ratio, closed=True)

    def rule(x, *_):
        kept = _largest(_magnitudes(x), _count(keep_ratio, x.size))
        return jnp.where(kept.reshape(x.shape), x, 0)

    return map_leaves("top_k", rule, params, scaling)


def global_top_k(params: Any, scaling: Any = 1.0, *, keep_ratio: Any) -> Any:
    r"""Minimise :math:`\tfrac12\|y - x\|_2^2` over :math:`\|y\|_0 \le k` in the tree.

    As :func:`top_k` with one k for all leaves together, so that a leaf of large
    weights keeps more of them. Equals are settled by the order of the tree's leaves,
    then row-major.

    Args:
      params: x, a pytree of floating-point arrays with n < 2^31 entries in all.
      scaling: without effect; for the common signature.
      keep_ratio: the fraction of the n entries kept, a number in [0, 1] or a traced
        scalar, rounded as in :func:`top_k`.

    Returns:
      y, as ``params``.

    Raises:
      ValueError: ``keep_ratio`` is outside [0, 1].
      TypeError: a leaf is not a floating-point array.

    Examples:
      >>> import jax.numpy as jnp
      >>> params = {"a": jnp.array([1.0, 5.0]), "b": jnp.array([3.0, -4.0])}
      >>> kept = global_top_k(params, keep_ratio=0.5)
      >>> kept["a"].tolist(), kept["b"].tolist()
      ([0.0, 5.0], [0.0, -4.0])
    """
    check_fraction("global_top_k", "keep_ratio", keep_ratio, closed=True)
    broadcast_scaling("global_top_k", params, scaling)
    leaves = [
        floating_leaf("global_top_k", leaf_name(path), x)
        for path, x in jax.tree_util.tree_leaves_with_path(params)
    ]
    if not leaves:
        return params
    dtype = jnp.result_type(jnp.float32, *(x.dtype for x in leaves))
    magnitudes = jnp.concatenate([_magnitudes(x.astype(dtype)) for x in leaves])
    kept = _largest(magnitudes, _count(keep_ratio, magnitudes.size))
    ends = np.cumsum([x.size for x in leaves])
    seen = [
        jnp.where(mask.reshape(x.shape), x, 0)
        for x, mask in zip(leaves, jnp.split(kept, ends[:-1]), strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(params), seen)


def _magnitudes(x: jax.Array) -> jax.Array:
    """Return the flat magnitudes by which entries are ranked, NaN as infinity."""
    return jnp.where(jnp.isnan(x), jnp.inf, jnp.abs(x)).reshape(-1)


def _count(keep_ratio: Any, size: int) -> Any:
    """Return ``round(keep_ratio * size)``, exact for a plain number."""
    if is_static_number(keep_ratio):
        return round(float(keep_ratio) * size)
    product = jnp.asarray(keep_ratio) * size
    return jnp.clip(jnp.round(product), 0, size).astype(jnp.int32)


def _largest(magnitudes: jax.Array, count: Any) -> jax.Array:
    """Return the mask of the ``count`` largest, the first ones among equals."""
    size = magnitudes.size
    if size == 0:
        return jnp.zeros_like(magnitudes, bool)
    smallest_kept = jnp.sort(magnitudes)[jnp.clip(size - count, 0, size - 1)]
    above = magnitudes > smallest_kept
    equal = magnitudes == smallest_kept
    room = count - jnp.sum(above, dtype=jnp.int32)
    return above | (equal & (jnp.cumsum(equal, dtype=jnp.int32) <= room))
