"""LTP of AlexNet on ImageNet, to 1 / 26.4 of the weights, from trained ones.

Command (ImageNet must be prepared in `data.dir`):
    python -m experiments train \
        --config=imagenet/ltp_alexnet \
        --workdir=runs/imagenet/ltp_alexnet \
        --config.data.dir=$HOME/tensorflow_datasets

Expected: not measured; ImageNet was not at hand where this was written. The paper
reaches 79.1 % top-5 at 26.4x; the dense network has 56.5 / 79.1 % top-1 / top-5.
The recipe is that of `imagenet/ltp_resnet50`, at a tenth of the rate: nothing is
normalised. Trained weights are torchvision's, saved once, where torch is installed, by
    safetensors.torch.save_file(
        torchvision.models.alexnet(weights="IMAGENET1K_V1").state_dict(),
        "alexnet.safetensors",
    )

Work: 1.6e17 operations, 0.5 hours at 1e14 a second (six for each
multiplication of the forward pass, image and epoch).
"""

from experiments.configs.imagenet import ltp_resnet50


def get_config():
    """Returns the recipe of ResNet-50 with the other network, size and rate."""
    config = ltp_resnet50.get_config()
    config.model = "alexnet"
    config.phases.pretrained = "alexnet.safetensors"
    config.budget.sparsity = 1 - 1 / 26.4
    config.optimizer.learning_rate = 0.001
    config.optimizer.finetune_learning_rate = 0.001
    return config
