"""MobileNet-V1: convolutions factored into one per channel and one per pixel.

A 3x3 convolution with 32 filters and stride 2, thirteen blocks, global average pooling
and one dense layer: 4 231 976 parameters, 569 million multiplications an image of
224x224 pixels. The kernels of the depthwise convolutions are 1 % of the weights.
Padding is symmetric, also where the stride is 2.

References:
    Howard et al., MobileNets: Efficient Convolutional Neural Networks for Mobile
    Vision Applications, 2017, arXiv:1704.04861, Table 1 (the stride of its last block
    is read as 1, since the table's own map stays 7x7 there).
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.models.layers import layers_of

# Filters and stride of every block.
_BLOCKS = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *((512, 1),) * 5,
    *((1024, 2), (1024, 1)),
)


class Separable(nn.Module):
    """A 3x3 convolution of every channel by itself, then a 1x1 one across them.

    Attributes:
        filters: Output channels.
        stride: Stride of the 3x3 convolution.
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
        conv, bn = layers_of(self, train=train)
        channels = x.shape[-1]
        x = conv(
            channels, 3, stride=self.stride, groups=channels, name="depthwise_conv"
        )(x)
        x = nn.relu(bn(name="depthwise_bn")(x))
        x = conv(self.filters, 1, name="pointwise_conv")(x)
        return nn.relu(bn(name="pointwise_bn")(x))


class MobileNetV1(nn.Module):
    """MobileNet-V1 of full width.

    Attributes:
        num_classes: Number of logits.
        axis_name: Mapped axis over which batch statistics are averaged.
        blocks: Filters and stride of every block.
        dtype: Type of the computation; parameters and statistics are float32.
    """

    num_classes: int
    axis_name: str | None = None
    blocks: Sequence[tuple[int, int]] = _BLOCKS
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Computes logits.

        Args:
            x: Images, shape (B, H, W, C); the paper's are (B, 224, 224, 3).
            train: Whether to normalise with the statistics of this batch and to update
                the collection `batch_stats`, which must then be mutable.

        Returns:
            Logits, shape (B, num_classes), float32.
        """
        conv, bn = layers_of(self, train=train)
        x = conv(32, 3, stride=2, name="conv0")(x)
        x = nn.relu(bn(name="bn0")(x))
        for index, (filters, stride) in enumerate(self.blocks, start=1):
            block = Separable(
                filters, stride, self.axis_name, self.dtype, name=f"block{index}"
            )
            x = block(x, train=train)
        x = jnp.mean(x, axis=(1, 2))
        return nn.Dense(self.num_classes, dtype=jnp.float32, name="dense")(x)
