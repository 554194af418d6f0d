"""DSA: channels of ResNet-20 on digits of 16x16, to half of the MACs.

Command:
    python -m experiments train --config=digits/dsa_resnet20 \
        --workdir=runs/digits/dsa_resnet20

Expected: test accuracy 99.35 % at 50 % of the MACs (mean of seeds 0, 1 and 2). Time:
about 1 min on two idle CPU cores. The other methods are in the table in docs/results.
"""

from experiments.configs import default
from experiments.plans.dsa import DSA


def get_config():
    """Returns the config: 20 epochs, of which 10 fine-tune the compact network."""
    config = default.get_config(DSA)
    config.model = "resnet20"
    config.data.image_size = 16
    config.budget.macs = 0.5
    config.data.held_out = 0.1
    config.phases.dense = 2.0
    config.phases.prune = 8.0
    config.phases.finetune = 10.0
    return config
