"""GraSP on handwritten digits: pruning at initialisation by gradient flow.

Command:
    python -m experiments train --config=digits/grasp \
        --workdir=runs/digits/grasp

Expected: 99.26 ± 0.16 % test accuracy at 95 % zeros (mean and sample standard
deviation of seeds 0, 1 and 2). Time: about 35 s on two idle CPU cores.
"""

from experiments.configs import digits
from experiments.plans.one_shot import GRASP


def get_config():
    """Returns the config: the mask comes first, then 40 epochs under it."""
    # One step, which moves nothing.
    config = digits.masked_first(GRASP, prune=1 / 22, finetune=40.0)
    config.phases.rewind = True
    return config
