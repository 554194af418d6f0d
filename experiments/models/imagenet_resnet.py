"""Residual networks for ImageNet: ResNet-18, 34 and 50, as torchvision has them.

A 7x7 convolution with 64 filters and stride 2, a 3x3 max pooling with stride 2, four
stages of blocks with 64, 128, 256 and 512 filters (all but the first begin with
stride 2), global average pooling and one dense layer. The bottleneck of ResNet-50 has
its stride in the 3x3 convolution ("v1.5"; in the paper it is in the first 1x1). Padding
is symmetric, also where the stride is 2, so that weights trained elsewhere fit.

ResNet-50 has 25 557 032 parameters and takes 4.09 billion multiplications an image of
224x224 pixels, ResNet-34 has 21 797 672 and takes 3.66 billion, ResNet-18 has
11 689 512 and takes 1.81 billion. With the stem for small images and 10 classes
ResNet-18 has 11 173 962 and takes 555 million at 32x32 pixels.

References:
    He et al., Deep Residual Learning for Image Recognition, CVPR 2016,
    arXiv:1512.03385, Table 1.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.models.layers import halving_pool, layers_of


class Basic(nn.Module):
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
        conv, bn = layers_of(self, train=train)
        y = conv(self.filters, 3, stride=self.stride, name="conv1")(x)
        y = nn.relu(bn(name="bn1")(y))
        y = bn(name="bn2")(conv(self.filters, 3, name="conv2")(y))
        return nn.relu(y + _shortcut(x, self.filters, self.stride, conv, bn))


class Bottleneck(nn.Module):
    """Convolutions of 1x1, 3x3 and 1x1 to four times the filters, and a shortcut.

    Attributes:
        filters: Channels of the first two convolutions; a quarter of the output's.
        stride: Stride of the 3x3 convolution and of the shortcut.
        axis_name: Mapped axis over which batch statistics are averaged.
        dtype: Type of the computation; parameters and statistics are float32.
    """

    filters: int
    stride: int
    axis_name: str | None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps (B, H, W, C) to (B, H / stride, W / stride, 4 filters)."""
        conv, bn = layers_of(self, train=train)
        wide = 4 * self.filters
        y = nn.relu(bn(name="bn1")(conv(self.filters, 1, name="conv1")(x)))
        y = conv(self.filters, 3, stride=self.stride, name="conv2")(y)
        y = nn.relu(bn(name="bn2")(y))
        y = bn(name="bn3")(conv(wide, 1, name="conv3")(y))
        return nn.relu(y + _shortcut(x, wide, self.stride, conv, bn))


class ImageNetResNet(nn.Module):
    """A residual network with a stem for large images.

    Attributes:
        num_classes: Number of logits.
        block: `Basic` or `Bottleneck`.
        blocks: Number of blocks of each stage: `(2, 2, 2, 2)` of `Basic` is ResNet-18,
            `(3, 4, 6, 3)` of `Bottleneck` ResNet-50.
        axis_name: Mapped axis over which batch statistics are averaged.
        small_images: Whether to begin with a 3x3 convolution of stride 1 and no
            pooling, as is usual for images of 32x32 pixels.
        dtype: Type of the computation; parameters and statistics are float32.
    """

    num_classes: int
    block: type[Basic] | type[Bottleneck]
    blocks: Sequence[int]
    axis_name: str | None = None
    small_images: bool = False
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
        size, stride = (3, 1) if self.small_images else (7, 2)
        x = conv(64, size, stride=stride, name="conv0")(x)
        x = nn.relu(bn(name="bn0")(x))
        if not self.small_images:
            x = halving_pool(x)
        for stage, count in enumerate(self.blocks, start=1):
            for block in range(1, count + 1):
                x = self.block(
                    32 * 2**stage,
                    stride=2 if stage > 1 and block == 1 else 1,
                    axis_name=self.axis_name,
                    dtype=self.dtype,
                    name=f"stage{stage}_block{block}",
                )(x, train=train)
        x = jnp.mean(x, axis=(1, 2))
        return nn.Dense(self.num_classes, dtype=jnp.float32, name="dense")(x)


def _shortcut(x: jax.Array, filters: int, stride: int, conv, bn) -> jax.Array:
    """The input of a block, brought to the shape of its output (option B)."""
    if x.shape[-1] == filters and stride == 1:
        return x
    x = conv(filters, 1, stride=stride, name="shortcut_conv")(x)
    return bn(name="shortcut_bn")(x)
