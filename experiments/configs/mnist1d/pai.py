"""Pruning at initialisation on MNIST-1D, by a short homotopy.

Command:
    python -m experiments train --config=mnist1d/pai \
        --workdir=runs/mnist1d/pai

Expected: see the table of MNIST-1D in docs/results.
"""

from experiments.configs import mnist1d
from experiments.plans.lats import PGH


def get_config(model: str = "cnn1d"):
    """Returns the config."""
    config = mnist1d.masked_first(PGH, model, 5.0)
    config.title = "PGH, at initialisation"
    config.phases.rewind = True
    return config
