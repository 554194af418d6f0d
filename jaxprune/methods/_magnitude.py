"""Magnitude pruning: keep the largest weights. The smallest complete method.

| symbol | here | source |
|---|---|---|
| s_t, sparsity over time | `sparsity` | [GMP] Eq. (1), `schedules.cubic_ramp` |

Pruned weights get no gradient from the task, but they are not erased: when others
shrink below them they come back.

References:
  [GMP] Zhu and Gupta, To prune, or not to prune, 2017, arXiv:1710.01878.
"""

import jax
import jax.numpy as jnp
import optax

from jaxprune import tree
from jaxprune.base._protocols import Pruned, Pruner
from jaxprune.masks import _select as masks


def magnitude(
    *,
    sparsity: optax.ScalarOrSchedule,
    min_keep_ratio: float = 1e-3,
    where: tree.Where = tree.kernels,
) -> Pruner:
    """Keeps in every leaf the same fraction of its weights, the largest.

    Args:
      sparsity: fraction of zeros, in [0, 1), a number or a schedule of the step.
      min_keep_ratio: what every leaf keeps at the least, in [0, 1], rounded up.
      where: which leaves are pruned; the kernels by default.

    Returns:
      A pruner without variables. A scheduled `sparsity` needs `step` in `apply`, and
      `keep_ratio` in `masks`.

    Raises:
      ValueError: if a number given for `sparsity` is outside [0, 1).

    >>> import jax.numpy as jnp
    >>> params = {"kernel": jnp.array([[0.1, 3.0], [-2.0, 0.2]])}
    >>> magnitude(sparsity=0.5).apply(params, {}).params["kernel"].tolist()
    [[0.0, 3.0], [-2.0, 0.0]]
    """
    return _magnitude(masks.uniform_masks, sparsity, min_keep_ratio, where)


def global_magnitude(
    *,
    sparsity: optax.ScalarOrSchedule,
    min_keep_ratio: float = 1e-3,
    where: tree.Where = tree.kernels,
) -> Pruner:
    """Keeps the largest weights of all selected leaves together.

    Args:
      sparsity: see `magnitude`.
      min_keep_ratio: see `magnitude`.
      where: see `magnitude`.

    Returns:
      A pruner without variables; see `magnitude`.

    Raises:
      ValueError: if a number given for `sparsity` is outside [0, 1).

    >>> import jax.numpy as jnp
    >>> params = {"a": jnp.array([[0.1, 3.0]]), "b": jnp.array([[-2.0, 5.0]])}
    >>> masks = global_magnitude(sparsity=0.5).masks(params, {})
    >>> masks["a"].tolist(), masks["b"].tolist()
    ([[False, True]], [[False, True]])
    """
    return _magnitude(masks.global_masks, sparsity, min_keep_ratio, where)


def _magnitude(cut, sparsity, min_keep_ratio, where) -> Pruner:
    masks.layer_floor(0, min_keep_ratio)  # checks the range
    fixed = None if callable(sparsity) else masks.keep_ratio_of(sparsity)

    def masks_at(params, keep_ratio):
        sizes = {
            name: jnp.abs(jax.lax.stop_gradient(leaf).astype(jnp.float32))
            for name, leaf in tree.select(params, where).items()
        }
        return cut(sizes, keep_ratio=keep_ratio, min_keep_ratio=min_keep_ratio)

    def apply(params, variables, /, *, key=None, step=None):
        del variables, key
        keep_ratio = fixed
        if keep_ratio is None:
            if step is None:
                raise ValueError(
                    "`magnitude(sparsity=schedule).apply(params, variables)`: a "
                    "schedule needs the step. Call `apply(..., step=step)`."
                )
            keep_ratio = 1 - jnp.asarray(sparsity(step))
        kept = masks_at(params, keep_ratio)
        ratios = {name: jnp.mean(m, dtype=jnp.float32) for name, m in kept.items()}
        return Pruned(masks.apply_masks(params, masks.fill(params, kept)), ratios)

    def hard_masks(params, variables, /, *, keep_ratio=None):
        del variables
        keep_ratio = fixed if keep_ratio is None else keep_ratio
        if keep_ratio is None:
            raise ValueError(
                "`magnitude(sparsity=schedule).masks(params, variables)`: with a "
                "schedule the fraction to keep must be given, got keep_ratio=None. "
                "Call `masks(..., keep_ratio=...)`."
            )
        return masks.fill(params, masks_at(params, keep_ratio))

    return Pruner(lambda params, /: {}, apply, hard_masks)
