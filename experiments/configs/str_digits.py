"""STR on handwritten digits: a trainable soft threshold for every layer.

Command:
    python -m experiments.main --config=experiments/configs/str_digits.py \
        --workdir=runs/str_digits

Expected: EXPECTED
"""

from experiments import plans
from experiments.configs import default


def get_config():
    """Returns the config."""
    config = default.get_config()
    config.plan = plans.soft_threshold_reparameterization
    return config
