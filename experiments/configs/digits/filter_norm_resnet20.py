"""Filter norms (L1): channels of ResNet-20 on digits of 16x16, to half of the MACs.

Command:
    python -m experiments train \
        --config=digits/filter_norm_resnet20 \
        --workdir=runs/digits/filter_norm_resnet20

Expected: see the table of channels in docs/results.
"""

from experiments.configs import default
from experiments.configs.digits import uniform_resnet20
from experiments.plans.ranked import FILTER_NORM


def get_config():
    """Returns the config: 10 dense epochs, a decision, 10 compact."""
    return default.with_method(uniform_resnet20.get_config(), FILTER_NORM)
