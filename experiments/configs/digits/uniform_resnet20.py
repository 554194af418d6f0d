"""Equal widths: channels of ResNet-20 on digits of 16x16, to half of the MACs.

Command:
    python -m experiments train --config=digits/uniform_resnet20 \
        --workdir=runs/digits/uniform_resnet20

Expected: see the table of channels in README.
"""

from experiments.configs.digits import dsa_resnet20
from experiments.plans import channel_plans


def get_config():
    """Returns the config: 10 dense epochs, a decision, 10 epochs compact."""
    config = dsa_resnet20.get_config()
    config.plan = channel_plans.uniform
    config.dense_epochs = 10.0
    config.prune_epochs = 0.03
    return config
