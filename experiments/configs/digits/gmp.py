"""GMP on handwritten digits: the same share of every layer, along a cubic ramp.

Command:
    python -m experiments train --config=digits/gmp \
        --workdir=runs/digits/gmp

Expected: 98.89 ± 0.48 % test accuracy at 95 % zeros (mean and sample standard
deviation of seeds 0, 1 and 2). Time: about 35 s on two idle CPU cores.
"""

from experiments.configs import default
from experiments.plans.magnitude import MAGNITUDE


def get_config():
    """Returns the config."""
    return default.get_config(MAGNITUDE)
