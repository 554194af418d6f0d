"""The smooth gate of learned threshold pruning: mathematics of one array.

Gate arithmetic is done in float32 whatever the dtype of the weights, because squared
weights are of order 1e-4 and their differences smaller still.
"""

import jax
import jax.numpy as jnp


def _gate(weights, threshold, temperature, scale):
    squared = jnp.square(weights.astype(jnp.float32) / scale)
    return jax.nn.sigmoid((squared - threshold) / temperature)


def _sum_to(x, shape):
    """Sum `x` to a shape that broadcasts to it: () or one of as many axes."""
    axes = [i for i in range(x.ndim) if not shape or shape[i] != x.shape[i]]
    return jnp.sum(x, axis=axes, keepdims=bool(shape))


@jax.custom_jvp
def _soft_prune(weights, threshold, temperature, scale):
    gate = _gate(weights, threshold, temperature, scale)
    pruned = (weights.astype(jnp.float32) * gate).astype(weights.dtype)
    return pruned, _sum_to(gate, threshold.shape)


@_soft_prune.defjvp
def _soft_prune_jvp(primals, tangents):
    weights, threshold, temperature, scale = primals
    weights_dot, threshold_dot, _, _ = tangents
    gate = _gate(weights, threshold, temperature, scale)
    wide = weights.astype(jnp.float32)
    pruned = (wide * gate).astype(weights.dtype)
    falls = gate * (1 - gate) * (threshold_dot / temperature)
    pruned_dot = gate * weights_dot.astype(jnp.float32) - wide * falls
    return (
        (pruned, _sum_to(gate, threshold.shape)),
        (pruned_dot.astype(weights.dtype), -_sum_to(falls, threshold.shape)),
    )


def soft_prune(
    weights: jax.Array,
    threshold: jax.Array,
    temperature: jax.Array,
    scale: jax.Array | float = 1.0,
) -> tuple[jax.Array, jax.Array]:
    """Prune softly and count softly, in one pass over the weights.

    With the gate `s = sigmoid(((w / c)**2 - tau) / T)` it computes the pruned weights
    and the differentiable L0 "norm"

        v = w * s                                        [LTP] Eq. (2)
        n = sum(s)                                       [LTP] Eq. (6)

    with the derivatives

        dv/dw = s,   dn/dw = 0                           [LTP] Eq. (14)
        dv/dtau = -w s (1 - s) / T,   dn/dtau = -sum(s (1 - s)) / T

    that is, the two terms of the true derivative in w that peak like 1/T are left out,
    as the paper does, so that the count moves thresholds only; the derivatives in tau
    are exact. Temperature and scale are constants: their derivatives are zero. Forward
    and reverse mode agree; the backward pass keeps only the arguments and computes the
    gate again.

    Args:
      weights: w, shape (...), any floating dtype.
      threshold: tau, float32, shape () or any shape that broadcasts to `weights` with
        the same number of axes; unit: squared `w / c`.
      temperature: T > 0, float32, of the shape of `threshold` or (); unit as
        `threshold`.
      scale: c > 0, float32, of the shape of `threshold` or (); unit: weight.

    Returns:
      The pruned weights, of the shape and dtype of `weights`, and the soft count,
      float32 of the shape of `threshold`.

    Examples:
      >>> import jax.numpy as jnp
      >>> w = jnp.array([0.0, 1.0, -2.0])
      >>> v, n = soft_prune(w, jnp.float32(1.0), jnp.float32(0.1))
      >>> v.tolist(), round(float(n), 3)
      ([0.0, 0.5, -2.0], 1.5)

    References:
      [LTP] Azarian et al., Learned Threshold Pruning, 2020, arXiv:2003.00075.
    """
    threshold = jnp.asarray(threshold, jnp.float32)
    temperature, scale = (
        jnp.broadcast_to(jnp.asarray(x, jnp.float32), threshold.shape)
        for x in (temperature, scale)
    )
    return _gated(weights, threshold, temperature, scale)


# Recomputed from its arguments on the way back: a gate is as large as the weights. One
# program and one trace serve all leaves of a shape.
_gated = jax.jit(jax.checkpoint(_soft_prune))
