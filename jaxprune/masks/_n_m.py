"""N:M patterns: n of every m consecutive weights are kept.

References:
  [N:M] Zhou et al., Learning N:M Fine-grained Structured Sparse Neural Networks From
  Scratch, ICLR 2021, arXiv:2102.04010.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxprune.base._checks import is_whole


def n_m_masks(scores: jax.Array, n: int, m: int, *, axis: int = 0) -> jax.Array:
    """Keep the n highest of every m consecutive scores along an axis.

        m_i = 1 where fewer than n scores of its m rank before s_i         [N:M] Eq. (1)

    Args:
      scores: float or integer, any shape.
      n: how many are kept, from 1 to m.
      m: the length of a group; divides the size of the axis.
      axis: the axis along which groups lie: that over which the product sums.

    Returns:
      A bool array of the same shape, with exactly n True in every group; of equal
      scores the first are kept.

    Raises:
      ValueError: n or m is out of range, or m does not divide the axis.

    Examples:
      >>> n_m_masks(jnp.array([3.0, 1.0, 2.0, 2.0]), 2, 4).tolist()
      [True, False, True, False]

    References:
      [N:M].
    """
    n, m = check_pattern("n_m_masks", (n, m))
    size = scores.shape[axis]
    if size % m:
        raise ValueError(
            f"`n_m_masks(m={m})`: must divide the size of the axis, {size}. Pass scores"
            " of whole groups."
        )
    moved = jnp.moveaxis(scores, axis, -1)
    groups = moved.reshape(*moved.shape[:-1], size // m, m)
    one, other = groups[..., :, None], groups[..., None, :]
    place = jnp.arange(m).reshape(*(1,) * (groups.ndim - 1), m)
    first = place[..., None, :] < place[..., :, None]
    before = jnp.sum((other > one) | ((other == one) & first), axis=-1)
    return jnp.moveaxis((before < n).reshape(moved.shape), -1, axis)


def check_pattern(call: str, pattern: Any) -> tuple[int, int]:
    """Return an N:M pattern, refusing what is none.

    Args:
      call: the function called.
      pattern: a pair.

    Raises:
      ValueError: it is no pair of whole numbers, 1 <= n <= m.
    """
    pair = isinstance(pattern, tuple | list) and len(pattern) == 2
    if not (pair and all(map(is_whole, pattern)) and 1 <= pattern[0] <= pattern[1]):
        raise ValueError(
            f"`{call}(n, m)`: an N:M pattern must be two whole numbers, 1 <= n <= m, "
            f"got {pattern!r}. Pass (2, 4) to keep two of every four."
        )
    return int(pattern[0]), int(pattern[1])
