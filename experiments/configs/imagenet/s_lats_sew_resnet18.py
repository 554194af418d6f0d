"""S-LATS of the spiking SEW ResNet-18 on ImageNet, to a tenth of the weights.

Command (ImageNet must be prepared in `data.dir`):
    python -m experiments train \
        --config=imagenet/s_lats_sew_resnet18 \
        --workdir=runs/imagenet/s_lats_sew_resnet18 \
        --config.data.dir=$HOME/tensorflow_datasets

Expected: not measured; ImageNet was not at hand where this was written. The dense
network has 63.2 % top-1 in the paper that proposes it (arXiv:2102.04159, Table 2). The
paper of LATS does not tell its settings for this network; these are those of the
runs of it in STDS: T = 4, 320 epochs, batches of 8 x 32, SGD at 0.1 with
momentum 0.9, a cosine (after a warm-up here), no weight decay. Final thresholds are not
known either, so the size is the target instead.

Work: 1.7e19 operations, 47 hours at 1e14 a second (six for each
multiplication of the forward pass, image and epoch; spikes are multiplied by here).
"""

from experiments.configs.imagenet import s_lats_resnet50


def get_config():
    """Returns the config: the published settings of the dense network, and S-LATS."""
    config = s_lats_resnet50.get_config()
    config.model = "sew_resnet18"
    config.phases.prune = 320.0
    config.optimizer.learning_rate = 0.1
    config.optimizer.momentum = 0.9
    config.optimizer.weight_decay = 0.0
    config.optimizer.label_smoothing = 0.0
    return config
