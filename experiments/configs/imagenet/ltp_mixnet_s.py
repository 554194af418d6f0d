"""LTP of MixNet-S on ImageNet, to half of the weights, from trained ones.

Command (ImageNet must be prepared in `data.dir`):
    python -m experiments train \
        --config=imagenet/ltp_mixnet_s \
        --workdir=runs/imagenet/ltp_mixnet_s \
        --config.data.dir=$HOME/tensorflow_datasets

Expected: not measured; ImageNet was not at hand where this was written. The paper
shows that LTP prunes this network, in numbers not known here; the dense one has
76.0 / 92.8 % top-1 / top-5.
The recipe is that of `imagenet/ltp_resnet50`.

Work: 5.5e16 operations, 0.2 hours at 1e14 a second (six for each
multiplication of the forward pass, image and epoch).
"""

from experiments.configs.imagenet import ltp_resnet50


def get_config():
    """Returns the recipe of ResNet-50 with the other network and size."""
    config = ltp_resnet50.get_config()
    config.model = "mixnet_s"
    config.phases.pretrained = "timm:mixnet_s.ft_in1k"
    config.budget.sparsity = 0.5
    return config
