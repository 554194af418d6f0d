"""S-LATS of MobileNet-V1 on ImageNet, to a tenth of the weights: the published recipe.

Command (ImageNet must be prepared in `data_dir`):
    python -m experiments.main \
        --config=experiments/configs/s_lats_mobilenetv1_imagenet.py \
        --workdir=runs/s_lats_mobilenetv1_imagenet \
        --config.data_dir=$HOME/tensorflow_datasets

Expected: not measured; ImageNet was not at hand where this was written. For
comparison, with the same recipe the dense network has 72.0 %, and STR
reaches  62.1 % at 89.01 % of zeros. The authors' final thresholds are not published, so
the size is asked for instead. The learning rate warms up by step here, by epoch there.
"""

from experiments.configs import s_lats_resnet50_imagenet


def get_config():
    """Returns the recipe of ResNet-50 with the other network."""
    config = s_lats_resnet50_imagenet.get_config()
    config.model = "mobilenetv1"
    return config
