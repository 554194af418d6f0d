"""Channel garrote on MNIST-1D: limits met at every step, with learned widths.

Command:
    python -m experiments train --config=mnist1d/channel_garrote \
        --workdir=runs/mnist1d/channel_garrote

Expected: see the table of MNIST-1D in docs/results.
"""

from experiments.configs import mnist1d
from experiments.plans.channel_garrote import CHANNEL_GARROTE


def get_config(model: str = "cnn1d_norm"):
    """Returns the config: it prunes from the first step, and holds nothing out."""
    config = mnist1d.channels(CHANNEL_GARROTE, model, epochs=25.0)
    config.data.held_out = 0.0
    config.optimizer.finetune_learning_rate = config.optimizer.learning_rate
    return config
