"""DSA of ResNet-18 on ImageNet, with the published hyper-parameters, to 60 % of MACs.

Command (ImageNet must be in `data.dir`):
    python -m experiments train --config=imagenet/dsa_resnet18 \
        --workdir=runs/imagenet/dsa_resnet18 \
        --config.data.dir=$HOME/tensorflow_datasets

Expected: not measured yet; ImageNet could not be downloaded where this was written. The
paper (baseline 69.72 / 89.07 % top-1 / top-5): 68.61 / 88.35 % at 60 % of FLOPs. It
leaves the classifier out of its costs; here it counts.

Work: 1.7e18 operations, 4.6 hours at 1e14 a second (six for each
multiplication of the forward pass, image and epoch); the search, on held-out images,
comes on top.
"""

from experiments.configs.cifar10 import dsa_resnet20


def get_config():
    """Returns the published recipe: 120 epochs, of which 15 warm up.

    The momentum is not published for ImageNet; 0.9 as on CIFAR-10.
    """
    config = dsa_resnet20.get_config()
    config.data.name = "imagenet2012"
    config.model = "resnet18"
    config.budget.macs = 0.6
    config.phases.dense = 15.0
    config.phases.prune = 30.0
    config.phases.finetune = 75.0
    config.data.batch_size = 256
    config.data.eval_batch_size = 400
    config.optimizer.learning_rate = 0.1
    config.optimizer.learning_rate_drops = (50, 80, 110)
    config.method.sharpness = 0.05 * 1.1**15
    config.method.sharpness_growth = 1.1
    config.run.log_every = 100
    config.run.eval_every = 5000
    config.run.checkpoint_every = 5000
    return config
