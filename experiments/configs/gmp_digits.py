"""GMP on handwritten digits: the same share of every layer, along a cubic ramp.

Command:
    python -m experiments.main --config=experiments/configs/gmp_digits.py \
        --workdir=runs/gmp_digits

Expected: EXPECTED
"""

from experiments import plans
from experiments.configs import default


def get_config():
    """Returns the config."""
    config = default.get_config()
    config.plan = plans.magnitude
    return config
