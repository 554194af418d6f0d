"""`python -m experiments compact` on a small finished run."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import models
from experiments.analyses import compact, timing
from experiments.report import compact_report
from experiments.run import trail
from jaxprune import io
from jaxprune.io import load_sparse, load_weights
from jaxprune.tree import named_leaves


def make_run(workdir: Path) -> Path:
    """A run as `experiments.train` leaves it: a sparse MLP for digits."""
    model = models.create("mlp", 10)
    params = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), train=False)[
        "params"
    ]
    keep = jax.random.uniform(jax.random.key(1), (300,)) < 0.3
    params["dense1"]["kernel"] = jnp.where(keep[None], params["dense1"]["kernel"], 0)
    params["dense1"]["bias"] += 0.1  # What is dead still carries a constant.
    point = {"step": 7, "keep_ratio": 0.3}
    trail.save_network(workdir, 7, params, {}, point)
    summary = {
        "model": "mlp",
        "dataset": "digits",
        "config": {"data": {"image_size": 0}},
    }
    (workdir / "summary.json").write_text(json.dumps(summary))
    return workdir


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = make_run(tmp_path_factory.mktemp("run"))
    return workdir, compact.compact_run(workdir, batch_sizes=(1,), rounds=3)


def row(found, name):
    (found,) = [row for row in found["rows"] if row["name"] == name]
    return found["dense"], found["compact"]


def test_dead_channels_go_and_the_network_stays(finished):
    _, found = finished
    keep = jax.random.uniform(jax.random.key(1), (300,)) < 0.3
    left = int(keep.sum())
    assert found["channels"]["params/dense1/kernel:1"] == [300, left]
    assert found["channels"]["params/dense2/kernel:1"] == [100, 100]
    assert found["difference"] < 1e-6
    before = 64 * 300 + 300 + 300 * 100 + 100 + 100 * 10 + 10
    after = 64 * left + left + left * 100 + 100 + 100 * 10 + 10
    assert row(found, "parameters, statistics") == (before, after)
    assert row(found, "MACs") == (64 * 300 + 31_000, 64 * left + left * 100 + 1000)


def test_files_hold_the_compact_network(finished):
    workdir, found = finished
    folder = workdir / "compact"
    arrays, kept = load_weights(folder / "weights.safetensors")
    network = compact.read_network(workdir)
    assert arrays["params/dense1/kernel"].shape[1] == len(
        kept["params/dense1/kernel"][1]
    )
    sparse = load_sparse(folder / "sparse.safetensors")
    for name, leaf in named_leaves(network.variables).items():
        np.testing.assert_array_equal(sparse[name], leaf)
    entry = io.latest(folder / "checkpoint")
    assert entry is not None
    assert entry.metadata["widths"]["params/dense1/kernel:1"] == len(
        kept["params/dense1/kernel"][1]
    )
    like = {"params": {}, "batch_stats": {}}
    for name, array in arrays.items():
        _, layer, leaf = name.split("/")
        like["params"].setdefault(layer, {})[leaf] = jnp.zeros_like(array)
    loaded = named_leaves(io.load(entry, like))
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)
    images = jax.random.normal(jax.random.key(3), (5, 8, 8, 1))
    program = jax.export.deserialize(bytearray((folder / "program.jax").read_bytes()))
    want = network.apply_fn(network.variables, images)
    np.testing.assert_allclose(program.call(images), want, rtol=1e-4, atol=1e-5)
    for name in ("weights.safetensors", "sparse.safetensors", "program.jax"):
        assert row(found, name)[1] == (folder / name).stat().st_size


def test_the_report_and_the_table_show_the_numbers(finished):
    workdir, found = finished
    page = (workdir / "report.html").read_text()
    assert 'id="compact"' in page
    table = compact_report.table(found)
    assert table.isascii()
    before, after = row(found, "parameters, statistics")
    for text in (table, page):
        assert f"{before:,}" in text
        assert f"{after / before:.4f}" in text
        assert "batch of 1" in text
    assert json.loads((workdir / "compact/summary.json").read_text()) == found


def test_the_compact_network_of_a_structured_run_is_that_under_its_masks(tmp_path):
    network = compact.read_network(make_run(tmp_path))
    mask = np.arange(100) % 2 == 0
    masks = {"params/dense2/kernel:1": mask}
    small = network.graph.compact(masks, network.variables)
    trail.save_network(tmp_path, 8, small.trees[0]["params"], {}, {"step": 8})
    path = tmp_path / "summary.json"
    kept = {name: np.flatnonzero(m).tolist() for name, m in masks.items()}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"channels": kept}))
    found = compact.compact_run(tmp_path, batch_sizes=(), rounds=1)
    assert found["how"] == "masks of the run"
    assert found["channels"]["params/dense2/kernel:1"] == [100, 50]
    assert found["difference"] < 1e-6
    saved = io.latest(tmp_path / "compact" / "checkpoint")
    made = io.load(saved, small.trees[0])
    jax.tree.map(np.testing.assert_array_equal, made, small.trees[0])


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    assert compact.main([f"--workdir={tmp_path}"]) == 1
    assert "must be the folder of a finished run" in capsys.readouterr().err


def test_functions_are_timed_in_turns_by_the_clock_given():
    order, now = [], [0.0]

    def step(name, seconds):
        def run():
            order.append(name)
            now[0] += seconds

        return run

    found = timing.in_turns([step("a", 1.0), step("b", 3.0)], 2, clock=lambda: now[0])
    assert order == list("ababab")
    assert found == [(1.0, 1.0, 1.0), (3.0, 3.0, 3.0)]


@pytest.mark.parametrize("seconds", [1.29, 0.5])
def test_a_compact_network_that_is_slower_is_called_slower(seconds):
    times = {"dense": [0.9, 1.0, 1.1], "compact": [seconds] * 3}
    row = {"name": "one batch", "unit": "seconds", **times}
    found = {"rows": [row], "channels": {"a": (8, 4)}, "how": "by its masks"}
    found |= {"difference": 1e-7, "rounds": 3, "devices": ["cpu"]}
    text = compact_report.table(found)
    assert ("slower here: one batch takes 1.29 times as long" in text) == (seconds > 1)
    assert ("multiples of 8" in text) == (seconds > 1)


@pytest.mark.parametrize(
    ("model", "dataset", "shape"),
    [("cnn", "digits", (1, 8, 8, 1)), ("cnn1d", "mnist1d", (1, 40, 1))],
)
def test_a_model_of_images_and_one_of_signals_are_made_again(model, dataset, shape):
    summary = {"model": model, "dataset": dataset}
    summary["config"] = {"data": {"image_size": 0}}
    _, variables, images = compact.read_model(summary)
    assert images.shape == shape
    assert variables.keys() == {"params", "batch_stats"}
