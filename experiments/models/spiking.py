"""Spiking neurons: they gather what they are given, and send a 1 when it is enough.

References:
    Fang et al., Incorporating Learnable Membrane Time Constant to Enhance Learning of
    Spiking Neural Networks, ICCV 2021, arXiv:2007.05785, Eq. 1 to 5 (neurons).
    Fang et al., Deep Residual Learning in Spiking Neural Networks, NeurIPS 2021,
    arXiv:2102.04159, Sec. 3.1 and 4 (the derivative that is used; the reset that is
    not differentiated).
"""

import jax
import jax.numpy as jnp

_THRESHOLD = 1.0


@jax.custom_vjp
def spike(v: jax.Array) -> jax.Array:
    """Returns 1 where `v >= 0` and 0 elsewhere, of the shape and dtype of `v`.

    Its derivative is that of arctan(pi v) / pi + 1/2, which rises from 0 to 1 about
    v = 0: 1 / (1 + (pi v)^2).
    """
    return (v >= 0).astype(v.dtype)


def _spike_forward(v):
    return spike(v), v


def _spike_backward(v, g):
    return (g / (1 + jnp.square(jnp.pi * v)),)


spike.defvjp(_spike_forward, _spike_backward)


def neurons(current: jax.Array, *, tau: float | None = None) -> jax.Array:
    """Runs a neuron for every number over time, from rest.

    With the potential v, v_0 = 0, and the input x_t:

        h_t = v_(t-1) + x_t                  (IF), or
        h_t = v_(t-1) + (x_t - v_(t-1)) / tau   (LIF)
        s_t = 1 where h_t >= 1, else 0
        v_t = h_t (1 - s_t)

    The derivative of s_t is that of `spike`; none goes through the reset.

    Args:
        current: Input, shape (T, ...), of a floating dtype: time comes first.
        tau: Time constant in steps, above 1, of neurons that leak (LIF); `None` for
            neurons that do not (IF).

    Returns:
        Spikes, zeros and ones of the shape and dtype of `current`.
    """

    def step(v, x):
        h = v + x if tau is None else v + (x - v) / tau
        s = spike(h - _THRESHOLD)
        return h * (1 - jax.lax.stop_gradient(s)), s

    return jax.lax.scan(step, jnp.zeros_like(current[0]), current)[1]


def at_every_step(layer, x: jax.Array) -> jax.Array:
    """Applies a layer without memory to inputs of shape (T, B, ...), as one batch."""
    y = layer(x.reshape(-1, *x.shape[2:]))
    return y.reshape(*x.shape[:2], *y.shape[1:])
