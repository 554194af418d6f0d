"""DSA on MNIST-1D: how many channels each layer keeps, by gradients.

Command:
    python -m experiments train --config=mnist1d/dsa \
        --workdir=runs/mnist1d/dsa

Expected: see the table of MNIST-1D in docs/results.
"""

from experiments.configs import mnist1d
from experiments.plans.dsa import DSA


def get_config(model: str = "cnn1d_norm"):
    """Returns the config."""
    config = mnist1d.channels(DSA, model)
    config.method.sharpness_growth = 1.2
    return config
