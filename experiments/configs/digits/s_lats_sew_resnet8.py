"""S-LATS of a spiking SEW ResNet-8 on handwritten digits, to a tenth of the weights.

Command:
    python -m experiments train --config=digits/s_lats_sew_resnet8 \
        --workdir=runs/digits/s_lats_sew_resnet8

Expected: see the table of spiking networks in docs/results. Time: about 2 minutes on
two CPU cores.
"""

from experiments.configs import default
from experiments.plans.lats import S_LATS


def get_config():
    """Returns the config: the phases of `digits/lats`, another network."""
    config = default.get_config(S_LATS)
    config.model = "sew_resnet8"
    config.budget.sparsity = 0.9
    config.phases.dense = 2.0
    config.phases.prune = 28.0
    config.phases.finetune = 10.0
    return config
