"""GMP on handwritten digits: the same share of every layer, along a cubic ramp.

Command:
    python -m experiments.main --config=experiments/configs/gmp_digits.py \
        --workdir=runs/gmp_digits

Expected: 98.89 ± 0.48 % test accuracy at 95 % zeros (mean and sample standard
deviation of seeds 0, 1 and 2). Time: about 35 s on two idle CPU cores.
"""

from experiments import plans
from experiments.configs import default


def get_config():
    """Returns the config."""
    config = default.get_config()
    config.plan = plans.magnitude
    return config
