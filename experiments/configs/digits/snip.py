"""SNIP on handwritten digits: pruning at initialisation by sensitivity.

Command:
    python -m experiments train --config=digits/snip \
        --workdir=runs/digits/snip

Expected: 98.80 ± 0.16 % test accuracy at 95 % zeros (mean and sample standard
deviation of seeds 0, 1 and 2). Time: about 35 s on two idle CPU cores.
"""

from experiments.configs import default
from experiments.plans.one_shot import SNIP


def get_config():
    """Returns the config: the mask comes first, then 40 epochs under it."""
    config = default.get_config(SNIP)
    config.phases.rewind = True
    config.phases.dense = 0.0
    config.phases.prune = 1 / 22  # One step, which moves nothing.
    config.phases.finetune = 40.0
    config.optimizer.finetune_learning_rate = 0.05
    return config
