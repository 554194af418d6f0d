"""Random pruning at initialisation on handwritten digits, densities by ERK.

Command:
    python -m experiments train --config=digits/erk \
        --workdir=runs/digits/erk

Expected: 99.26 ± 0.32 % test accuracy at 95 % zeros (mean and sample standard
deviation of seeds 0, 1 and 2). Time: about 35 s on two idle CPU cores.
"""

from experiments.configs import default
from experiments.plans import weight_plans


def get_config():
    """Returns the config: the mask comes first, then 40 epochs under it."""
    config = default.get_config()
    config.plan = weight_plans.random_erk
    config.rewind = True
    config.dense_epochs = 0.0
    config.prune_epochs = 1 / 22  # One step, which moves nothing.
    config.finetune_epochs = 40.0
    config.finetune_learning_rate = 0.05
    return config
