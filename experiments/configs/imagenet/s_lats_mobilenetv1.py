"""S-LATS of MobileNet-V1 on ImageNet, to a tenth of the weights: the published recipe.

Command (ImageNet must be prepared in `data.dir`):
    python -m experiments train \
        --config=imagenet/s_lats_mobilenetv1 \
        --workdir=runs/imagenet/s_lats_mobilenetv1 \
        --config.data.dir=$HOME/tensorflow_datasets

Expected: not measured; ImageNet was not at hand where this was written. For
comparison, with the same recipe the dense network has 72.0 %, and STR
reaches 62.1 % at 89.01 % of zeros. The authors' final thresholds are not published, so
the size is the target instead. The learning rate warms up by step here, by epoch there.

Work: 4.4e17 operations, 1.2 hours at 1e14 a second (six for each
multiplication of the forward pass, image and epoch).
"""

from experiments.configs.imagenet import s_lats_resnet50


def get_config():
    """Returns the recipe of ResNet-50 with the other network."""
    config = s_lats_resnet50.get_config()
    config.model = "mobilenetv1"
    return config
