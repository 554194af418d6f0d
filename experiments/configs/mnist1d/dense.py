"""The dense network on MNIST-1D, as long as a pruning run.

Command:
    python -m experiments train --config=mnist1d/dense \
        --workdir=runs/mnist1d/dense

Expected: see the table of MNIST-1D in docs/results.
"""

from experiments.configs import mnist1d
from experiments.plans.optimizers import DENSE


def get_config(model: str = "cnn1d"):
    """Returns the config."""
    config = mnist1d.protocol(DENSE, model)
    config.phases.dense = 50.0
    config.phases.prune = 0.0
    config.phases.finetune = 0.0
    return config
