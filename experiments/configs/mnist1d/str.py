"""STR on MNIST-1D: a soft threshold learned for every layer.

Command:
    python -m experiments train --config=mnist1d/str \
        --workdir=runs/mnist1d/str

Expected: see the table of MNIST-1D in docs/results.
"""

from experiments.configs import mnist1d
from experiments.plans.str import STR


def get_config(model: str = "cnn1d"):
    """Returns the config."""
    return mnist1d.protocol(STR, model)
