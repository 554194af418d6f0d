"""DSA of ResNet-18 on CIFAR-10 by the published recipe, to 25 % of its MACs.

Command (CIFAR-10 must be prepared in that folder):
    python -m experiments train --config=cifar10/dsa_resnet18 \
        --workdir=runs/cifar10/dsa_resnet18 --config.data.dir=$HOME/tensorflow_datasets

Expected: not measured yet; CIFAR-10 could not be downloaded where this was written.
The paper (baseline 94.0 %): 94.19 % at 22.46 % of FLOPs, 93.90 % at 17.54 %.
The paper leaves the classifier out of its costs; here it counts.
"""

from experiments.configs.cifar10 import dsa_resnet20


def get_config():
    """Returns the config: the published recipe with another network."""
    config = dsa_resnet20.get_config()
    config.model = "resnet18_cifar"
    config.budget.macs = 0.25
    return config
