"""EfficientNet-B0: inverted residuals with squeeze and excitation.

A 3x3 convolution with 32 filters and stride 2, sixteen blocks with kernels of 3x3 and
5x5, a 1x1 convolution with 1280 filters, global average pooling and one dense layer:
5 288 548 parameters, 385.8 million multiplications an image of 224x224 pixels. A
squeeze has a quarter of the channels of its block's input. Padding is symmetric, as
timm's `efficientnet_b0` has it; dropout and stochastic depth are left out.

References:
    Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural
    Networks, ICML 2019, arXiv:1905.11946, Table 1.
"""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.models.inverted import InvertedResidual
from experiments.models.layers import convolution, norm

# Expansion, filters, number of blocks, stride of the first of them, kernel size.
_STAGES = (
    *((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3)),
    *((6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3)),
)


class EfficientNetB0(nn.Module):
    """EfficientNet-B0.

    Attributes:
        num_classes: Number of logits.
        axis_name: Mapped axis over which batch statistics are averaged.
        stages: Expansion, filters, number of blocks, first stride and kernel size of
            every stage.
    """

    num_classes: int
    axis_name: str | None = None
    stages: Sequence[tuple[int, int, int, int, int]] = _STAGES

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Computes logits.

        Args:
            x: Images, shape (B, H, W, C), H and W at least 32.
            train: Whether to normalise with the statistics of this batch and to update
                the collection `batch_stats`, which must then be mutable.

        Returns:
            Logits, shape (B, num_classes), float32.
        """
        bn = functools.partial(norm, train=train, axis_name=self.axis_name)
        x = nn.silu(bn(name="bn0")(convolution(32, 3, stride=2, name="conv0")(x)))
        index = 1
        for expansion, filters, blocks, stride, size in self.stages:
            for block in range(blocks):
                x = InvertedResidual(
                    filters,
                    self.axis_name,
                    stride=stride if block == 0 else 1,
                    expansion=expansion,
                    sizes=(size,),
                    squeeze=0.25,
                    activation=nn.silu,
                    name=f"block{index}",
                )(x, train=train)
                index += 1
        x = nn.silu(bn(name="bn1")(convolution(1280, 1, name="conv1")(x)))
        x = jnp.mean(x, axis=(1, 2))
        return nn.Dense(self.num_classes, dtype=jnp.float32, name="dense")(x)
