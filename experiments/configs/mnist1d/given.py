"""Numbers of channels that are given, on MNIST-1D; ranking and training are free.

Command:
    python -m experiments train --config=mnist1d/given \
        --workdir=runs/mnist1d/given

Expected: see the table of MNIST-1D in docs/results.
"""

from experiments.configs import mnist1d
from experiments.plans.given import GIVEN


def get_config(model: str = "cnn1d_norm"):
    """Returns the config: the phases and the gates of DSA, equal widths."""
    config = mnist1d.channels(GIVEN, model)
    config.method.sharpness_growth = 1.2
    return config
