"""Networks of torchvision and timm: names and shapes of tensors, and logits.

`tests/golden/record_torch_logits.py` recorded them, of weights made from names.
"""

import functools
import json
import pathlib

import jax
import numpy as np
import pytest

from experiments import models
from experiments.models import torch_names
from jaxprune import io
from tests.support.rows import rows
from tests.support.torch_weights import draw, inputs

FOLDER = pathlib.Path(__file__).parents[2] / "golden" / "torch"
# File of the recording: the model.
RECORDED = {
    "timm_resnet18": "resnet18",
    "timm_resnet34": "resnet34",
    "timm_resnet50": "resnet50",
    "timm_vgg16_bn": "vgg16_bn",
    "timm_mobilenetv2_100": "mobilenetv2",
    "timm_efficientnet_b0": "efficientnet_b0",
    "timm_mixnet_s": "mixnet_s",
    "timm_vit_small_patch16_224": "vit_s16",
    "torchvision_alexnet": "alexnet",
    "torchvision_efficientnet_b0": "efficientnet_b0",
    "torchvision_mobilenet_v2": "mobilenetv2",
    "torchvision_vgg16_bn": "vgg16_bn",
    "torchvision_vit_b_16": "vit_b16",
}
NETWORKS = [file for file, model in RECORDED.items() if model in models.MODELS]


def prepare(file):
    """The module, its inputs, its shapes, its names and the recording."""
    model = RECORDED[file]
    recorded = json.loads((FOLDER / f"{file}.json").read_text())
    module = models.create(model, len(recorded["logits"][0]))
    x = inputs(*recorded["inputs"])
    init = functools.partial(module.init, train=False)
    like = jax.eval_shape(init, jax.random.key(0), x)
    namings = torch_names.namings(model, like)
    (names,) = (
        names
        for names in namings
        if named(names) == {n for n in recorded["tensors"] if "num_batches" not in n}
    )
    return module, x, like, names, recorded


def named(names):
    return {n if isinstance(n, str) else n.name for n in names.values()}


def test_every_recording_is_compared():
    assert {path.stem for path in FOLDER.iterdir()} == set(RECORDED)
    assert set(RECORDED.values()) == set(torch_names.known())


@pytest.mark.parametrize(
    "file",
    rows(
        NETWORKS,
        [
            *("timm_resnet50", "timm_vgg16_bn", "timm_mobilenetv2_100"),
            *("torchvision_vgg16_bn", "torchvision_mobilenet_v2"),
            *("torchvision_efficientnet_b0", "torchvision_vit_b_16"),
        ],
    ),
)
def test_names_and_shapes_are_those_of_the_libraries(file):
    _, _, like, names, recorded = prepare(file)
    tensors = {
        name: jax.ShapeDtypeStruct(tuple(shape), np.float32)
        for name, shape in recorded["tensors"].items()
    }
    tree = jax.eval_shape(lambda t: io.from_torch(t, names, like), tensors)
    assert tree == like
    back = jax.eval_shape(lambda t: io.to_torch(t, names), tree)
    assert back == {n: tensors[n] for n in back}


@pytest.mark.parametrize(
    "file", rows(NETWORKS, ("timm_resnet18", "timm_vit_small_patch16_224"))
)
def test_logits_are_those_of_the_libraries(file):
    module, x, like, names, recorded = prepare(file)
    tensors = {
        name: draw(name, tuple(shape), recorded["gain"])
        for name, shape in recorded["tensors"].items()
    }
    variables = io.from_torch(tensors, names, like)
    logits = jax.jit(functools.partial(module.apply, train=False))(variables, x)
    wanted = np.array(recorded["logits"])
    difference = abs(logits - wanted).max() / abs(wanted).max()
    print(f"{file:28} {difference:.1e}")  # for the table in BUILD_NOTES.md
    assert difference < 2e-5
    back = io.to_torch(variables, names)
    assert all(np.array_equal(array, tensors[name]) for name, array in back.items())
