"""Residual networks for small images: ResNet-20, ResNet-32 and ResNet-56.

A 3x3 convolution with 16 filters, three stages of n basic blocks with 16, 32 and 64
filters (the second and third stage begin with stride 2), global average pooling and one
dense layer: 6n + 2 layers. Where a stage changes shape, the shortcut is a 1x1
convolution with batch normalisation (option B of the paper; the paper's own CIFAR
networks pad with zeros, option A). Convolution kernels are drawn from a truncated
normal of variance 2 / fan-out.

References:
    He et al., Deep Residual Learning for Image Recognition, CVPR 2016,
    arXiv:1512.03385, section 4.2.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.models.layers import layers_of

_CONVOLUTION = {
    "init": nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal"),
    "padding": "SAME",
}


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut around them.

    Attributes:
        filters: Output channels.
        stride: Stride of the first convolution and of the shortcut.
        axis_name: Mapped axis over which batch statistics are averaged.
        dtype: Type of the computation; parameters and statistics are float32.
    """

    filters: int
    stride: int
    axis_name: str | None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps (B, H, W, C) to (B, H / stride, W / stride, filters)."""
        conv, bn = layers_of(self, train=train, **_CONVOLUTION)
        conv = functools.partial(conv, self.filters)
        shortcut = x
        if x.shape[-1] != self.filters or self.stride != 1:
            shortcut = conv(1, stride=self.stride, name="shortcut_conv")(x)
            shortcut = bn(name="shortcut_bn")(shortcut)
        x = nn.relu(bn(name="bn1")(conv(3, stride=self.stride, name="conv1")(x)))
        x = bn(name="bn2")(conv(3, name="conv2")(x))
        return nn.relu(x + shortcut)


class ResNet(nn.Module):
    """A residual network of `6 * blocks_per_stage + 2` layers.

    Attributes:
        num_classes: Number of logits.
        blocks_per_stage: The paper's n: 3, 5 and 9 give ResNet-20, 32 and 56.
        axis_name: Mapped axis over which batch statistics are averaged.
        dtype: Type of the computation; parameters and statistics are float32.
    """

    num_classes: int
    blocks_per_stage: int
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Computes logits.

        Args:
            x: Images, shape (B, H, W, C); the paper's are (B, 32, 32, 3).
            train: Whether to normalise with the statistics of this batch and to update
                the collection `batch_stats`, which must then be mutable.

        Returns:
            Logits, shape (B, num_classes), float32.
        """
        conv, bn = layers_of(self, train=train, **_CONVOLUTION)
        x = conv(16, 3, name="conv0")(x)
        x = nn.relu(bn(name="bn0")(x))
        for stage, filters in enumerate((16, 32, 64), start=1):
            for block in range(1, self.blocks_per_stage + 1):
                x = Block(
                    filters,
                    stride=2 if stage > 1 and block == 1 else 1,
                    axis_name=self.axis_name,
                    dtype=self.dtype,
                    name=f"stage{stage}_block{block}",
                )(x, train=train)
        x = jnp.mean(x, axis=(1, 2))
        return nn.Dense(self.num_classes, dtype=jnp.float32, name="dense")(x)
