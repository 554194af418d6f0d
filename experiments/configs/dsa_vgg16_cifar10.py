"""DSA of VGG-16 on CIFAR-10 by the published recipe, to 30 % of its MACs.

Command (CIFAR-10 must be in `data_dir`, or be downloadable):
    python -m experiments.main --config=experiments/configs/dsa_vgg16_cifar10.py \
        --workdir=runs/dsa_vgg16_cifar10 --config.data_dir=$HOME/tensorflow_datasets

Expected: not measured yet; CIFAR-10 could not be downloaded where this was written.
The paper (baseline 93.48 %): 93.26 % at 30.85 % of FLOPs, 90.16 % at 4.90 %. (Its code
may have trained a VGG-19 under that name.)
The paper leaves the classifier out of its costs; here it counts.
"""

from experiments.configs import dsa_resnet20_cifar10


def get_config():
    """Returns the config: the published recipe with another network."""
    config = dsa_resnet20_cifar10.get_config()
    config.model = "vgg16"
    config.budget.macs = 0.3
    return config
