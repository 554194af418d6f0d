"""Exact sizes: the threshold that keeps a given number of weights, and a ramp to it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxprune.base._checks import is_static_number
from jaxprune.masks._counts import keep_count, keep_ratio_of, traced_count
from jaxprune.masks._k_largest import kth_largest, largest
from jaxprune.prox._top_k import magnitudes as magnitudes
from jaxprune.schedules._ramps import cubic_ramp


def keep_ratio(sparsity: Any) -> Any:
    """Return `1 - sparsity`, in decimal arithmetic where it is a plain number."""
    if is_static_number(sparsity):
        return keep_ratio_of(float(sparsity))
    return 1 - jnp.asarray(sparsity, jnp.float32)


def number_to_keep(call: str, keep_ratio: Any, size: int) -> Any:
    """Return `floor(keep_ratio * size)`, exact for a plain number.

    Raises:
      ValueError: `size` is 2**31 or more: counts are int32.
    """
    if size >= 2**31:
        raise ValueError(
            f"`{call}(...)`: at most 2**31 - 1 weights can be ranked together, got"
            f" {size}. Select fewer with `where`, or use one transformation for each"
            " group of leaves with `optax.partition`."
        )
    if is_static_number(keep_ratio):
        return keep_count(float(keep_ratio), size)
    return traced_count(keep_ratio, size)


def ramped(keep: Any, size: int, step: jax.Array, steps: int) -> jax.Array:
    """Return how many weights to keep after `step` steps, int32.

    k_t = n - floor((n - k) (1 - (1 - t / T)^3)),   k_t = k from t = T on
    """
    share = cubic_ramp(0.0, 1.0, begin_step=0, end_step=steps)(step)
    removed = jnp.floor(jnp.asarray(size - keep, jnp.float32) * share)
    ramp = jnp.maximum(size - removed.astype(jnp.int32), keep)
    return jnp.where(step >= steps, keep, ramp).astype(jnp.int32)


def threshold_that_keeps(sizes: list[jax.Array], keep: Any) -> jax.Array:
    """Return the largest of the magnitudes that are not among the `keep` largest.

    Returns:
      A scalar; 0 where all are to be kept.
    """
    total = sum(x.size for x in sizes)
    last = np.minimum(keep + 1, total) if isinstance(keep, int) else keep + 1
    found = kth_largest(sizes, jnp.minimum(last, total))
    return jnp.where(keep >= total, 0, found)


def kept(
    sizes: list[jax.Array], threshold: jax.Array, keep: Any, exact: Any = True
) -> list[jax.Array]:
    """Return masks of the magnitudes above the threshold, exactly `keep` of them.

    Equal magnitudes at the threshold are settled by position; that is computed only in
    steps where there are such.

    Args:
      sizes: magnitudes, float arrays.
      threshold: from `threshold_that_keeps`, or another where `exact` is False.
      keep: how many to keep.
      exact: a bool scalar; False keeps what is above the threshold.

    Returns:
      bool arrays of the shapes of `sizes`.
    """
    above = [x > threshold for x in sizes]
    count = sum(jnp.sum(mask, dtype=jnp.int32) for mask in above)
    return jax.lax.cond(
        exact & (count < keep), lambda: largest(sizes, keep), lambda: above
    )


def shrunk(values: jax.Array, threshold: Any, params: jax.Array) -> jax.Array:
    """Return weights that are kept, with magnitudes smaller by `threshold`.

        sign(x) max(|x| - s, floor),   floor = max(2 eps |w|, the smallest normal)

    The floor counts where a kept weight is at its threshold to a rounding: the update
    from w to a value far below a unit in the last place of w would give exactly 0,
    which prunes it.

    Args:
      values: x, the weights that are kept, float32 or wider.
      threshold: s >= 0, a scalar or an array that broadcasts.
      params: w, the weights before the step, in their own dtype.

    Returns:
      An array like `values`.
    """
    limits = jnp.finfo(params.dtype)
    floor = jnp.maximum(2 * limits.eps * jnp.abs(params), limits.tiny)
    size = jnp.abs(values) - jnp.asarray(threshold, values.dtype)
    return jnp.sign(values) * jnp.maximum(size, floor.astype(values.dtype))


def share_of_the_rest(shape: Any, count: jax.Array) -> jax.Array:
    """Return the part of the way that is left which step `count` goes, in [0, 1].

        (x_{t+1} - x_t) / (1 - x_t), and 1 where x has arrived

    Args:
      shape: x, a schedule from 0 to 1.
      count: t, the steps taken so far.

    Returns:
      float32 scalar.
    """
    now, then = (jnp.asarray(shape(count + i), jnp.float32) for i in (0, 1))
    left = 1 - now
    share = jnp.where(left > 0, (then - now) / jnp.where(left > 0, left, 1), 1)
    return jnp.clip(share, 0, 1)


def zero_like(leaves: list[jax.Array]) -> jax.Array:
    """Return 0, float32 or wider, that varies over devices as the leaves do."""
    total = sum((jnp.max(x, initial=0) for x in leaves), jnp.zeros([], jnp.float32))
    return jnp.zeros_like(total)


def keep_largest(
    call: str,
    ratio: Any,
    steps: int,
    count: jax.Array,
    params: Any,
    moved: Any,
    metric: list[jax.Array] | None = None,
    *,
    shrink: bool = True,
) -> Any:
    """Keep the k_{t+1} largest weights, shrunk by the threshold that this stands for.

    Args:
      call: the public function, for messages.
      ratio: the keep ratio that is reached.
      steps: after how many steps; see `ramped`.
      count: the steps taken so far.
      params: the weights before the step, a tree of arrays.
      moved: where the optimizer moves them, a tree like `params`.
      metric: P by leaf: |w| / P is ranked, and the threshold of a weight is s P.
      shrink: whether weights that are kept are shrunk.

    Returns:
      A tree like `moved`.
    """
    leaves, structure = jax.tree.flatten(moved)
    if not leaves:
        return moved
    total = sum(x.size for x in leaves)
    keep = ramped(number_to_keep(call, ratio, total), total, count + 1, steps)
    metric = [jnp.ones([], x.dtype) for x in leaves] if metric is None else metric
    sizes = [magnitudes(x / m) for x, m in zip(leaves, metric, strict=True)]
    threshold = threshold_that_keeps(sizes, keep)
    masks = kept(sizes, threshold, keep)
    target = []
    for x, p, m, mask in zip(
        leaves, jax.tree.leaves(params), metric, masks, strict=True
    ):
        by = threshold.astype(x.dtype) * m if shrink else 0
        target.append(jnp.where(mask, shrunk(x, by, p), 0))
    return jax.tree.unflatten(structure, target)
