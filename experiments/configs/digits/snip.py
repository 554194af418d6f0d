"""SNIP on handwritten digits: pruning at initialisation by sensitivity.

Command:
    python -m experiments train --config=digits/snip \
        --workdir=runs/digits/snip

Expected: 98.80 ± 0.16 % test accuracy at 95 % zeros (mean and sample standard
deviation of seeds 0, 1 and 2). Time: about 35 s on two idle CPU cores.
"""

from experiments.configs import default
from experiments.plans import weight_plans


def get_config():
    """Returns the config: the mask comes first, then 40 epochs under it."""
    config = default.get_config()
    config.plan = weight_plans.snip
    config.rewind = True
    config.dense_epochs = 0.0
    config.prune_epochs = 1 / 22  # One step, which moves nothing.
    config.finetune_epochs = 40.0
    config.finetune_learning_rate = 0.05
    return config
