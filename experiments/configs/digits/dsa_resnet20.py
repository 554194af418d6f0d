"""DSA: channels of ResNet-20 on digits of 16x16, to half of the MACs.

Command:
    python -m experiments train --config=digits/dsa_resnet20 \
        --workdir=runs/digits/dsa_resnet20

Expected: test accuracy 99.35 % at 50 % of the MACs (mean of seeds 0, 1 and 2). Time:
about 1 min on two idle CPU cores. The other methods are in the table in README.
"""

from experiments.configs import default
from experiments.plans import channel_plans


def get_config():
    """Returns the config: 20 epochs, of which 10 fine-tune the compact network."""
    config = default.get_config()
    config.model = "resnet20"
    config.image_size = 16
    config.plan = channel_plans.dsa
    config.budget.macs = 0.5
    config.held_out = 0.1
    config.dense_epochs = 2.0
    config.prune_epochs = 8.0
    config.finetune_epochs = 10.0
    return config
