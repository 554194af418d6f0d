"""LTP of ResNet-50 on ImageNet, to a ninth of the weights, from trained ones.

Command (ImageNet must be prepared in `data.dir`):
    python -m experiments train \
        --config=imagenet/ltp_resnet50 \
        --workdir=runs/imagenet/ltp_resnet50 \
        --config.data.dir=$HOME/tensorflow_datasets

Expected: not measured; ImageNet was not at hand where this was written. The paper
reaches 92.0 % top-5 at 9.1x in 30 epochs; the dense network has 76.1 / 92.9 % top-1 /
top-5.
What the paper does not tell is ours: how the 30 epochs are split, the rates of
weights and thresholds, and that the size is a target instead of a penalty weight.

Work: 9.4e17 operations, 2.6 hours at 1e14 a second (six for each
multiplication of the forward pass, image and epoch).
"""

from experiments.configs import default
from experiments.plans.ltp import LTP


def get_config():
    """Returns the config: 30 epochs as in the paper, from trained weights."""
    config = default.get_config(LTP)
    config.data.name = "imagenet2012"
    config.model = "resnet50"
    config.phases.pretrained = "timm:resnet50.tv_in1k"
    config.budget.sparsity = 1 - 1 / 9.1
    config.phases.dense = 0.0
    config.phases.prune = 15.0
    config.phases.finetune = 15.0
    config.data.batch_size = 256
    config.data.eval_batch_size = 400
    config.optimizer.learning_rate = 0.01
    config.optimizer.finetune_learning_rate = 0.01
    config.optimizer.weight_decay = 1e-4
    config.optimizer.label_smoothing = 0.0
    config.run.log_every = 100
    config.run.eval_every = 5000
    config.run.checkpoint_every = 5000
    config.method.trail_every = 100
    return config
