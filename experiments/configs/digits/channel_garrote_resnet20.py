"""Channel garrote: channels of ResNet-20 on digits of 16x16, to half of the MACs.

Command:
    python -m experiments train \
        --config=digits/channel_garrote_resnet20 \
        --workdir=runs/digits/channel_garrote_resnet20

Expected: see the table of channels in docs/results.
"""

from experiments.configs import default
from experiments.configs.digits import uniform_resnet20
from experiments.plans.channel_garrote import CHANNEL_GARROTE


def get_config():
    """Returns the config: 10 epochs prune, 10 fine-tune the compact network."""
    config = default.with_method(uniform_resnet20.get_config(), CHANNEL_GARROTE)
    config.phases.dense, config.phases.prune = 0.0, 10.0
    config.optimizer.finetune_learning_rate = config.optimizer.learning_rate
    return config
