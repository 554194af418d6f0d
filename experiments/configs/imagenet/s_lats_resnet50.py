"""S-LATS of ResNet-50 on ImageNet, to a tenth of the weights: the published recipe.

Command (ImageNet must be prepared in `data.dir`):
    python -m experiments train \
        --config=imagenet/s_lats_resnet50 \
        --workdir=runs/imagenet/s_lats_resnet50 \
        --config.data.dir=$HOME/tensorflow_datasets

Expected: not measured; ImageNet was not at hand where this was written. For
comparison, with the same recipe the dense network has 77.0 %, and STR
reaches 74.3 % at 90.23 % of zeros. The authors' final thresholds are not published, so
the size is the target instead. The learning rate warms up by step here, by epoch there.

Work: 3.1e18 operations, 8.7 hours at 1e14 a second (six for each
multiplication of the forward pass, image and epoch).
"""

from experiments.configs import default
from experiments.plans.lats import S_LATS


def get_config():
    """Returns the published recipe: a twentieth of the steps warms up, then cosine."""
    config = default.get_config(S_LATS)
    config.data.name = "imagenet2012"
    config.model = "resnet50"
    config.budget.sparsity = 0.9
    config.phases.dense = 0.0
    config.phases.prune = 100.0
    config.phases.finetune = 0.0
    config.data.batch_size = 256
    config.data.eval_batch_size = 400
    config.optimizer.learning_rate = 0.256
    config.optimizer.end_learning_rate_factor = 0.0
    config.optimizer.momentum = 0.875
    config.optimizer.nesterov = False
    config.optimizer.weight_decay = 2.0**-15
    config.optimizer.decay_everything = True
    config.optimizer.label_smoothing = 0.1
    config.run.log_every = 100
    config.run.eval_every = 5000
    config.run.checkpoint_every = 5000
    config.method.trail_every = 100
    return config
