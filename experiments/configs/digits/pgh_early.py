"""Early pruning of handwritten digits: a homotopy over a quarter of training.

Command:
    python -m experiments train --config=digits/pgh_early \
        --workdir=runs/digits/pgh_early

Expected: 99.44 ± 0.28 % test accuracy at 95 % zeros (mean and sample standard
deviation of seeds 0, 1 and 2). Time: about 35 s on two idle CPU cores.
"""

from experiments.configs import default
from experiments.plans import weight_plans


def get_config():
    """Returns the config: 10 epochs find the mask, 30 train on under it."""
    config = default.get_config()
    config.plan = weight_plans.pgh
    config.dense_epochs = 0.0
    config.prune_epochs = 10.0
    config.finetune_epochs = 30.0
    config.finetune_learning_rate = 0.05
    return config
