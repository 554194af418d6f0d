"""Global magnitude pruning on MNIST-1D: one threshold for all layers.

Command:
    python -m experiments train --config=mnist1d/magnitude \
        --workdir=runs/mnist1d/magnitude

Expected: see the table of MNIST-1D in docs/results.
"""

from experiments.configs import mnist1d
from experiments.plans.magnitude import GLOBAL_MAGNITUDE


def get_config(model: str = "cnn1d"):
    """Returns the config."""
    return mnist1d.protocol(GLOBAL_MAGNITUDE, model)
