"""LATS on handwritten digits: soft thresholds, to a given size without trials.

Command:
    python -m experiments train --config=digits/lats \
        --workdir=runs/digits/lats

Expected: 99.44 ± 0.00 % test accuracy at 95 % zeros (mean and sample standard
deviation of seeds 0, 1 and 2). Time: about 35 s on two idle CPU cores.
"""

from experiments.configs import default
from experiments.plans.lats import LATS


def get_config():
    """Returns the config."""
    config = default.get_config(LATS)
    config.phases.dense = 2.0
    config.phases.prune = 28.0
    config.phases.finetune = 10.0
    return config
