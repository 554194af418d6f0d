"""SSL (group lasso): channels of ResNet-20 on digits of 16x16, to half of the MACs.

Command:
    python -m experiments.main --config=experiments/configs/ssl_resnet20_digits.py \
        --workdir=runs/ssl_resnet20_digits

Expected: see the table of channels in README.
"""

from experiments import channel_plans
from experiments.configs import dsa_resnet20_digits


def get_config():
    """Returns the config: the phases of DSA."""
    config = dsa_resnet20_digits.get_config()
    config.plan = channel_plans.group_lasso
    return config
