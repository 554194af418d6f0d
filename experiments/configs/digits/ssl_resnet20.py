"""SSL (group lasso): channels of ResNet-20 on digits of 16x16, to half of the MACs.

Command:
    python -m experiments train --config=digits/ssl_resnet20 \
        --workdir=runs/digits/ssl_resnet20

Expected: see the table of channels in docs/results.
"""

from experiments.configs import default
from experiments.configs.digits import dsa_resnet20
from experiments.plans.penalties import GROUP_LASSO


def get_config():
    """Returns the config: the phases of DSA."""
    return default.with_method(dsa_resnet20.get_config(), GROUP_LASSO)
