"""LTP of EfficientNet-B0 on ImageNet, to half of the weights, from trained ones.

Command (ImageNet must be prepared in `data.dir`):
    python -m experiments train \
        --config=imagenet/ltp_efficientnet_b0 \
        --workdir=runs/imagenet/ltp_efficientnet_b0 \
        --config.data.dir=$HOME/tensorflow_datasets

Expected: not measured; ImageNet was not at hand where this was written. The paper
shows that LTP prunes this network, in numbers not known here; the dense one has
77.7 / 93.5 % top-1 / top-5.
The recipe is that of `imagenet/ltp_resnet50`.

Work: 8.9e16 operations, 0.2 hours at 1e14 a second (six for each
multiplication of the forward pass, image and epoch).
"""

from experiments.configs.imagenet import ltp_resnet50


def get_config():
    """Returns the recipe of ResNet-50 with the other network and size."""
    config = ltp_resnet50.get_config()
    config.model = "efficientnet_b0"
    config.phases.pretrained = "timm:efficientnet_b0.ra_in1k"
    config.budget.sparsity = 0.5
    return config
