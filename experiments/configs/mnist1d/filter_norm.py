"""Filter norms (L1) on MNIST-1D: one ranking of all channels.

Command:
    python -m experiments train --config=mnist1d/filter_norm \
        --workdir=runs/mnist1d/filter_norm

Expected: see the table of MNIST-1D in docs/results.
"""

from experiments.configs import mnist1d
from experiments.plans.ranked import FILTER_NORM


def get_config(model: str = "cnn1d_norm"):
    """Returns the config."""
    return mnist1d.channels(FILTER_NORM, model, 1 / 40)
