"""VGG-16 for small images, with one dense layer, and for ImageNet, with three.

Thirteen 3x3 convolutions in five stages of 2, 2, 3, 3 and 3, with 64, 128, 256, 512 and
512 filters, each with batch normalisation and ReLU, and 2x2 max pooling behind each
stage.

`VGG16` has global average pooling and one dense layer behind them. On images of 32x32
pixels the last map is 1x1, so the average changes nothing there. Smaller images are
pooled as long as the map is larger than 1x1; larger ones are averaged. With 10 classes
14 724 042 parameters, 313 million multiplications an image of 32x32 pixels.

`VGG16BN` is torchvision's `vgg16_bn`, with its biases in front of the normalisations:
138 365 992 parameters, 15.47 billion multiplications an image of 224x224 pixels.

References:
    Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image
    Recognition, ICLR 2015, arXiv:1409.1556, Table 1, D. For small images with batch
    normalisation and one dense layer as in Li et al., Pruning Filters for Efficient
    ConvNets, ICLR 2017, arXiv:1608.08710, section 4.1.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.models.layers import FAN_IN, average_to, layers_of

_STAGES = (64, 2), (128, 2), (256, 3), (512, 3), (512, 3)


class VGG16(nn.Module):
    """VGG-16 with batch normalisation.

    Attributes:
        num_classes: Number of logits.
        axis_name: Mapped axis over which batch statistics are averaged.
        stages: Filters and number of convolutions of every stage.
        dtype: Type of the computation; parameters and statistics are float32.
    """

    num_classes: int
    axis_name: str | None = None
    stages: Sequence[tuple[int, int]] = _STAGES
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Computes logits.

        Args:
            x: Images, shape (B, H, W, C), usually (B, 32, 32, 3).
            train: Whether to normalise with the statistics of this batch and to update
                the collection `batch_stats`, which must then be mutable.

        Returns:
            Logits, shape (B, num_classes), float32.
        """
        conv, bn = layers_of(self, train=train)
        for stage, (filters, depth) in enumerate(self.stages, start=1):
            for layer in range(1, depth + 1):
                name = f"{stage}_{layer}"
                # A map smaller than the kernel gets its zeros by hand, and a barrier
                # keeps XLA from taking them into the convolution: on CPU that would
                # become a plain loop, forty times slower.
                by_hand = min(x.shape[1:3]) < 3
                if by_hand:
                    around = ((0, 0), (1, 1), (1, 1), (0, 0))
                    x = jax.lax.optimization_barrier(jnp.pad(x, around))
                padding = 0 if by_hand else None
                x = conv(filters, 3, padding=padding, name=f"conv{name}")(x)
                x = bn(name=f"bn{name}")(x)
                x = nn.relu(x)
            window = min(2, x.shape[1]), min(2, x.shape[2])
            x = nn.max_pool(x, window, window)
        x = jnp.mean(x, axis=(1, 2))
        return nn.Dense(self.num_classes, dtype=jnp.float32, name="dense")(x)


class VGG16BN(nn.Module):
    """VGG-16 with batch normalisation and three dense layers.

    Attributes:
        num_classes: Number of logits.
        axis_name: Mapped axis over which batch statistics are averaged.
        stages: Filters and number of convolutions of every stage.
        width: Outputs of the first and of the second dense layer.
        dropout: Share of these that is zero in training, drawn from the generator
            `dropout` of `apply(..., rngs=...)`.
        dtype: Type of the computation; parameters and statistics are float32.
    """

    num_classes: int
    axis_name: str | None = None
    stages: Sequence[tuple[int, int]] = _STAGES
    width: int = 4096
    dropout: float = 0.5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Computes logits.

        Args:
            x: Images, shape (B, H, W, C), H and W at least 32, usually 224.
            train: Whether to normalise with the statistics of this batch and to update
                the collection `batch_stats`, which must then be mutable, and to drop.

        Returns:
            Logits, shape (B, num_classes), float32.
        """
        _, bn = layers_of(self, train=train)
        for stage, (filters, depth) in enumerate(self.stages, start=1):
            for layer in range(1, depth + 1):
                name = f"{stage}_{layer}"
                conv = nn.Conv(
                    filters,
                    (3, 3),
                    padding=1,
                    kernel_init=FAN_IN,
                    dtype=self.dtype,
                    name=f"conv{name}",
                )
                x = nn.relu(bn(name=f"bn{name}")(conv(x)))
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = average_to(x, 7).reshape(x.shape[0], -1)
        for index in (1, 2):
            x = nn.Dense(self.width, dtype=self.dtype, name=f"dense{index}")(x)
            x = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(x))
        return nn.Dense(self.num_classes, dtype=jnp.float32, name="dense3")(x)
