"""Smooth gates and their derivatives: mathematics of one array.

Gate arithmetic is done in float32 whatever the dtype of the weights, because squared
weights are of order 1e-4 and their differences smaller still.
"""

import jax
import jax.numpy as jnp


def _gate(weights, threshold, temperature):
    squared = jnp.square(weights.astype(jnp.float32))
    return jax.nn.sigmoid((squared - threshold) / temperature)


def _soft_prune(weights, threshold, temperature):
    gate = _gate(weights, threshold, temperature)
    pruned = (weights.astype(jnp.float32) * gate).astype(weights.dtype)
    return pruned, _sum_to(gate, threshold.shape)


def _sum_to(x, shape):
    """Sums `x` over the axes along which an array of `shape` would be broadcast."""
    shape = (1,) * (x.ndim - len(shape)) + tuple(shape) if shape else ()
    axes = [
        i for i in range(x.ndim) if not shape or (shape[i] == 1 and x.shape[i] != 1)
    ]
    return jnp.sum(x, axis=tuple(axes), keepdims=bool(shape))


@jax.custom_vjp
def _soft_prune_vjp(weights, threshold, temperature):
    return _soft_prune(weights, threshold, temperature)


def _forward(weights, threshold, temperature):
    # Only the arguments are kept: the gate, which is as large as the weights, is
    # computed again on the way back.
    return _soft_prune(weights, threshold, temperature), (
        weights,
        threshold,
        temperature,
    )


def _backward(residuals, cotangents):
    weights, threshold, temperature = residuals
    pruned_bar, count_bar = cotangents
    gate = _gate(weights, threshold, temperature)
    pruned_bar = pruned_bar.astype(jnp.float32)
    weights_bar = (pruned_bar * gate).astype(weights.dtype)
    slope = gate * (1 - gate)
    inner = (pruned_bar * weights.astype(jnp.float32) + count_bar) * slope
    threshold_bar = -_sum_to(inner, threshold.shape) / temperature
    return weights_bar, threshold_bar, jnp.zeros_like(temperature)


_soft_prune_vjp.defvjp(_forward, _backward)


def soft_prune(
    weights: jax.Array, threshold: jax.Array, temperature: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Prunes softly and counts softly, in one pass over the weights.

    With the gate `s = sigmoid((w**2 - tau) / T)` it computes the pruned weights and
    the differentiable L0 "norm"

        v = w * s                                        [LTP] Eq. (2)
        n = sum(s)                                       [LTP] Eq. (6)

    with the derivatives

        dv/dw = s,   dn/dw = 0                           [LTP] Eq. (14)
        dv/dtau = -w s (1 - s) / T,   dn/dtau = -sum(s (1 - s)) / T

    that is, the two terms of the true derivative in w that peak like 1/T are left out,
    as the paper does, so that the count moves thresholds only; the derivatives in tau
    are exact. The temperature is a constant: its derivative is zero. The backward pass
    keeps only the arguments and computes the gate again.

    Args:
      weights: shape (...), any floating dtype.
      threshold: tau, float32, shape () or any shape that broadcasts to `weights` with
        the same number of axes; unit: squared weight.
      temperature: T > 0, float32, of the shape of `threshold`; unit: squared weight.

    Returns:
      The pruned weights, of the shape and dtype of `weights`, and the soft count,
      float32 of the shape of `threshold`.

    >>> import jax.numpy as jnp
    >>> w = jnp.array([0.0, 1.0, -2.0])
    >>> v, n = soft_prune(w, jnp.float32(1.0), jnp.float32(0.1))
    >>> v.tolist(), round(float(n), 3)
    ([0.0, 0.5, -2.0], 1.5)

    References:
      [LTP] Azarian et al., Learned Threshold Pruning, 2020, arXiv:2003.00075.
    """
    threshold = jnp.asarray(threshold, jnp.float32)
    temperature = jnp.broadcast_to(
        jnp.asarray(temperature, jnp.float32), threshold.shape
    )
    # Inside `shard_map` all three must vary over the same axes for their derivatives
    # to have the right types; adding a zero that varies as the others do sees to it.
    threshold = threshold + jnp.zeros_like(weights, jnp.float32, shape=())
    temperature = temperature + jnp.zeros_like(threshold)
    return _soft_prune_vjp(weights, threshold, temperature)
