"""Equal widths by activations: channels of the decoder of bytes, to half of the MACs.

Command:
    python -m experiments train --config=stdlib/activation \
        --workdir=runs/stdlib/activation

Expected: not measured to its end yet; a byte drawn at random has 8 bits per byte.
"""

from experiments.configs import stdlib
from experiments.plans.ranked import ACTIVATION


def get_config(model: str = "decoder_tiny"):
    """Returns the config."""
    return stdlib.channels(ACTIVATION, model, 0.001)
