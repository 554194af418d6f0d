"""Models of the experiments, made by name.

Every model is a Linen module `model.apply(variables, x, train=...)` that maps images of
shape (B, H, W, C), or signals of shape (B, L, C), to logits of shape (B, num_classes);
or texts, whole numbers of shape (B, T), to logits of shape (B, T, num_classes).
`params` is trained; models with batch normalisation also keep a collection
`batch_stats`. `cnn` has a twin in NNX, `experiments.models.cnn_nnx.CNN`.
"""

import difflib
import functools
import re
from collections.abc import Iterable

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.models.alexnet import AlexNet as AlexNet
from experiments.models.cnn import CNN as CNN
from experiments.models.cnn1d import CNN1D as CNN1D
from experiments.models.decoder import Decoder as Decoder
from experiments.models.efficientnet import EfficientNetB0 as EfficientNetB0
from experiments.models.imagenet_resnet import Basic as Basic
from experiments.models.imagenet_resnet import Bottleneck as Bottleneck
from experiments.models.imagenet_resnet import ImageNetResNet as ImageNetResNet
from experiments.models.mixnet import MixNetS as MixNetS
from experiments.models.mlp import MLP as MLP
from experiments.models.mobilenet import MobileNetV1 as MobileNetV1
from experiments.models.mobilenetv2 import MobileNetV2 as MobileNetV2
from experiments.models.resnet import ResNet as ResNet
from experiments.models.sew_resnet import SEWResNet as SEWResNet
from experiments.models.vgg import VGG16 as VGG16
from experiments.models.vgg import VGG16BN as VGG16BN
from experiments.models.vit import ViT as ViT

MODELS = {
    "mlp": MLP,
    "mlp1d": functools.partial(MLP, widths=(256, 256)),
    "cnn": CNN,
    "cnn1d": CNN1D,
    "cnn1d_norm": functools.partial(CNN1D, norms=True),
    "resnet20": functools.partial(ResNet, blocks_per_stage=3),
    "resnet32": functools.partial(ResNet, blocks_per_stage=5),
    "resnet56": functools.partial(ResNet, blocks_per_stage=9),
    "resnet18_cifar": functools.partial(
        ImageNetResNet, block=Basic, blocks=(2, 2, 2, 2), small_images=True
    ),
    "vgg16": VGG16,
    "sew_resnet8": functools.partial(
        SEWResNet, blocks=(1, 1, 1), width=16, small_images=True
    ),
    "alexnet": AlexNet,
    "vgg16_bn": VGG16BN,
    "resnet18": functools.partial(ImageNetResNet, block=Basic, blocks=(2, 2, 2, 2)),
    "resnet34": functools.partial(ImageNetResNet, block=Basic, blocks=(3, 4, 6, 3)),
    "resnet50": functools.partial(
        ImageNetResNet, block=Bottleneck, blocks=(3, 4, 6, 3)
    ),
    "sew_resnet18": SEWResNet,
    "mobilenetv1": MobileNetV1,
    "mobilenetv2": MobileNetV2,
    "efficientnet_b0": EfficientNetB0,
    "mixnet_s": MixNetS,
    "vit_s16": ViT,
    "vit_b16": functools.partial(ViT, width=768, heads=12),
    "decoder_tiny": functools.partial(
        Decoder, width=96, layers=3, hidden=192, heads=4, kv_heads=2, features=24
    ),
    "decoder_small": functools.partial(
        Decoder, width=256, layers=6, hidden=768, heads=8, features=32
    ),
    "decoder_base": Decoder,
}


def create(
    name: str,
    num_classes: int,
    *,
    axis_name: str | None = None,
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> nn.Module:
    """Makes the model called `name`.

    Args:
        name: One of `mlp` and `cnn`; `mlp1d`, `cnn1d` and `cnn1d_norm` for signals;
            `resnet20`, `resnet32`, `resnet56`,
            `resnet18_cifar`, `vgg16` and `sew_resnet8` for small images; `alexnet`,
            `resnet18`, `resnet34`, `resnet50`, `sew_resnet18`, `vgg16_bn`,
            `mobilenetv1`, `mobilenetv2`, `efficientnet_b0`, `mixnet_s`, `vit_s16` and
            `vit_b16` for ImageNet; `decoder_tiny`, `decoder_small` and `decoder_base`
            for texts.
        num_classes: Number of logits.
        axis_name: Name of the mapped axis (`jax.pmap`, `jax.shard_map`) over which
            batch normalisation averages its statistics. `None` under `jax.jit`, where
            the statistics of a sharded batch are those of the whole batch already.
            Networks without batch normalisation do not use it.
        dtype: Type in which layers compute, such as `bfloat16`. Parameters, statistics
            and logits are float32, and so are the means and variances of norms.

    Returns:
        The module, whose call takes `(x, *, train)` and returns logits.

    Raises:
        ValueError: If no model has this name.
    """
    if name not in MODELS:
        close = difflib.get_close_matches(name, MODELS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"`create(name, ...)` requires one of {', '.join(MODELS)}; "
            f"got {name!r}.{hint}"
        )
    return MODELS[name](
        num_classes=num_classes, axis_name=axis_name, dtype=jnp.dtype(dtype)
    )


def last_layer(layers: Iterable[str]) -> str:
    """Finds the dense layer of the logits: `dense`, or the last of `dense1`, `dense2`.

    Args:
        layers: Names of the layers of a model, the keys of its `params`.

    Returns:
        Its name.
    """
    dense = [name for name in layers if re.fullmatch(r"dense\d*", name)]
    return max(dense, key=lambda name: int(name.removeprefix("dense") or 0))
