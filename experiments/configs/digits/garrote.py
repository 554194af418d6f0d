"""Garrote on handwritten digits to a twentieth of the weights: the demo.

The size is exact, and the shares of the layers are learned. `make demo` takes half of
the epochs.

Command:
    python -m experiments train --config=digits/garrote \
        --workdir=runs/digits/garrote

Expected: see the table of digits in docs/results. Time: about a minute on two idle CPU
cores.
"""

from experiments.configs import default
from experiments.plans.garrote import GARROTE


def get_config():
    """Returns the config."""
    return default.pruned_from_the_start(default.get_config(GARROTE))
