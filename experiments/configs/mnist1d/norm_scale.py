"""Norm scales on MNIST-1D: one ranking of all channels.

Command:
    python -m experiments train --config=mnist1d/norm_scale \
        --workdir=runs/mnist1d/norm_scale

Expected: see the table of MNIST-1D in docs/results.
"""

from experiments.configs import mnist1d
from experiments.plans.ranked import NORM_SCALE


def get_config(model: str = "cnn1d_norm"):
    """Returns the config."""
    return mnist1d.channels(NORM_SCALE, model, 1 / 40)
