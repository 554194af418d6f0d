"""MixNet-S: inverted residuals whose channels are convolved with kernels of many sizes.

A 3x3 convolution with 16 filters and stride 2, fifteen blocks, a 1x1 convolution with
1536 filters, global average pooling and one dense layer: 4 134 606 parameters, 239.2
million multiplications of convolutions and dense layers an image of 224x224 pixels (the
paper says 256 million FLOPs, and not of what). Parameters and arithmetic are those of
timm's `mixnet_s`; dropout and stochastic depth are left out.

References:
    Tan and Le, MixConv: Mixed Depthwise Convolutional Kernels, BMVC 2019,
    arXiv:1907.09595, Fig. 6. That the 1x1 convolutions of some blocks are split in two
    shares is in the authors' code.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.models.inverted import InvertedResidual
from experiments.models.layers import convolution, norm


class _Stage(NamedTuple):
    """Equal blocks."""

    blocks: int
    filters: int
    stride: int  # of the first block
    expansion: int
    sizes: tuple[int, ...]
    squeeze: float
    expand_shares: int
    project_shares: int


_STAGES = (
    _Stage(1, 16, 1, 1, (3,), 0, 1, 1),
    _Stage(1, 24, 2, 6, (3,), 0, 2, 2),
    _Stage(1, 24, 1, 3, (3,), 0, 2, 2),
    _Stage(1, 40, 2, 6, (3, 5, 7), 0.5, 1, 1),
    _Stage(3, 40, 1, 6, (3, 5), 0.5, 2, 2),
    _Stage(1, 80, 2, 6, (3, 5, 7), 0.25, 1, 2),
    _Stage(2, 80, 1, 6, (3, 5), 0.25, 1, 2),
    _Stage(1, 120, 1, 6, (3, 5, 7), 0.5, 2, 2),
    _Stage(2, 120, 1, 3, (3, 5, 7, 9), 0.5, 2, 2),
    _Stage(1, 200, 2, 6, (3, 5, 7, 9, 11), 0.5, 1, 1),
    _Stage(2, 200, 1, 6, (3, 5, 7, 9), 0.5, 1, 2),
)


class MixNetS(nn.Module):
    """MixNet-S.

    Attributes:
        num_classes: Number of logits.
        axis_name: Mapped axis over which batch statistics are averaged.
    """

    num_classes: int
    axis_name: str | None = None

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
        x = nn.relu(bn(name="bn0")(convolution(16, 3, stride=2, name="conv0")(x)))
        index = 1
        for stage in _STAGES:
            for block in range(stage.blocks):
                x = InvertedResidual(
                    stage.filters,
                    self.axis_name,
                    stride=stage.stride if block == 0 else 1,
                    expansion=stage.expansion,
                    sizes=stage.sizes,
                    squeeze=stage.squeeze,
                    expand_shares=stage.expand_shares,
                    project_shares=stage.project_shares,
                    activation=nn.silu if stage.squeeze else nn.relu,
                    name=f"block{index}",
                )(x, train=train)
                index += 1
        x = nn.relu(bn(name="bn1")(convolution(1536, 1, name="conv1")(x)))
        x = jnp.mean(x, axis=(1, 2))
        return nn.Dense(self.num_classes, dtype=jnp.float32, name="dense")(x)
