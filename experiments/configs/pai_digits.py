"""Pruning at initialisation of handwritten digits, by a short homotopy.

Command:
    python -m experiments.main --config=experiments/configs/pai_digits.py \
        --workdir=runs/pai_digits

Expected: 99.07 ± 0.42 % test accuracy at 95 % zeros (mean and sample standard
deviation of seeds 0, 1 and 2). Time: about 35 s on two idle CPU cores.
"""

from experiments import plans
from experiments.configs import default


def get_config():
    """Returns the config: 4 epochs find the mask, 36 train initial weights under it."""
    config = default.get_config()
    config.plan = plans.pgh
    config.rewind = True
    config.dense_epochs = 0.0
    config.prune_epochs = 4.0
    config.finetune_epochs = 36.0
    config.finetune_learning_rate = 0.05
    return config
