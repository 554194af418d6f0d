"""LATS on handwritten digits: soft thresholds, to an asked size without trials.

Command:
    python -m experiments.main --config=experiments/configs/lats_digits.py \
        --workdir=runs/lats_digits

Expected: 99.44 ± 0.00 % test accuracy at 95 % zeros (mean and sample standard
deviation of seeds 0, 1 and 2). Time: about 35 s on two idle CPU cores.
"""

from experiments import plans
from experiments.configs import default


def get_config():
    """Returns the config."""
    config = default.get_config()
    config.plan = plans.lats
    config.dense_epochs = 2.0
    config.prune_epochs = 28.0
    config.finetune_epochs = 10.0
    return config
