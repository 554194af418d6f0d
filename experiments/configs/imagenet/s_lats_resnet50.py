"""S-LATS of ResNet-50 on ImageNet, to a tenth of the weights: the published recipe.

Command (ImageNet must be prepared in `data_dir`):
    python -m experiments train \
        --config=imagenet/s_lats_resnet50 \
        --workdir=runs/imagenet/s_lats_resnet50 \
        --config.data_dir=$HOME/tensorflow_datasets

Expected: not measured; ImageNet was not at hand where this was written. For
comparison, with the same recipe the dense network has 77.0 %, and STR
reaches 74.3 % at 90.23 % of zeros. The authors' final thresholds are not published, so
the size is asked for instead. The learning rate warms up by step here, by epoch there.
"""

from experiments.configs import default
from experiments.plans import weight_plans


def get_config():
    """Returns the published recipe: a twentieth of the steps warms up, then cosine."""
    config = default.get_config()
    config.plan = weight_plans.s_lats
    config.dataset = "imagenet2012"
    config.model = "resnet50"
    config.sparsity = 0.9
    config.dense_epochs = 0.0
    config.prune_epochs = 100.0
    config.finetune_epochs = 0.0
    config.batch_size = 256
    config.eval_batch_size = 400
    config.learning_rate = 0.256
    config.end_learning_rate_factor = 0.0
    config.momentum = 0.875
    config.nesterov = False
    config.weight_decay = 2.0**-15
    config.decay_everything = True
    config.label_smoothing = 0.1
    config.log_every = 100
    config.eval_every = 5000
    config.checkpoint_every = 5000
    config.trail_every = 100
    return config
