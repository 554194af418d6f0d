"""SNIP on MNIST-1D: pruning at initialisation by sensitivity.

Command:
    python -m experiments train --config=mnist1d/snip \
        --workdir=runs/mnist1d/snip

Expected: see the table of MNIST-1D in docs/results.
"""

from experiments.configs import mnist1d
from experiments.plans.one_shot import SNIP


def get_config(model: str = "cnn1d"):
    """Returns the config: the mask comes first, by one step that moves nothing."""
    config = mnist1d.masked_first(SNIP, model, 1 / 40)
    config.phases.rewind = True
    return config
