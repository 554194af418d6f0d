"""LTP of ResNet-20 on CIFAR-10, to a tenth of the weights.

Command (CIFAR-10 must be in `data_dir`, or be downloadable):
    python -m experiments train --config=cifar10/ltp_resnet20 \
        --workdir=runs/cifar10/ltp_resnet20 --config.data_dir=$HOME/tensorflow_datasets

Expected: not measured yet; CIFAR-10 could not be downloaded where this was written.
A dense ResNet-20 reaches 91.7 to 92.2 % in the literature. The LTP paper has no
CIFAR-10 results.
"""

from experiments.configs import default


def get_config():
    """Returns the config: 160 dense epochs, 30 of pruning as in the paper, 30 more."""
    config = default.get_config()
    config.dataset = "cifar10"
    config.model = "resnet20"
    config.sparsity = 0.9
    config.batch_size = 128
    config.eval_batch_size = 1000
    config.learning_rate = 0.1
    config.label_smoothing = 0.0
    config.weight_decay = 1e-4
    config.dense_epochs = 160.0
    config.prune_epochs = 30.0
    config.finetune_epochs = 30.0
    config.log_every = 50
    config.eval_every = 2000
    config.checkpoint_every = 2000
    config.trail_every = 20
    return config
