"""Garrote on MNIST-1D: an exact size, with learned shares of the layers.

Command:
    python -m experiments train --config=mnist1d/garrote \
        --workdir=runs/mnist1d/garrote

Expected: see the table of MNIST-1D in docs/results.
"""

from experiments.configs import default, mnist1d
from experiments.plans.garrote import GARROTE


def get_config(model: str = "cnn1d"):
    """Returns the config."""
    return default.pruned_from_the_start(mnist1d.protocol(GARROTE, model))
