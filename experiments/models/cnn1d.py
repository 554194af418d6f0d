"""A small convolutional network for signals, with and without batch normalisation.

References:
    Greydanus and Kobak, Scaling Down Deep Learning with MNIST-1D, ICML 2024,
    arXiv:2011.14439 (the sizes of its convolutional network).
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.models.layers import layers_of


class _Convolution(nn.Module):
    """`nn.Conv(features, (size,), strides=2, padding=1)`, as one matrix product.

    XLA's convolution in one dimension takes three times as long on a CPU, and under
    `vmap` over the kernels many times as long. Names, shapes and initial values of the
    parameters are those of `nn.Conv`.

    Attributes:
        features: Output channels.
        size: Length of the kernel.
        use_bias: Whether a bias is added.
        dtype: Type of the computation; parameters are float32.
    """

    features: int
    size: int
    use_bias: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolves signals of shape (B, L, C)."""
        kernel = self.param(
            "kernel",
            nn.linear.default_kernel_init,
            (self.size, x.shape[-1], self.features),
            jnp.float32,
        )
        length = (x.shape[1] + 2 - self.size) // 2 + 1
        x = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
        taps = [x[:, i : i + 2 * length - 1 : 2] for i in range(self.size)]
        taps = jnp.stack(taps, axis=2).astype(self.dtype)
        x = jnp.einsum("blkc,kcf->blf", taps, kernel.astype(self.dtype))
        if self.use_bias:
            zeros = nn.initializers.zeros
            bias = self.param("bias", zeros, (self.features,), jnp.float32)
            x = x + bias.astype(self.dtype).reshape((1, 1, -1))
        return x


class CNN1D(nn.Module):
    """Three convolutions of 25 channels, kernels of 5, 3 and 3, stride 2, then dense.

    Attributes:
        num_classes: Number of logits.
        norms: Whether batch normalisation follows each convolution, in place of its
            bias.
        axis_name: Mapped axis over which batch statistics are averaged.
        dtype: Type of the computation; parameters and statistics are float32.
    """

    num_classes: int
    norms: bool = False
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Computes logits.

        Args:
            x: Signals, shape (B, L, C), L at least 3.
            train: Whether to normalise with the statistics of this batch and to update
                the collection `batch_stats`, which must then be mutable. Without
                norms it has no effect.

        Returns:
            Logits, shape (B, num_classes), float32.
        """
        _, bn = layers_of(self, train=train)
        conv = functools.partial(_Convolution, dtype=self.dtype)
        for index, size in enumerate((5, 3, 3), start=1):
            x = conv(25, size, not self.norms, name=f"conv{index}")(x)
            if self.norms:
                x = bn(name=f"bn{index}")(x)
            x = nn.relu(x)
        x = x.reshape((x.shape[0], -1))
        return nn.Dense(self.num_classes, dtype=jnp.float32, name="dense")(x)
