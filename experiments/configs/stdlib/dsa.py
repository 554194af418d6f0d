"""DSA: channels of the decoder of bytes, to half of the MACs.

Command:
    python -m experiments train --config=stdlib/dsa \
        --workdir=runs/stdlib/dsa

Expected: not measured to its end yet; a byte drawn at random has 8 bits per byte.
"""

from experiments.configs import stdlib
from experiments.plans.dsa import DSA


def get_config(model: str = "decoder_tiny"):
    """Returns the config."""
    config = stdlib.channels(DSA, model, 0.25)
    config.method.importance = "filter_norm"
    config.method.sharpness_growth = 100.0
    return config
