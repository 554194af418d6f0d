"""LATS on handwritten digits: soft thresholds, to an asked size without trials.

Command:
    python -m experiments.main --config=experiments/configs/lats_digits.py \
        --workdir=runs/lats_digits

Expected: EXPECTED
"""

from experiments import plans
from experiments.configs import default


def get_config():
    """Returns the config."""
    config = default.get_config()
    config.plan = plans.lats
    return config
