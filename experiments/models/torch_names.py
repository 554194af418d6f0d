"""What torchvision and timm call the tensors of the networks here.

    stage2_block1/shortcut_conv/kernel     ->     layer2.0.downsample.0.weight

A *naming* says it for one network of one library. Residual networks have the same names
in both; of the others each library has names of its own.
"""

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

from experiments.models.efficientnet import EfficientNetB0
from experiments.models.inverted import Stage
from experiments.models.mixnet import MixNetS
from experiments.models.mobilenetv2 import MobileNetV2
from experiments.models.vgg import VGG16BN
from jaxprune import tree
from jaxprune.io import TorchLayout, TorchTensor, after_flatten, dense_general

Names = dict[str, str | TorchTensor]
# `layer, leaf -> tensor`, such as `conv0, weight`.
_Naming = Callable[[str, str], str | TorchTensor]

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def known() -> list[str]:
    """The names of the models that torchvision or timm have too."""
    return list(_NAMINGS)


def namings(model: str, like: Any) -> list[Names]:
    """Says where the leaves of a model come from, for `io.from_torch`.

    Args:
        model: One of `known()`.
        like: Its variables, possibly abstract: `{"params": ..., "batch_stats": ...}`.

    Returns:
        Leaf name to tensor, for each way to call them.
    """
    return [
        {leaf: _named(naming, leaf) for leaf in tree.named_leaves(like)}
        for naming in _NAMINGS[model]
    ]


def _named(naming: _Naming, leaf: str) -> str | TorchTensor:
    layer, _, last = leaf.partition("/")[2].rpartition("/")
    return naming(layer, _LEAVES.get(last, last))


def _covering(*size: int) -> TorchLayout:
    """A dense layer that is a convolution there, its kernel as large as its input."""

    def to_torch(kernel):
        kernel = kernel.reshape(*size, -1, kernel.shape[-1])
        axes = range(kernel.ndim)
        return kernel.transpose(*axes[:-3:-1], *axes[:-2])

    return TorchLayout(
        lambda array, shape: array.transpose(2, 3, 1, 0).reshape(shape), to_torch
    )


def _resnet(layer: str, leaf: str) -> str:
    block, _, inner = layer.partition("/")
    if not inner:
        top = {"conv0": "conv1", "bn0": "bn1", "dense": "fc"}
        return f"{top[layer]}.{leaf}"
    stage, place = map(int, re.findall(r"\d+", block))
    shortcut = {"shortcut_conv": "downsample.0", "shortcut_bn": "downsample.1"}
    return f"layer{stage}.{place - 1}.{shortcut.get(inner, inner)}.{leaf}"


# ------------------------------------------------------------- inverted residuals


def _places(stages: Sequence[Stage]) -> list[tuple[int, int, bool]]:
    """Stage and place of every block as timm counts them, and whether it widens."""
    found, stage, place, filters = [], -1, 0, 0
    for row in stages:
        for _ in range(row.blocks):
            # Rows of the table that have the same filters are one stage there.
            new = row.filters != filters
            stage, place, filters = stage + new, 0 if new else place + 1, row.filters
            found.append((stage, place, row.expansion > 1))
    return found


def _timm_inverted(stages: Sequence[Stage], layer: str, leaf: str):
    top = {
        **{"conv0": "conv_stem", "bn0": "bn1", "conv1": "conv_head", "bn1": "bn2"},
        "dense": "classifier",
    }
    if layer in top:
        return f"{top[layer]}.{leaf}"
    block, inner, share = _inner(layer)
    stage, place, widens = _places(stages)[block]
    first = 2 if widens else 1
    names = {
        **{"expand": "conv_pw", "expand_bn": "bn1"},
        **{"depthwise": "conv_dw", "depthwise_bn": f"bn{first}"},
        "project": "conv_pwl" if widens else "conv_pw",
        "project_bn": f"bn{first + 1}",
        **{"squeeze/reduce": "se.conv_reduce", "squeeze/expand": "se.conv_expand"},
    }
    return _pointwise(f"blocks.{stage}.{place}.{names[inner]}{share}", inner, leaf)


def _torchvision_mobilenetv2(layer: str, leaf: str):
    last = len(_places(MobileNetV2.stages)) + 1
    top = _torchvision_top(last)
    if layer in top:
        return f"{top[layer]}.{leaf}"
    block, inner, _ = _inner(layer)
    first = 1 if _places(MobileNetV2.stages)[block][2] else 0
    names = {
        **{"expand": "0.0", "expand_bn": "0.1"},
        **{"depthwise": f"{first}.0", "depthwise_bn": f"{first}.1"},
        **{"project": f"{first + 1}", "project_bn": f"{first + 2}"},
    }
    return f"features.{block + 1}.conv.{names[inner]}.{leaf}"


def _torchvision_efficientnet(layer: str, leaf: str):
    top = _torchvision_top(len(EfficientNetB0.stages) + 1)
    if layer in top:
        return f"{top[layer]}.{leaf}"
    block, inner, _ = _inner(layer)
    stage, place, widens = _places(EfficientNetB0.stages)[block]
    first = 1 if widens else 0
    names = {
        **{"expand": "0.0", "expand_bn": "0.1"},
        **{"depthwise": f"{first}.0", "depthwise_bn": f"{first}.1"},
        "squeeze/reduce": f"{first + 1}.fc1",
        "squeeze/expand": f"{first + 1}.fc2",
        **{"project": f"{first + 2}.0", "project_bn": f"{first + 2}.1"},
    }
    name = f"features.{stage + 1}.{place}.block.{names[inner]}"
    return _pointwise(name, inner, leaf)


def _torchvision_top(last: int) -> dict[str, str]:
    return {
        **{"conv0": "features.0.0", "bn0": "features.0.1"},
        **{"conv1": f"features.{last}.0", "bn1": f"features.{last}.1"},
        "dense": "classifier.1",
    }


def _inner(layer: str) -> tuple[int, str, str]:
    """Number of a block from 0, the layer in it, and which share of a mixed one."""
    block, _, inner = layer.partition("/")
    mixed = re.fullmatch(r"(.*)/conv(\d*)", inner)
    share = f".{int(mixed[2]) - 1}" if mixed and mixed[2] else ""
    return int(block.removeprefix("block")) - 1, mixed[1] if mixed else inner, share


def _pointwise(name: str, inner: str, leaf: str) -> str | TorchTensor:
    """The dense layers of a squeeze are convolutions of 1x1 there."""
    if inner.startswith("squeeze") and leaf == "weight":
        return TorchTensor(f"{name}.{leaf}", _covering(1, 1))
    return f"{name}.{leaf}"


# ------------------------------------------------------------- with dense layers


def _vgg(dense: dict[str, tuple[str, TorchLayout | None]], layer: str, leaf: str):
    if layer in dense:
        name, layout = dense[layer]
        return TorchTensor(f"{name}.{leaf}", layout if leaf == "weight" else None)
    kind, stage, place = re.fullmatch(r"(conv|bn)(\d)_(\d)", layer).groups()  # pyright: ignore[reportOptionalMemberAccess]
    depths = [depth for _, depth in VGG16BN.stages]
    # Each convolution has a norm and an activation behind it, each stage a pooling.
    before = int(stage) - 1
    index = 3 * (sum(depths[:before]) + int(place) - 1) + before
    return f"features.{index + (kind == 'bn')}.{leaf}"


def _alexnet(layer: str, leaf: str):
    places = {
        **{"conv1": "features.0", "conv2": "features.3", "conv3": "features.6"},
        **{"conv4": "features.8", "conv5": "features.10"},
        **{
            "dense1": "classifier.1",
            "dense2": "classifier.4",
            "dense3": "classifier.6",
        },
    }
    behind_map = layer == "dense1" and leaf == "weight"
    layout = after_flatten(256, 6, 6) if behind_map else None
    return TorchTensor(f"{places[layer]}.{leaf}", layout)


# ------------------------------------------------------------- transformers


def _vit(naming: dict[str, str], joint: str, layer: str, leaf: str):
    block, _, inner = layer.partition("/")
    if not inner:
        # Tokens and positions are leaves of the network itself.
        return naming[leaf] if not layer else f"{naming[layer]}.{leaf}"
    block = f"{naming['layer']}{int(block.removeprefix('layer')) - 1}"
    kind = inner.removeprefix("attention/")
    if kind in _JOINT:
        layout = dense_general(1 if leaf == "weight" else 0)
        return TorchTensor(f"{block}.{joint}{leaf}", layout, _JOINT.index(kind))
    layout = dense_general(2) if kind == "out" and leaf == "weight" else None
    return TorchTensor(f"{block}.{naming[inner]}.{leaf}", layout)


_JOINT = ("query", "key", "value")
_TIMM_VIT = {
    **{"class_token": "cls_token", "positions": "pos_embed"},
    **{"patches": "patch_embed.proj", "norm": "norm", "dense": "head"},
    **{"layer": "blocks.", "norm1": "norm1", "norm2": "norm2"},
    **{"attention/out": "attn.proj", "dense1": "mlp.fc1", "dense2": "mlp.fc2"},
}
_TORCHVISION_VIT = {
    **{"class_token": "class_token", "positions": "encoder.pos_embedding"},
    **{"patches": "conv_proj", "norm": "encoder.ln", "dense": "heads.head"},
    **{"layer": "encoder.layers.encoder_layer_", "norm1": "ln_1", "norm2": "ln_2"},
    **{"attention/out": "self_attention.out_proj"},
    **{"dense1": "mlp.0", "dense2": "mlp.3"},
}
_TIMM_VGG = {
    "dense1": ("pre_logits.fc1", _covering(7, 7)),
    "dense2": ("pre_logits.fc2", _covering(1, 1)),
    "dense3": ("head.fc", None),
}
_TORCHVISION_VGG = {
    "dense1": ("classifier.0", after_flatten(512, 7, 7)),
    "dense2": ("classifier.3", None),
    "dense3": ("classifier.6", None),
}
_VITS = (
    functools.partial(_vit, _TIMM_VIT, "attn.qkv."),
    functools.partial(_vit, _TORCHVISION_VIT, "self_attention.in_proj_"),
)

_NAMINGS: dict[str, tuple[_Naming, ...]] = {
    "alexnet": (_alexnet,),
    "resnet18": (_resnet,),
    "resnet34": (_resnet,),
    "resnet50": (_resnet,),
    "vgg16_bn": (
        functools.partial(_vgg, _TIMM_VGG),
        functools.partial(_vgg, _TORCHVISION_VGG),
    ),
    "mobilenetv2": (
        functools.partial(_timm_inverted, MobileNetV2.stages),
        _torchvision_mobilenetv2,
    ),
    "efficientnet_b0": (
        functools.partial(_timm_inverted, EfficientNetB0.stages),
        _torchvision_efficientnet,
    ),
    "mixnet_s": (functools.partial(_timm_inverted, MixNetS.stages),),
    "vit_s16": _VITS,
    "vit_b16": _VITS,
}
