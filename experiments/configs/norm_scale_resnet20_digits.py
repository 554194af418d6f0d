"""Norm scales: channels of ResNet-20 on digits of 16x16, to half of the MACs.

Command:
    python -m experiments.main \
        --config=experiments/configs/norm_scale_resnet20_digits.py \
        --workdir=runs/norm_scale_resnet20_digits

Expected: see the table of channels in README.
"""

from experiments import channel_plans
from experiments.configs import uniform_resnet20_digits


def get_config():
    """Returns the config: 10 dense epochs, a decision, 10 compact."""
    config = uniform_resnet20_digits.get_config()
    config.plan = channel_plans.norm_scale
    return config
