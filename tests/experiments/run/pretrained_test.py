"""Weights to start from: runs, files of torchvision and timm, and the last layer."""

import functools
import json
import pathlib
import socket
import sys
import time
import types
import urllib.request

import jax
import numpy as np
import pytest

from experiments import models
from experiments.configs import default
from experiments.models import torch_names
from experiments.run import config_check, phases, pretrained, trail
from experiments.run.setting import prepare
from jaxprune import io, tree
from tests.experiments.fields import put
from tests.support.torch_weights import draw

# With the names and the widths of ResNet-18.
TINY = functools.partial(models.ImageNetResNet, block=models.Basic, blocks=(1,))


def variables(classes, seed=0):
    init = functools.partial(TINY(num_classes=classes).init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), np.zeros((1, 8, 8, 1), np.float32))
    rng = np.random.default_rng(seed)
    shapes = {name: shapes[name] for name in ("params", "batch_stats")}
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), shapes)


def config(source, model="resnet18", **fields):
    fields = {"pretrained": str(source), "model": model, **fields}
    return put(default.get_config(), **fields)


def tensors(classes):
    """A checkpoint, its tensors drawn by their names."""
    like = variables(classes)
    (names,) = torch_names.namings("resnet18", like)
    shapes = {n: t.shape for n, t in io.to_torch(like, names).items()}
    found = {name: draw(name, shape) for name, shape in shapes.items()}
    counters = {n.replace("running_var", "num_batches_tracked") for n in shapes}
    return found | {n: draw(n, ()) for n in counters - set(shapes)}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.safetensors"
    io.save_weights(path, tensors(10))
    return path


def head(weights):
    return weights["params"]["dense"]


def same(one, other):
    return all(
        jax.tree.leaves(jax.tree.map(lambda a, b: np.array_equal(a, b), one, other))
    )


def test_a_file_gives_every_leaf(file):
    first = variables(10)
    loaded = pretrained.load(config(file), first)
    given = tensors(10)
    assert jax.tree.map(np.shape, loaded) == jax.tree.map(np.shape, first)
    np.testing.assert_array_equal(head(loaded)["kernel"], given["fc.weight"].T)
    block = loaded["batch_stats"]["stage1_block1"]["bn2"]
    np.testing.assert_array_equal(block["var"], given["layer1.0.bn2.running_var"])
    (names,) = torch_names.namings("resnet18", first)
    back = io.to_torch(loaded, names)
    assert all(np.array_equal(array, given[name]) for name, array in back.items())


@pytest.mark.parametrize("classes", [10, 3])
def test_a_new_head_keeps_its_first_weights_and_nothing_else_does(file, classes):
    first = variables(classes)
    loaded = pretrained.load(config(file, new_head=True), first)
    assert same(head(loaded), head(first))
    whole = pretrained.load(config(file), variables(10))
    leaves, expected = tree.named_leaves(loaded), tree.named_leaves(whole)
    for name in leaves:
        if "dense" not in name:
            np.testing.assert_array_equal(leaves[name], expected[name])


def test_another_number_of_classes_is_never_silent(file):
    message = r"tells 10 classes apart, the data set 'digits' has 3\. .*new_head=True"
    with pytest.raises(ValueError, match=message):
        pretrained.load(config(file), variables(3))


def run_folder(path, classes=10, name="digits"):
    """What a finished run leaves."""
    weights = variables(classes, seed=1)
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"data": {"name": name}}))
    trail.save_network(path, 7, weights["params"], weights["batch_stats"], {})
    return weights


def test_a_run_gives_its_last_network_also_from_a_folder_with_a_dot(tmp_path):
    weights = run_folder(tmp_path / "0.95")
    loaded = pretrained.load(config(tmp_path / "0.95"), variables(10))
    assert same(loaded, weights)


def test_a_run_on_other_data_needs_a_new_head(tmp_path):
    weights = run_folder(tmp_path / "run", 1000, "imagenet2012")
    with pytest.raises(ValueError, match="tells 1000 classes apart"):
        pretrained.load(config(tmp_path / "run"), variables(10))
    first = variables(10)
    loaded = pretrained.load(config(tmp_path / "run", new_head=True), first)
    assert same(head(loaded), head(first))
    assert same(loaded["batch_stats"], weights["batch_stats"])
    stem = "conv0"
    assert same(loaded["params"][stem], weights["params"][stem])


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (
            "none",
            FileNotFoundError,
            r"workdir of a finished run, a file `\*.safetensors`",
        ),
        ("timm:a/b", ValueError, "'a/b' cannot be a name of timm"),
        ("none.safetensors", FileNotFoundError, "there is no such file"),
        ("model.pth", ValueError, r"must be one of safetensors.*save_file"),
        ("broken.safetensors", ValueError, "must be a whole safetensors file"),
    ],
)
def test_what_is_no_checkpoint_is_refused(
    source, error, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name in ("model.pth", "broken.safetensors"):
        pathlib.Path(name).write_bytes(b"\x80\x02pickle")
    with pytest.raises(error, match=message):
        pretrained.load(config(source), variables(10))


def test_a_file_of_another_network_is_one_error_with_names(tmp_path):
    given = tensors(10)
    given["layer1.0.conv9.weight"] = given.pop("layer1.0.conv2.weight")
    given["bn1.weight"] = given["bn1.weight"][:5]
    path = tmp_path / "model.safetensors"
    io.save_weights(path, given)
    with pytest.raises(ValueError, match="must hold 'resnet18'") as error:
        pretrained.load(config(path), variables(10))
    first, *listed = str(error.value).splitlines()
    assert first.endswith("Correct `config.model`, or the file.")
    assert listed == [
        "Tensors that are missing, 1:",
        "  'layer1.0.conv2.weight' for leaf 'params/stage1_block1/conv2/kernel' (near: "
        "'layer1.0.conv9.weight')",
        "Tensors that are left over, 1:",
        "  'layer1.0.conv9.weight'",
        "Tensors that do not fit, 1:",
        "  'bn1.weight': shape (5,) where 'params/bn0/scale' of (64,) must come from "
        "(64,)",
    ]


def test_a_model_that_the_libraries_do_not_have_is_refused(file):
    with pytest.raises(ValueError, match=r"'resnet20'` has no names .* resnet18,"):
        pretrained.load(config(file, model="resnet20"), variables(10))


def test_a_new_head_without_weights_to_start_from_is_refused():
    with pytest.raises(ValueError, match="starts at random without"):
        config_check.check(put(default.get_config(), new_head=True))


# --------------------------------------------------------------------- the download


class Hub(types.SimpleNamespace):
    """As `huggingface_hub`, with a cache and a network of its own."""

    def __init__(self, cached=None, online=None):
        super().__init__(cached=cached, online=online, asked=[])
        self.constants = types.SimpleNamespace(ENDPOINT="https://localhost:9")

    def hf_hub_download(self, repository, file, local_files_only=False):
        self.asked.append((repository, file, local_files_only))
        found = self.cached if local_files_only else self.online
        if found is None:
            raise FileNotFoundError("Entry not found.\nMore of it.")
        return str(found)


def fetch(monkeypatch, hub, reachable=True):
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setattr(pretrained, "_reachable", lambda address: reachable)
    return pretrained.load(config("timm:resnet18.a1_in1k"), variables(10))


def test_a_name_of_timm_is_taken_from_the_cache_or_the_network(file, monkeypatch):
    expected = pretrained.load(config(file), variables(10))
    for hub in (Hub(cached=file), Hub(online=file)):
        assert same(fetch(monkeypatch, hub), expected)
    wanted = ("timm/resnet18.a1_in1k", "model.safetensors")
    assert hub.asked == [(*wanted, True), (*wanted, False)]
    # In the cache nothing is asked of the network.
    assert same(fetch(monkeypatch, Hub(cached=file), reachable=False), expected)


@pytest.mark.parametrize(
    ("hub", "reachable", "why"),
    [
        (None, True, "`huggingface_hub` is not installed"),
        (Hub(), False, "there is no network"),
        (Hub(), True, r"Entry not found\."),
    ],
)
def test_without_a_download_the_file_and_the_way_to_give_it_are_named(
    hub, reachable, why, monkeypatch
):
    message = (
        f"must be downloaded: {why}.*`model.safetensors` of the repository "
        r"`timm/resnet18.a1_in1k`.*--config.phases.pretrained=FOLDER/model.safetensors"
    )
    with pytest.raises(FileNotFoundError, match=message):
        fetch(monkeypatch, hub, reachable)


def test_a_network_that_is_absent_is_noticed_within_seconds(monkeypatch):
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
        assert pretrained._reachable(f"https://localhost:{port}")
    began = time.monotonic()
    assert not pretrained._reachable(f"http://localhost:{port}")
    assert time.monotonic() - began < 2 * pretrained._SECONDS
    # A proxy reaches what this machine may not.
    monkeypatch.setattr(urllib.request, "getproxies", lambda: {"https": "proxy"})
    assert pretrained._reachable(f"http://localhost:{port}")


# ------------------------------------------------------------------ the start of a run


@pytest.mark.usefixtures("one_device", "digits_in_memory")
@pytest.mark.parametrize("new_head", [False, True])
def test_a_run_starts_from_a_file(new_head, file, data_dir, tmp_path, monkeypatch):
    monkeypatch.setitem(models.MODELS, "resnet18", TINY)
    run = config(file, dir=str(data_dir), new_head=new_head)
    setting, record = prepare(run, tmp_path), trail.Record()
    left = phases.initial(setting, record)
    given = tensors(10)
    stem, last = left.params["conv0"]["kernel"], left.params["dense"]["kernel"]
    np.testing.assert_array_equal(stem.transpose(3, 2, 0, 1), given["conv1.weight"])
    first = setting.init()["params"]["dense"]["kernel"]
    wanted = first if new_head else given["fc.weight"].T
    np.testing.assert_array_equal(last, wanted)
    # A layer that nobody trained says nothing of the dense network.
    assert (record.dense_accuracy is None) == new_head
