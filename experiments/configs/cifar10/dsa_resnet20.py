"""DSA of ResNet-20 on CIFAR-10, with the published hyper-parameters, to 50 % of MACs.

Command (CIFAR-10 must be prepared in that folder):
    python -m experiments train --config=cifar10/dsa_resnet20 \
        --workdir=runs/cifar10/dsa_resnet20 \
        --config.data.dir=$HOME/tensorflow_datasets

Expected: not measured yet; CIFAR-10 could not be downloaded where this was written. The
paper (baseline 92.17 %): 92.10 % at 74.0 % of FLOPs, 91.38 % at 49.7 %, 90.24 % at
32.5 %; other budgets with `--config.budget.macs=0.75` and `0.333`. It leaves the
classifier out of its costs; here it counts.
"""

from experiments.configs import default
from experiments.plans.dsa import DSA


def get_config():
    """Returns the published recipe: 300 epochs, of which 20 warm up.

    Not published, and chosen: 80 epochs until the budget is met, Adam on the logits,
    a budget that is reached by a ramp. The sharpness is 0.05 * 1.1^epoch, counted from
    the beginning of the run.
    """
    config = default.get_config(DSA)
    config.data.name = "cifar10"
    config.model = "resnet20"
    config.budget.macs = 0.5
    config.data.held_out = 0.1
    config.phases.dense = 20.0
    config.phases.prune = 80.0
    config.phases.finetune = 200.0
    config.data.batch_size = 128
    config.data.eval_batch_size = 1000
    config.optimizer.learning_rate = 0.05
    config.optimizer.learning_rate_drops = (120, 180, 240)
    config.optimizer.nesterov = False
    config.optimizer.weight_decay = 4e-5
    config.optimizer.decay_everything = True
    config.optimizer.label_smoothing = 0.0
    config.method.sharpness = 0.05 * 1.1**20
    config.method.sharpness_growth = 1.1
    config.method.init_logit = 5.0
    config.method.ratio_every = 20
    config.run.log_every = 50
    config.run.eval_every = 2000
    config.run.checkpoint_every = 2000
    return config
