"""DSA of ResNet-56 on CIFAR-10 by the published recipe, to 50 % of its MACs.

Command (CIFAR-10 must be in `data_dir`, or be downloadable):
    python -m experiments.main --config=experiments/configs/dsa_resnet56_cifar10.py \
        --workdir=runs/dsa_resnet56_cifar10 --config.data_dir=$HOME/tensorflow_datasets

Expected: not measured yet; CIFAR-10 could not be downloaded where this was written.
The paper (baseline 93.12 %): 93.08 % at 70.7 % of FLOPs, 92.91 % at 47.8 %, 92.20 % at
32.6 %.
The paper leaves the classifier out of its costs; here it counts.
"""

from experiments.configs import dsa_resnet20_cifar10


def get_config():
    """Returns the config: the published recipe with another network."""
    config = dsa_resnet20_cifar10.get_config()
    config.model = "resnet56"
    config.budget.macs = 0.5
    return config
