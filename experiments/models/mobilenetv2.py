"""MobileNetV2: inverted residuals with linear bottlenecks.

A 3x3 convolution with 32 filters and stride 2, seventeen blocks, a 1x1 convolution with
1280 filters, global average pooling and one dense layer: 3 504 872 parameters, 300.8
million multiplications an image of 224x224 pixels. A block widens its input six times
(the first does not), convolves every channel by itself and projects without activation;
where shape and stride allow it, its input is added. Padding is symmetric and
activations are cut at 6, so that weights trained elsewhere fit. The dropout of 0.2 in
front of the last layer is left out, as timm has it.

References:
    Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018,
    arXiv:1801.04381, Table 2.
"""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.models.inverted import InvertedResidual
from experiments.models.layers import convolution, norm

# Expansion, filters, number of blocks, stride of the first of them.
_STAGES = (
    *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
    *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
)


class MobileNetV2(nn.Module):
    """MobileNetV2 of full width.

    Attributes:
        num_classes: Number of logits.
        axis_name: Mapped axis over which batch statistics are averaged.
        stages: Expansion, filters, number of blocks and first stride of every stage.
    """

    num_classes: int
    axis_name: str | None = None
    stages: Sequence[tuple[int, int, int, int]] = _STAGES

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
        x = nn.relu6(bn(name="bn0")(convolution(32, 3, stride=2, name="conv0")(x)))
        index = 1
        for expansion, filters, blocks, stride in self.stages:
            for block in range(blocks):
                x = InvertedResidual(
                    filters,
                    self.axis_name,
                    stride=stride if block == 0 else 1,
                    expansion=expansion,
                    name=f"block{index}",
                )(x, train=train)
                index += 1
        x = nn.relu6(bn(name="bn1")(convolution(1280, 1, name="conv1")(x)))
        x = jnp.mean(x, axis=(1, 2))
        return nn.Dense(self.num_classes, dtype=jnp.float32, name="dense")(x)
