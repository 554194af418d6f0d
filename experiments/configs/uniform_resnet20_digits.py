"""Equal widths: channels of ResNet-20 on digits of 16x16, to half of the MACs.

Command:
    python -m experiments.main --config=experiments/configs/uniform_resnet20_digits.py \
        --workdir=runs/uniform_resnet20_digits

Expected: see the table of channels in README.
"""

from experiments import channel_plans
from experiments.configs import dsa_resnet20_digits


def get_config():
    """Returns the config: 10 dense epochs, a decision, 10 epochs compact."""
    config = dsa_resnet20_digits.get_config()
    config.plan = channel_plans.uniform
    config.dense_epochs = 10.0
    config.prune_epochs = 0.03
    return config
