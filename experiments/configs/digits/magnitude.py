"""Global magnitude pruning on handwritten digits, along the same ramp as LTP.

Command:
    python -m experiments train --config=digits/magnitude \
        --workdir=runs/digits/magnitude

Expected: 99.44 ± 0.00 % test accuracy at 95 % zeros (mean and sample standard
deviation of seeds 0, 1 and 2). Time: about 35 s on two idle CPU cores.
"""

from experiments.configs import default
from experiments.plans.magnitude import GLOBAL_MAGNITUDE


def get_config():
    """Returns the config."""
    return default.get_config(GLOBAL_MAGNITUDE)
