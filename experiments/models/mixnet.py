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

from collections.abc import Sequence

import flax.linen as nn

from experiments.models.inverted import InvertedResiduals, Stage

# Expansion, filters, number of blocks, stride of the first of them, kernel sizes,
# fraction of the squeeze, shares of the first and of the last convolution.
_TABLE = (
    (1, 16, 1, 1, (3,), 0, 1, 1),
    (6, 24, 1, 2, (3,), 0, 2, 2),
    (3, 24, 1, 1, (3,), 0, 2, 2),
    (6, 40, 1, 2, (3, 5, 7), 0.5, 1, 1),
    (6, 40, 3, 1, (3, 5), 0.5, 2, 2),
    (6, 80, 1, 2, (3, 5, 7), 0.25, 1, 2),
    (6, 80, 2, 1, (3, 5), 0.25, 1, 2),
    (6, 120, 1, 1, (3, 5, 7), 0.5, 2, 2),
    (3, 120, 2, 1, (3, 5, 7, 9), 0.5, 2, 2),
    (6, 200, 1, 2, (3, 5, 7, 9, 11), 0.5, 1, 1),
    (6, 200, 2, 1, (3, 5, 7, 9), 0.5, 1, 2),
)
_STAGES = tuple(
    Stage(
        expansion=t,
        filters=c,
        blocks=n,
        stride=s,
        sizes=sizes,
        squeeze=squeeze,
        expand_shares=first,
        project_shares=last,
        activation=nn.silu if squeeze else nn.relu,
    )
    for t, c, n, s, sizes, squeeze, first, last in _TABLE
)


class MixNetS(InvertedResiduals):
    """MixNet-S; its attributes are those of `InvertedResiduals`."""

    stem: int = 16
    stages: Sequence[Stage] = _STAGES
    head: int = 1536
