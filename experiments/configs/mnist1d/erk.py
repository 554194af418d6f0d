"""Random pruning on MNIST-1D, at initialisation, with densities by shape.

Command:
    python -m experiments train --config=mnist1d/erk \
        --workdir=runs/mnist1d/erk

Expected: see the table of MNIST-1D in docs/results.
"""

from experiments.configs import mnist1d
from experiments.plans.one_shot import RANDOM_ERK


def get_config(model: str = "cnn1d"):
    """Returns the config: the mask comes first, by one step that moves nothing."""
    config = mnist1d.masked_first(RANDOM_ERK, model, 1 / 40)
    config.phases.rewind = True
    return config
