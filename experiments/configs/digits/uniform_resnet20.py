"""Equal widths: channels of ResNet-20 on digits of 16x16, to half of the MACs.

Command:
    python -m experiments train --config=digits/uniform_resnet20 \
        --workdir=runs/digits/uniform_resnet20

Expected: see the table of channels in docs/results.
"""

from experiments.configs import default
from experiments.configs.digits import dsa_resnet20
from experiments.plans.ranked import UNIFORM


def get_config():
    """Returns the config: 10 dense epochs, a decision, 10 epochs compact."""
    config = default.with_method(dsa_resnet20.get_config(), UNIFORM)
    config.phases.dense = 10.0
    config.phases.prune = 0.03
    return config
