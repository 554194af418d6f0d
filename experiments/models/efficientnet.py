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

from collections.abc import Sequence

import flax.linen as nn

from experiments.models.inverted import Activation, InvertedResiduals, Stage

# Expansion, filters, number of blocks, stride of the first of them, kernel size.
_TABLE = (
    *((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3)),
    *((6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3)),
)
_STAGES = tuple(
    Stage(
        expansion=t,
        filters=c,
        blocks=n,
        stride=s,
        sizes=(k,),
        squeeze=0.25,
        activation=nn.silu,
    )
    for t, c, n, s, k in _TABLE
)


class EfficientNetB0(InvertedResiduals):
    """EfficientNet-B0; its attributes are those of `InvertedResiduals`."""

    stages: Sequence[Stage] = _STAGES
    activation: Activation = nn.silu
