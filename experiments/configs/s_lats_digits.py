"""S-LATS, the published closed form, on handwritten digits.

Command:
    python -m experiments.main --config=experiments/configs/s_lats_digits.py \
        --workdir=runs/s_lats_digits

Expected: EXPECTED
"""

from experiments import plans
from experiments.configs import default


def get_config():
    """Returns the config."""
    config = default.get_config()
    config.plan = plans.s_lats
    return config
