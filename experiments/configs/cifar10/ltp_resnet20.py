"""LTP of ResNet-20 on CIFAR-10, to a tenth of the weights.

Command (CIFAR-10 must be prepared in that folder):
    python -m experiments train --config=cifar10/ltp_resnet20 \
        --workdir=runs/cifar10/ltp_resnet20 --config.data.dir=$HOME/tensorflow_datasets

Expected: not measured yet; CIFAR-10 could not be downloaded where this was written.
A dense ResNet-20 reaches 91.7 to 92.2 % in the literature. The LTP paper has no
CIFAR-10 results.
"""

from experiments.configs import default
from experiments.plans.ltp import LTP


def get_config():
    """Returns the config: 160 dense epochs, 30 of pruning as in the paper, 30 more."""
    config = default.get_config(LTP)
    config.data.name = "cifar10"
    config.model = "resnet20"
    config.budget.sparsity = 0.9
    config.data.batch_size = 128
    config.data.eval_batch_size = 1000
    config.optimizer.learning_rate = 0.1
    config.optimizer.label_smoothing = 0.0
    config.optimizer.weight_decay = 1e-4
    config.phases.dense = 160.0
    config.phases.prune = 30.0
    config.phases.finetune = 30.0
    config.run.log_every = 50
    config.run.eval_every = 2000
    config.run.checkpoint_every = 2000
    config.method.trail_every = 20
    return config
