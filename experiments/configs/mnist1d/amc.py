"""AMC-like search on MNIST-1D: trial and error on held-out data.

Command:
    python -m experiments train --config=mnist1d/amc \
        --workdir=runs/mnist1d/amc

Expected: see the table of MNIST-1D in docs/results.
"""

from experiments.configs import mnist1d
from experiments.plans.evolution import EVOLUTION


def get_config(model: str = "cnn1d_norm"):
    """Returns the config."""
    return mnist1d.channels(EVOLUTION, model, 1 / 40)
