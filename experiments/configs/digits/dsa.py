"""DSA on handwritten digits: half of the MACs of a small convolutional network.

Command:
    python -m experiments train --config=digits/dsa \
        --workdir=runs/digits/dsa

Expected: test accuracy about 99.7 % at 49.9 % of the MACs (seed 0; one image is 0.28).
Time: 45 s on two CPU cores that are busy with other work.
"""

from experiments.configs import default
from experiments.plans.dsa import DSA


def get_config():
    """Returns the config: 20 epochs, of which 10 fine-tune the compact network.

    The dense layers have no norm, so filters say how important a channel is.
    """
    config = default.get_config(DSA)
    config.method.importance = "filter_norm"
    config.budget.macs = 0.5
    config.data.held_out = 0.1
    config.phases.dense = 2.0
    config.phases.prune = 8.0
    config.phases.finetune = 10.0
    return config
