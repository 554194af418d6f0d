"""DSA of ResNet-50 on ImageNet by the published recipe, to 50 % of its MACs.

Command (ImageNet must be in `data.dir`):
    python -m experiments train --config=imagenet/dsa_resnet50 \
        --workdir=runs/imagenet/dsa_resnet50 --config.data.dir=$HOME/tensorflow_datasets

Expected: not measured yet; ImageNet could not be downloaded where this was written.
The paper (baseline 76.02 / 92.86 % top-1 / top-5): 75.10 / 92.45 % at 60 % of FLOPs,
74.69 / 92.06 % at 50 %.
The paper leaves the classifier out of its costs; here it counts.

Work: 3.8e18 operations, 10.5 hours at 1e14 a second (six for each
multiplication of the forward pass, image and epoch); the search, on held-out images,
comes on top.
"""

from experiments.configs.imagenet import dsa_resnet18


def get_config():
    """Returns the config: the published recipe with another network."""
    config = dsa_resnet18.get_config()
    config.model = "resnet50"
    config.budget.macs = 0.5
    return config
