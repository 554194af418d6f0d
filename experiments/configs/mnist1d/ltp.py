"""LTP on MNIST-1D: a threshold learned for every layer.

Command:
    python -m experiments train --config=mnist1d/ltp \
        --workdir=runs/mnist1d/ltp

Expected: see the table of MNIST-1D in docs/results.
"""

from experiments.configs import mnist1d
from experiments.plans.ltp import LTP


def get_config(model: str = "cnn1d"):
    """Returns the config."""
    return mnist1d.protocol(LTP, model)
