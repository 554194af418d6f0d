"""Records what networks and layers of PyTorch compute, for tests that run without it.

    PYTHONPATH=. python tests/golden/record_torch_logits.py [NETWORK ...]

writes `torch_layers.json` and `torch/NETWORK.json`, of all networks or those named,
beside this file. It needs torch, torchvision and timm; their versions are written
along. Weights are those of
`tests.support.torch_weights`, and no file of weights is read. Everything is computed in
float64, so that the numbers are those of the formulas, without a rounding of PyTorch's;
how far its float32 is from them is recorded as `float32_difference`.
"""

import json
import pathlib
import sys

import timm
import torch
import torchvision
from torch import nn

from tests.support.torch_weights import draw, inputs

HERE = pathlib.Path(__file__).parent
CLASSES = 10
SMALL = (2, 64, 64, 3)
# The network here has no pooling to a fixed size, which at this size does nothing.
SIZES = {"torchvision_alexnet": (2, 224, 224, 3)}
# Squeezes halve what comes through: with 2 the logits hardly depend on the image.
GAINS = {"timm_efficientnet_b0": 2.5, "torchvision_efficientnet_b0": 2.5}
# Of its library's own name: what is called with the arguments.
NETWORKS = {
    **{
        f"timm_{name}": (lambda name=name, **more: timm.create_model(name, **more))
        for name in (
            *("resnet18", "resnet34", "resnet50", "mobilenetv2_100"),
            *("efficientnet_b0", "mixnet_s", "vgg16_bn"),
        )
    },
    "timm_vit_small_patch16_224": lambda **more: timm.create_model(
        "vit_small_patch16_224", img_size=64, **more
    ),
    **{
        f"torchvision_{name}": getattr(torchvision.models, name)
        for name in ("mobilenet_v2", "efficientnet_b0", "vgg16_bn", "alexnet")
    },
    "torchvision_vit_b_16": lambda **more: torchvision.models.vit_b_16(
        image_size=64, **more
    ),
}
# A layer, and the shape of its inputs with channels last.
LAYERS = {
    "linear": (nn.Linear(6, 4), (3, 6)),
    "conv1d": (nn.Conv1d(4, 6, 3, padding=1), (2, 7, 4)),
    "conv2d": (nn.Conv2d(4, 6, (3, 2), stride=2), (2, 7, 8, 4)),
    "conv3d": (nn.Conv3d(2, 4, (3, 2, 2)), (2, 5, 4, 3, 2)),
    "groups": (nn.Conv2d(4, 6, 3, groups=2), (2, 5, 5, 4)),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4, bias=False), (2, 5, 5, 4)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2), (2, 3, 4, 4)),
    "norm": (nn.BatchNorm2d(4), (2, 3, 3, 4)),
    "embedding": (nn.Embedding(5, 3), None),
    "flatten": (
        nn.Sequential(nn.Conv2d(2, 3, 1), nn.Flatten(), nn.Linear(3 * 4 * 5, 4)),
        (2, 4, 5, 2),
    ),
    "attention": (nn.MultiheadAttention(8, 2, batch_first=True), (2, 5, 8)),
}


def shapes(module):
    return {name: list(tensor.shape) for name, tensor in module.state_dict().items()}


def fill(module, gain=2.0):
    """Give a module the weights that the tests give theirs."""
    drawn = {n: draw(n, tuple(shape), gain) for n, shape in shapes(module).items()}
    module.load_state_dict({n: torch.from_numpy(array) for n, array in drawn.items()})
    return module.eval()


def channels_first(x):
    return torch.from_numpy(x).movedim(-1, 1) if x.ndim > 2 else torch.from_numpy(x)


def network(name):
    gain, size = GAINS.get(name, 2.0), SIZES.get(name, SMALL)
    module = fill(NETWORKS[name](num_classes=CLASSES), gain)
    x = channels_first(inputs(*size))
    rough, exact = module(x), module.double()(x.double())
    difference = (rough - exact).abs().max() / exact.abs().max()
    return {
        "inputs": list(size),
        "gain": gain,
        "float32_difference": float(difference),
        "logits": [[float(f"{logit:.9g}") for logit in row] for row in exact],
        "tensors": shapes(module),
    }


def layer(name, module, shape):
    module = fill(module).double()
    if name == "embedding":
        y = module(torch.tensor([3, 1]))
    elif name == "attention":
        x = torch.from_numpy(inputs(*shape)).double()
        y = module(x, x, x, need_weights=False)[0]
    else:
        y = module(channels_first(inputs(*shape)).double())
        y = y.movedim(1, -1) if y.ndim > 2 else y
    return {
        "inputs": shape and list(shape),
        "outputs": y.tolist(),
        "tensors": shapes(module),
    }


def write(path, found):
    """Write JSON, with lists of numbers on one line."""
    versions = {m.__name__: m.__version__ for m in (torch, torchvision, timm)}
    lines = [
        f"{json.dumps(name)}: {json.dumps(value, separators=(',', ':'))}"
        for name, value in {"versions": versions, **found}.items()
    ]
    path.parent.mkdir(exist_ok=True)
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


@torch.no_grad()
def main(names):
    write(HERE / "torch_layers.json", {n: layer(n, *LAYERS[n]) for n in LAYERS})
    for name in names or NETWORKS:
        found = network(name)
        write(HERE / "torch" / f"{name}.json", found)
        print(f"{name:28} {found['float32_difference']:.1e}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
