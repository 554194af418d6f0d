"""LATS on MNIST-1D: soft thresholds, to a given size without trials.

Command:
    python -m experiments train --config=mnist1d/lats \
        --workdir=runs/mnist1d/lats

Expected: see the table of MNIST-1D in docs/results.
"""

from experiments.configs import mnist1d
from experiments.plans.lats import LATS


def get_config(model: str = "cnn1d"):
    """Returns the config."""
    config = mnist1d.protocol(LATS, model)
    config.phases.dense = 2.5
    config.phases.prune = 35.0
    config.phases.finetune = 12.5
    return config
