"""Runs of language models: each config on a few short texts, and what it reports."""

import dataclasses
import functools

import numpy as np
import optax
import pytest

from experiments import configs, data, models, train
from experiments.analyses import compact, sensitivity
from experiments.configs import default
from experiments.logging.metrics_file import METRICS_FILE, read_metrics
from experiments.plans.magnitude import MAGNITUDE
from tests.experiments.fields import put
from tests.support.rows import rows

pytestmark = pytest.mark.usefixtures("one_device", "short_texts")

CONFIGS = [name for name in configs.names() if name.startswith("stdlib/")]


@pytest.fixture
def short_texts(monkeypatch):
    """A tiny decoder, and 40 texts of 12 bytes in place of the standard library."""
    tiny = functools.partial(
        models.Decoder, width=8, layers=3, hidden=24, heads=2, kv_heads=1, features=4
    )
    monkeypatch.setitem(models.MODELS, "decoder_tiny", tiny)
    spec = dataclasses.replace(
        data.dataset_spec("stdlib_bytes"), image_shape=(12,), num_classes=128
    )
    text = np.random.default_rng(0).integers(97, 105, (40, 13), dtype=np.uint8)
    source = data.ArraySource(text[:, :-1], text[:, 1:])
    dataset = data.Dataset(spec=spec, train=source, test=source, validation=source)
    monkeypatch.setattr(data, "load", lambda name, data_dir: dataset)
    monkeypatch.setattr(data, "dataset_spec", lambda name: spec)


def _short(name):
    config = configs.load(name) if isinstance(name, str) else name
    prunes = config.plan.plan is not None
    return put(
        config,
        dense=0.4,
        prune=0.4 * prunes,
        finetune=0.4 * prunes,
        batch_size=8,
        eval_batch_size=16,
        log_every=1,
        progress=False,
        **({"held_out": 0.25} if prunes else {}),
    )


def _bits(network, x, y):
    logits = network.apply_fn(network.variables, x.astype(np.int32))
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, y.astype(np.int32))
    return float(np.mean(losses) / np.log(2))


@pytest.mark.parametrize("name", rows(CONFIGS, ("stdlib/depth",)))
def test_a_run_reports_the_bits_per_byte_of_its_last_network(name, tmp_path):
    summary = train.train_and_evaluate(_short(name), tmp_path)
    assert summary["measure"] == "bits_per_byte"
    assert summary["versions"]["python"].startswith("3.")
    final = summary["final"]
    assert "accuracy" not in final
    source = data.load("stdlib_bytes", data_dir="").test
    found = _bits(compact.read_network(tmp_path), source.images, source.labels)
    assert final["bits_per_byte"] == pytest.approx(found, rel=1e-4)
    assert summary["dense_bits_per_byte"] > 2
    for cost, limit in (summary["budget"] or {}).items():
        assert 0.2 < summary["costs"][cost] <= limit
    last = read_metrics(tmp_path / METRICS_FILE)[-1]
    assert last["test_bits_per_byte"] == final["bits_per_byte"]
    page = (tmp_path / "report.html").read_text()
    assert "Bits per byte" in page
    assert "points of accuracy" not in page


@pytest.mark.slow
def test_a_run_is_compacted_and_its_groups_are_measured(tmp_path):
    train.train_and_evaluate(_short("stdlib/uniform"), tmp_path)
    assert compact.compact_run(tmp_path, batch_sizes=(), rounds=1)["difference"] < 1e-4
    assert sensitivity.measure(tmp_path)["loss"] > 1


@pytest.mark.slow
def test_weights_of_stacked_layers_are_pruned(tmp_path):
    config = put(default.get_config(MAGNITUDE), model="decoder_tiny", sparsity=0.5)
    config.data.name = "stdlib_bytes"
    summary = train.train_and_evaluate(_short(config), tmp_path)
    final, point = summary["final"], summary["points"][-1]
    assert final["keep_ratio"] == pytest.approx(0.5, abs=1e-3)
    assert 0 < point["bits_per_byte_hard"] < 20
    assert 0 < point["bits_per_byte_soft"] < 20
