"""Global magnitude pruning on handwritten digits, along the same ramp as LTP.

Command:
    python -m experiments.main --config=experiments/configs/magnitude_digits.py \
        --workdir=runs/magnitude_digits

Expected: x20 compression, test accuracy about 99 %. Time: 35 s on two CPU cores.
"""

from experiments import plans
from experiments.configs import default


def get_config():
    """Returns the config."""
    config = default.get_config()
    config.plan = plans.global_magnitude
    return config
