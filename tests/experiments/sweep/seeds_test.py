"""Many seeds in one program: each as a run by itself, resumable, test read last."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from experiments import configs, data, train
from experiments.run import trail
from experiments.run.hooks import NonFiniteLossError
from experiments.sweep import cells, seeds
from jaxprune import io
from tests.experiments.fields import put


@pytest.fixture(scope="module")
def dataset():
    """Signals of which the first half is high or low, in place of MNIST-1D."""
    rng = np.random.default_rng(0)

    def source(count):
        labels = np.arange(count, dtype=np.int32) % 10
        signals = rng.normal(size=(count, 40, 1)).astype(np.float32)
        signals[np.arange(count), 4 * labels] += 4
        return data.ArraySource(signals, labels)

    return data.Dataset(
        spec=data.dataset_spec("mnist1d"),
        train=source(160),
        test=source(50),
        validation=source(60),
    )


@pytest.fixture
def short(tmp_path):
    """Makes configs of 10 steps of 16."""
    return lambda name, **changes: _short(name, dir=str(tmp_path), **changes)


def _short(name, **changes):
    config = configs.load(name)
    small = {"batch_size": 16, "eval_batch_size": 16, "progress": False}
    epochs = {"dense": 0.0, "prune": 0.6, "finetune": 0.4}
    rare = {"log_every": 100, "eval_every": 100, "checkpoint_every": 100}
    return put(config, **{**small, **epochs, **rare, **changes})


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("mnist1d/ltp:mlp1d", marks=pytest.mark.slow),
        pytest.param("mnist1d/dsa", marks=pytest.mark.slow),
        pytest.param("mnist1d/snip", marks=pytest.mark.slow),
    ],
)
def test_a_seed_among_others_ends_as_a_run_by_itself(
    name, short, dataset, tmp_path, monkeypatch, one_device, no_pictures
):
    config = short(name)
    found = seeds.run_seeds(config, [3, 0], dataset)
    monkeypatch.setattr(data, "load", lambda name, data_dir: dataset)
    config.seed = 0
    summary = train.train_and_evaluate(config, tmp_path / "run")

    row = found.rows[1]
    assert row["seed"] == 0
    assert row["validation"] == pytest.approx(summary["final"]["accuracy"], abs=1e-6)
    if not config.phases.rewind:
        hard = summary["points"][-1]["accuracy_hard"]
        assert row["hard"] == pytest.approx(hard, abs=1e-6)
    assert row["kept_weights"] == summary["final"]["kept_weights"]
    assert row["total_weights"] == summary["final"]["total_weights"]
    params, batch_stats = found.networks[1]
    network = {"params": params, "batch_stats": batch_stats}
    saved = io.load(io.latest(tmp_path / "run" / trail.FOLDER), network)
    for one, other in zip(
        jax.tree.leaves(network), jax.tree.leaves(saved), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_methods_share_initial_weights_and_batches_of_a_seed(short, dataset, tmp_path):
    first = seeds._first_part(
        short("mnist1d/ltp"), (0, 1), dataset, seeds._arrays(dataset, test=False)
    )
    other = seeds._first_part(
        short("mnist1d/lats"), (0, 1), dataset, seeds._arrays(dataset, test=False)
    )
    np.testing.assert_array_equal(first.orders["train"], other.orders["train"])
    assert not np.array_equal(first.orders["train"][0], first.orders["train"][1])
    jax.tree.map(np.testing.assert_array_equal, first.weights, other.weights)
    assert len(list(tmp_path.glob("orders/160_*"))) == 2
    batches = data.train_batches(dataset, batch_size=16, seed=1)
    for positions in first.orders["train"][1]:
        batch = next(batches)
        np.testing.assert_array_equal(batch["label"], dataset.train.labels[positions])
        np.testing.assert_array_equal(batch["image"], dataset.train.images[positions])


def test_a_stream_that_nothing_takes_from_is_empty(short, dataset):
    config = short("mnist1d/uniform", prune=0.1, dense=0.3)
    given = seeds._arrays(dataset, test=False)
    orders = seeds._first_part(config, (0,), dataset, given).orders
    shapes = {name: order.shape for name, order in orders.items()}
    assert shapes == {
        "train": (1, 4, 16),
        "weights": (1, 4, 16),
        "held_out": (1, 0, 16),
    }
    assert orders["weights"].max() < 160


def test_the_test_split_is_read_only_when_asked_for(dataset):
    given = seeds._arrays(dataset, test=False)
    assert given.sizes == {"validation": 60}
    given = seeds._arrays(dataset, test=True)
    assert given.sizes == {"validation": 60, "test": 50}
    assert given.splits["test"]["valid"].sum() == 50


def test_what_does_not_fit_is_refused(short, dataset):
    config = short("mnist1d/ltp")
    with pytest.raises(ValueError, match="distinct"):
        seeds.run_seeds(config, [0, 0], dataset)
    without = dataclasses.replace(dataset, validation=None)
    with pytest.raises(ValueError, match="no validation split"):
        seeds.run_seeds(config, [0], without)
    config.phases.pretrained = "runs/dense"
    with pytest.raises(ValueError, match=r"config\.phases\.pretrained"):
        seeds.run_seeds(config, [0], dataset)


def test_a_loss_that_is_not_finite_is_an_error(short, dataset):
    config = short(
        "mnist1d/dense", learning_rate=1e30, dense=0.3, prune=0.0, finetune=0.0
    )
    with pytest.raises(NonFiniteLossError, match="seed 0"):
        seeds.run_seeds(config, [0], dataset)


_SHORT = [
    "--config.data.batch_size=16",
    "--config.data.eval_batch_size=16",
    "--config.phases.dense=0.0",
    "--config.phases.prune=0.3",
    "--config.phases.finetune=0.1",
]


def run_cells(tmp_path, *arguments):
    return cells.main(
        [*arguments, *_SHORT, "--seeds=0,1", f"--workdir={tmp_path / 'cells'}"]
    )


@pytest.fixture
def in_memory(dataset, monkeypatch):
    monkeypatch.setattr(cells, "_dataset", lambda name, data_dir: dataset)


def test_finished_cells_are_left_alone_and_read_the_test_when_told(
    tmp_path, in_memory, monkeypatch, capsys
):
    def run_seeds(config, given, dataset, *, test):
        assert config.budget.sparsity == 0.9
        read = {"test": 0.5} if test else {}
        rows = [{"seed": seed, "validation": 0.25, **read} for seed in given]
        return seeds.Result(rows, [], 1.0)

    monkeypatch.setattr(cells, "run_seeds", run_seeds)
    arguments = ["--configs=mnist1d/magnitude:mlp1d", "--sparsities=0.9"]
    assert run_cells(tmp_path, *arguments) == 0
    (file,) = (tmp_path / "cells").rglob("*.json")
    assert file.relative_to(tmp_path / "cells").as_posix() == (
        "mnist1d/magnitude:mlp1d/0.9.cell.json"
    )
    content = json.loads(file.read_text())
    assert [row["seed"] for row in content["rows"]] == [0, 1]
    assert "test" not in content["rows"][0]

    before = file.stat().st_mtime_ns
    assert run_cells(tmp_path, *arguments) == 0
    assert "1 of 1 are finished already" in capsys.readouterr().out
    assert file.stat().st_mtime_ns == before

    assert run_cells(tmp_path, *arguments, "--test") == 0
    assert json.loads(file.read_text())["rows"][0]["test"] == 0.5


def test_crossed_cells_take_the_numbers_that_dsa_found_for_each_seed(
    tmp_path, in_memory, monkeypatch
):
    files = []
    monkeypatch.setattr(
        cells, "run_cell", lambda cell, seeds, test: files.append(cell) or "ran"
    )
    assert (
        run_cells(tmp_path, "--configs=mnist1d/dsa", "--budgets=macs:0.5", "--crossed")
        == 0
    )
    assert len(files) == 9
    assert files[0].config == "mnist1d/dsa"
    taken = [cell.fields().method.allocation for cell in files[1:]]
    assert [bool(text) for text in taken] == [False] * 4 + [True] * 4
    assert set(filter(None, taken)) == {str(files[0].file)}
    assert len({cell.file for cell in files}) == 9
