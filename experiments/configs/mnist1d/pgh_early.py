"""Early pruning on MNIST-1D: a homotopy over a quarter of training.

Command:
    python -m experiments train --config=mnist1d/pgh_early \
        --workdir=runs/mnist1d/pgh_early

Expected: see the table of MNIST-1D in docs/results.
"""

from experiments.configs import mnist1d
from experiments.plans.lats import PGH


def get_config(model: str = "cnn1d"):
    """Returns the config."""
    config = mnist1d.masked_first(PGH, model, 12.5)
    config.title = "PGH, early"
    return config
