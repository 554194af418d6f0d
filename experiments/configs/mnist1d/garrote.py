"""Garrote on MNIST-1D: an exact size, with learned shares of the layers.

Command:
    python -m experiments train --config=mnist1d/garrote \
        --workdir=runs/mnist1d/garrote

Expected: see the table of MNIST-1D in README.
"""

from experiments.configs import mnist1d
from experiments.plans.garrote import GARROTE


def get_config(model: str = "cnn1d"):
    """Returns the config."""
    config = mnist1d.protocol(GARROTE, model)
    config.phases.dense = 0.0
    config.phases.prune = 35.0
    config.phases.finetune = 15.0
    config.optimizer.end_learning_rate_factor = 0.2
    config.optimizer.finetune_learning_rate = config.optimizer.learning_rate
    return config
