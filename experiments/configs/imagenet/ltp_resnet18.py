"""LTP of ResNet-18 on ImageNet, to a ninth of the weights, from trained ones.

Command (ImageNet must be prepared in `data.dir`):
    python -m experiments train \
        --config=imagenet/ltp_resnet18 \
        --workdir=runs/imagenet/ltp_resnet18 \
        --config.data.dir=$HOME/tensorflow_datasets

Expected: not measured; ImageNet was not at hand where this was written. The paper's
numbers for this network are not known here; the dense network has 69.8 / 89.1 % top-1 /
top-5.
The recipe is that of `imagenet/ltp_resnet50`.

Work: 4.2e17 operations, 1.2 hours at 1e14 a second (six for each
multiplication of the forward pass, image and epoch).
"""

from experiments.configs.imagenet import ltp_resnet50


def get_config():
    """Returns the recipe of ResNet-50 with the other network."""
    config = ltp_resnet50.get_config()
    config.model = "resnet18"
    config.phases.pretrained = "timm:resnet18.tv_in1k"
    return config
