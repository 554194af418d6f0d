"""Equal widths on MNIST-1D.

Command:
    python -m experiments train --config=mnist1d/uniform \
        --workdir=runs/mnist1d/uniform

Expected: see the table of MNIST-1D in docs/results.
"""

from experiments.configs import mnist1d
from experiments.plans.ranked import UNIFORM


def get_config(model: str = "cnn1d_norm"):
    """Returns the config."""
    return mnist1d.channels(UNIFORM, model, 1 / 40)
