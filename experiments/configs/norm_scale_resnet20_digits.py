"""Norm scales: channels of ResNet-20 on digits of 16x16, to half of the MACs.

Command:
    python -m experiments.main \
        --config=experiments/configs/norm_scale_resnet20_digits.py \
        --workdir=runs/norm_scale_resnet20_digits

Expected: see the table of channels in README.
"""

from experiments import channel_plans
from experiments.configs import default


def get_config():
    """Returns the config: 10 dense epochs, a decision, 10 compact."""
    config = default.get_config()
    config.model = "resnet20"
    config.image_size = 16
    config.plan = channel_plans.norm_scale
    config.budget.macs = 0.5
    config.held_out = 0.1
    config.dense_epochs = 10.0
    config.prune_epochs = 0.03
    config.finetune_epochs = 10.0
    return config
