"""The inverse of the soft threshold."""

from typing import Any

import jax
import jax.numpy as jnp


def inverse_soft_threshold(params: Any, threshold: Any) -> Any:
    """Return weights of which `params` are the soft threshold.

        theta_i = sign(w_i) (|w_i| + D)

    A weight that is zero gives zero, the middle of the values that it could come from.
    Weights smaller than the rounding of D are lost.

    Args:
      params: w, an array or a pytree of floating-point arrays of any shape.
      threshold: D >= 0, a scalar; unit: weight.

    Returns:
      theta, as `params`.

    Examples:
      >>> import jax.numpy as jnp
      >>> inverse_soft_threshold(jnp.array([-1.0, 0.0, 2.0]), 0.5).tolist()
      [-1.5, 0.0, 2.5]

    References:
      Chen et al., A Unified Framework for Soft Threshold Pruning, arXiv:2302.13019,
      2023: the initial mapping of the authors' code.
    """
    return jax.tree.map(
        lambda w: w + jnp.sign(w) * jnp.asarray(threshold, w.dtype), params
    )
