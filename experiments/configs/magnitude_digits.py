"""Global magnitude pruning on handwritten digits, along the same ramp as LTP.

Command:
    python -m experiments.main --config=experiments/configs/magnitude_digits.py \
        --workdir=runs/magnitude_digits

Expected: 99.44 ± 0.00 % test accuracy at 95 % zeros (mean and sample standard
deviation of seeds 0, 1 and 2). Time: about 35 s on two idle CPU cores.
"""

from experiments import plans
from experiments.configs import default


def get_config():
    """Returns the config."""
    config = default.get_config()
    config.plan = plans.global_magnitude
    return config
