"""DSA of ResNet-20 on CIFAR-10, with the published hyper-parameters, to 50 % of MACs.

Command (CIFAR-10 must be in `data_dir`, or be downloadable):
    python -m experiments train --config=cifar10/dsa_resnet20 \
        --workdir=runs/cifar10/dsa_resnet20 \
        --config.data_dir=$HOME/tensorflow_datasets

Expected: not measured yet; CIFAR-10 could not be downloaded where this was written. The
paper (baseline 92.17 %): 92.10 % at 74.0 % of FLOPs, 91.38 % at 49.7 %, 90.24 % at
32.5 %; other budgets with `--config.budget.macs=0.75` and `0.333`. It leaves the
classifier out of its costs; here it counts.
"""

from experiments.configs import default
from experiments.plans import channel_plans


def get_config():
    """Returns the published recipe: 300 epochs, of which 20 warm up.

    Not published, and chosen: 80 epochs until the budget is met, Adam on the logits,
    a budget that is reached by a ramp. The sharpness is 0.05 * 1.1^epoch, counted from
    the beginning of the run.
    """
    config = default.get_config()
    config.plan = channel_plans.dsa
    config.dataset = "cifar10"
    config.model = "resnet20"
    config.budget.macs = 0.5
    config.held_out = 0.1
    config.dense_epochs = 20.0
    config.prune_epochs = 80.0
    config.finetune_epochs = 200.0
    config.batch_size = 128
    config.eval_batch_size = 1000
    config.learning_rate = 0.05
    config.learning_rate_drops = (120, 180, 240)
    config.nesterov = False
    config.weight_decay = 4e-5
    config.decay_everything = True
    config.label_smoothing = 0.0
    config.sharpness = 0.05 * 1.1**20
    config.sharpness_growth = 1.1
    config.init_logit = 5.0
    config.ratio_every = 20
    config.log_every = 50
    config.eval_every = 2000
    config.checkpoint_every = 2000
    return config
