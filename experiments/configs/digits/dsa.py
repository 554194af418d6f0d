"""DSA on handwritten digits: half of the MACs of a small convolutional network.

Command:
    python -m experiments train --config=digits/dsa \
        --workdir=runs/digits/dsa

Expected: test accuracy about 99.7 % at 49.9 % of the MACs (seed 0; one image is 0.28).
Time: 45 s on two CPU cores that are busy with other work.
"""

from experiments.configs import default
from experiments.plans import channel_plans


def get_config():
    """Returns the config: 20 epochs, of which 10 fine-tune the compact network.

    The dense layers have no norm, so filters say how important a channel is.
    """
    config = default.get_config()
    config.plan = channel_plans.dsa
    config.importance = "filter_norm"
    config.budget.macs = 0.5
    config.held_out = 0.1
    config.dense_epochs = 2.0
    config.prune_epochs = 8.0
    config.finetune_epochs = 10.0
    return config
