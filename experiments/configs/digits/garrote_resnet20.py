"""Garrote of ResNet-20 on handwritten digits, enlarged to 16x16.

Command:
    python -m experiments train --config=digits/garrote_resnet20 \
        --workdir=runs/digits/garrote_resnet20

Expected: see the table of digits in docs/results. Time: 3 minutes on two CPU cores.
"""

from experiments.configs import default
from experiments.plans.garrote import GARROTE


def get_config():
    """Returns the config."""
    config = default.pruned_from_the_start(default.get_config(GARROTE))
    config.model = "resnet20"
    config.data.image_size = 16
    return config
