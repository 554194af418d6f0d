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

from collections.abc import Sequence

import flax.linen as nn

from experiments.models.inverted import Activation, InvertedResiduals, Stage

# Expansion, filters, number of blocks, stride of the first of them.
_TABLE = (
    *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
    *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
)
_STAGES = tuple(
    Stage(expansion=t, filters=c, blocks=n, stride=s, activation=nn.relu6)
    for t, c, n, s in _TABLE
)


class MobileNetV2(InvertedResiduals):
    """MobileNetV2 of full width; its attributes are those of `InvertedResiduals`."""

    stages: Sequence[Stage] = _STAGES
    activation: Activation = nn.relu6
