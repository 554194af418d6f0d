"""DSA of ResNet-56 on CIFAR-10 by the published recipe, to 50 % of its MACs.

Command (CIFAR-10 must be prepared in that folder):
    python -m experiments train --config=cifar10/dsa_resnet56 \
        --workdir=runs/cifar10/dsa_resnet56 --config.data.dir=$HOME/tensorflow_datasets

Expected: not measured yet; CIFAR-10 could not be downloaded where this was written.
The paper (baseline 93.12 %): 93.08 % at 70.7 % of FLOPs, 92.91 % at 47.8 %, 92.20 % at
32.6 %.
The paper leaves the classifier out of its costs; here it counts.
"""

from experiments.configs.cifar10 import dsa_resnet20


def get_config():
    """Returns the config: the published recipe with another network."""
    config = dsa_resnet20.get_config()
    config.model = "resnet56"
    config.budget.macs = 0.5
    return config
