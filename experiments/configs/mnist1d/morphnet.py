"""MorphNet on MNIST-1D.

Command:
    python -m experiments train --config=mnist1d/morphnet \
        --workdir=runs/mnist1d/morphnet

Expected: see the table of MNIST-1D in docs/results.
"""

from experiments.configs import mnist1d
from experiments.plans.penalties import MORPHNET


def get_config(model: str = "cnn1d_norm"):
    """Returns the config."""
    return mnist1d.channels(MORPHNET, model)
