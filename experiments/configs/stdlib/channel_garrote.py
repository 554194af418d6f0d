"""Channel garrote: channels of the decoder of bytes, to half of the MACs.

Command:
    python -m experiments train --config=stdlib/channel_garrote \
        --workdir=runs/stdlib/channel_garrote

Expected: not measured to its end yet; a byte drawn at random has 8 bits per byte.
"""

from experiments.configs import stdlib
from experiments.plans.channel_garrote import CHANNEL_GARROTE


def get_config(model: str = "decoder_tiny"):
    """Returns the config."""
    return stdlib.channels(CHANNEL_GARROTE, model, 0.25)
