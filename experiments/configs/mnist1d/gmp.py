"""GMP on MNIST-1D: magnitude pruning with Erdos-Renyi densities of the layers.

Command:
    python -m experiments train --config=mnist1d/gmp \
        --workdir=runs/mnist1d/gmp

Expected: see the table of MNIST-1D in docs/results.
"""

from experiments.configs import mnist1d
from experiments.plans.magnitude import MAGNITUDE


def get_config(model: str = "cnn1d"):
    """Returns the config."""
    return mnist1d.protocol(MAGNITUDE, model)
