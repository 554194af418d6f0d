"""DSA of VGG-16 on CIFAR-10 by the published recipe, to 30 % of its MACs.

Command (CIFAR-10 must be prepared in that folder):
    python -m experiments train --config=cifar10/dsa_vgg16 \
        --workdir=runs/cifar10/dsa_vgg16 --config.data.dir=$HOME/tensorflow_datasets

Expected: not measured yet; CIFAR-10 could not be downloaded where this was written.
The paper (baseline 93.48 %): 93.26 % at 30.85 % of FLOPs, 90.16 % at 4.90 %. (Its code
may have trained a VGG-19 under that name.)
The paper leaves the classifier out of its costs; here it counts.
"""

from experiments.configs.cifar10 import dsa_resnet20


def get_config():
    """Returns the config: the published recipe with another network."""
    config = dsa_resnet20.get_config()
    config.model = "vgg16"
    config.budget.macs = 0.3
    return config
