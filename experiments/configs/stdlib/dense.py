"""The dense decoder on the bytes of Python's standard library, as long as with pruning.

Command:
    python -m experiments train --config=stdlib/dense \
        --workdir=runs/stdlib/dense

Expected: not measured to its end yet; 3.295 bits per byte on the validation split after
the 122 steps of `--config.phases.dense=0.05`, seed 0, Python 3.11.7.
"""

from experiments.configs import stdlib
from experiments.plans.optimizers import DENSE


def get_config(model: str = "decoder_tiny"):
    """Returns the config."""
    config = stdlib.protocol(DENSE, model)
    config.phases.dense, config.phases.finetune = 1.0, 0.0
    return config
