"""Filter norms (L1): channels of ResNet-20 on digits of 16x16, to half of the MACs.

Command:
    python -m experiments train \
        --config=digits/filter_norm_resnet20 \
        --workdir=runs/digits/filter_norm_resnet20

Expected: see the table of channels in README.
"""

from experiments.configs.digits import uniform_resnet20
from experiments.plans import channel_plans


def get_config():
    """Returns the config: 10 dense epochs, a decision, 10 compact."""
    config = uniform_resnet20.get_config()
    config.plan = channel_plans.filter_norm
    return config
