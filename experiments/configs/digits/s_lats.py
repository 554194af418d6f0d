"""S-LATS, the published closed form, on handwritten digits.

Command:
    python -m experiments train --config=digits/s_lats \
        --workdir=runs/digits/s_lats

Expected: 99.44 ± 0.00 % test accuracy at 95 % zeros (mean and sample standard
deviation of seeds 0, 1 and 2). Time: about 35 s on two idle CPU cores.
"""

from experiments.configs import default
from experiments.plans.lats import S_LATS


def get_config():
    """Returns the config."""
    return default.get_config(S_LATS)
