"""Whole runs: phases, trail, resumption after a kill, devices, and what stops a run."""

import dataclasses
import functools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise

import filelock
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxprune
from experiments import configs, data, models, train
from experiments.analyses import compact
from experiments.configs import default
from experiments.configs.digits import dsa
from experiments.data import images
from experiments.logging.metrics_file import read_metrics
from experiments.plans import channels
from experiments.plans.dsa import DSA_AS_PUBLISHED
from experiments.plans.lats import LATS, PGH
from experiments.plans.ltp import LTP
from experiments.plans.method import channel_limits
from experiments.plans.one_shot import GRASP, RANDOM_ERK, SNIP
from experiments.plans.optimizers import DENSE
from experiments.plans.ranked import UNIFORM
from experiments.run import latencies, parallel, phases, trail
from experiments.run.setting import prepare
from experiments.run.steps import (
    Step,
    init_state,
    make_search_step,
    make_train_step,
)
from jaxprune import io
from tests.experiments.fields import has, put
from tests.experiments.numbers import numbers
from tests.support.rows import rows

pytestmark = pytest.mark.usefixtures("digits_in_memory")

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = configs.names()
# 2 + 8 + 4 steps of 32 images.
SHORT = {"dense": 0.05, "prune": 0.18, "finetune": 0.09}


def _config(data_dir, plan=LTP, **changes):
    config = default.get_config(plan)
    fields = {
        **SHORT,
        "model": "mlp",
        "dir": str(data_dir),
        "progress": False,
        "log_every": 1,
        "checkpoint_every": 3,
        "eval_every": 5,
        **({"trail_every": 1} if has(config, "trail_every") else {}),
        **changes,
    }
    return put(config, **fields)


@pytest.fixture(scope="module")
def finished(data_dir, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    config = _config(data_dir, threshold_learning_rate=0.5)
    return config, workdir, train.train_and_evaluate(config, workdir)


def test_a_run_meets_its_budget_and_writes_what_it_promises(finished):
    _, workdir, summary = finished
    assert summary == json.loads((workdir / "summary.json").read_text())
    final = summary["final"]
    assert final["kept_weights"] == jaxprune.masks.keep_count(0.05, 50_200)
    assert summary["budget"] == {"weights": 0.05}
    assert summary["costs"] == {"weights": final["keep_ratio"]}
    assert set(final["layers"]) == {f"dense{i}/kernel" for i in (1, 2, 3)}
    assert summary["dense_accuracy"] > 0
    for name in ("report.html", "metrics.jsonl", "config.json", "plots/accuracy.png"):
        assert (workdir / name).stat().st_size > 0


def test_the_trail_gets_sparser_and_its_networks_are_as_sparse_as_they_say(finished):
    _, workdir, summary = finished
    entries = io.entries(workdir / "trail")
    assert [e.metadata["step"] for e in entries] == [e.step for e in entries]
    points = summary["points"]
    assert points[-1]["keep_ratio"] <= 0.05
    assert all(a["keep_ratio"] > b["keep_ratio"] for a, b in pairwise(points))
    like = _network_like(finished[0])
    for entry in entries:
        params = io.load(entry, like)["params"]
        kept = sum(
            int(jnp.sum(leaf != 0))
            for leaf in jaxprune.tree.select(params, jaxprune.kernels).values()
        )
        assert kept <= entry.metadata["kept_weights"]
    smallest = trail.smallest(entries, accuracy=0.0)
    assert smallest.metadata["keep_ratio"] <= 0.05


def _network_like(config):
    network = prepare(config, pathlib.Path("unused")).init()
    return {
        "params": network["params"],
        "batch_stats": network.get("batch_stats", {}),
    }


def test_a_finished_run_is_not_run_again(finished):
    config, workdir, summary = finished
    before = (workdir / "metrics.jsonl").stat().st_mtime_ns
    assert train.train_and_evaluate(config, workdir) == summary
    assert (workdir / "metrics.jsonl").stat().st_mtime_ns == before


def test_a_workdir_of_another_config_is_refused_by_the_first_difference(
    finished, data_dir
):
    _, workdir, _ = finished
    with pytest.raises(
        ValueError, match=r"'budget.sparsity' is 0\.95 there and 0\.9 here"
    ):
        train.train_and_evaluate(
            _config(data_dir, threshold_learning_rate=0.5, sparsity=0.9), workdir
        )


@pytest.fixture
def copy(finished, tmp_path):
    """A finished run that the test may change."""
    config, workdir, summary = finished
    shutil.copytree(workdir, tmp_path / "copy")
    return config, tmp_path / "copy", summary


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def _largest_file(folder):
    return max(
        (f for f in folder.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size
    )


def test_a_run_whose_newest_checkpoint_is_broken_goes_on_from_the_one_before(
    copy, capsys
):
    config, workdir, summary = copy
    (workdir / "summary.json").write_text('{"status": "finis')
    before, newest = io.entries(workdir / "checkpoints")
    _flip(_largest_file(newest.path))
    again = train.train_and_evaluate(config, workdir)
    assert {**again, "seconds": 0, "phase_seconds": 0} == {
        **summary,
        "seconds": 0,
        "phase_seconds": 0,
    }
    said = capsys.readouterr().err
    assert "summary.json' must hold JSON" in said
    assert f"{newest.path}' must be whole" in said
    assert (workdir / f"checkpoints/{newest.step}.broken").is_dir()
    assert before.step in {e.step for e in io.entries(workdir / "checkpoints")}


def test_a_run_without_a_whole_checkpoint_says_so_and_keeps_them(copy):
    config, workdir, _ = copy
    (workdir / "summary.json").unlink()
    found = io.entries(workdir / "checkpoints")
    for entry in found:
        _flip(entry.path / "_CHECKPOINT_METADATA")
    with pytest.raises(io.BrokenCheckpointError, match=r"/\d+' must be whole"):
        train.train_and_evaluate(config, workdir)
    assert len([*workdir.glob("checkpoints/*.broken")]) == len(found)


def test_a_workdir_in_use_is_refused(copy):
    config, workdir, _ = copy
    with (
        filelock.FileLock(workdir / ".lock"),
        pytest.raises(ValueError, match=r"workdir=.* is in use: another run"),
    ):
        train.train_and_evaluate(config, workdir)


def test_a_field_that_a_workdir_lacks_had_its_default(copy, data_dir):
    config, workdir, summary = copy
    content = json.loads((workdir / "config.json").read_text())
    del content["optimizer"]["decay_everything"]
    (workdir / "config.json").write_text(json.dumps(content))
    assert train.train_and_evaluate(config, workdir) == summary
    other = _config(data_dir, threshold_learning_rate=0.5, decay_everything=True)
    with pytest.raises(ValueError, match=r"decay_everything' is False there and True"):
        train.train_and_evaluate(other, workdir)


def test_a_config_that_was_cut_off_is_named(copy):
    config, workdir, _ = copy
    text = (workdir / "config.json").read_text()
    (workdir / "config.json").write_text(text[:100])
    with pytest.raises(ValueError, match=r"config.json' must hold JSON: .*Restore it"):
        train.train_and_evaluate(config, workdir)


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_a_network_of_the_trail_can_be_pruned_further(finished, data_dir, tmp_path):
    _, workdir, summary = finished
    config = _config(data_dir, pretrained=str(workdir), dense=0.0, sparsity=0.97)
    again = train.train_and_evaluate(config, tmp_path)
    assert again["dense_accuracy"] == summary["final"]["accuracy"]
    assert again["final"]["keep_ratio"] <= 0.03


def test_pretrained_needs_a_finished_run(data_dir, tmp_path):
    config = _config(data_dir, pretrained=str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match="workdir of a finished run"):
        train.train_and_evaluate(config, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.usefixtures("one_device", "no_pictures")
def test_a_fixed_penalty_weight_decides_the_size(data_dir, tmp_path):
    config = _config(data_dir, penalty_weight=30.0, threshold_learning_rate=0.5)
    summary = train.train_and_evaluate(config, tmp_path)
    assert summary["budget"] is None
    assert summary["final"]["keep_ratio"] < 0.5


def _networks_of_the_trail(config, workdir):
    like = _network_like(config)
    entries = io.entries(workdir / "trail")
    return [(e.metadata, io.load(e, like)["params"]) for e in entries]


@pytest.mark.usefixtures("one_device", "no_pictures")
@pytest.mark.parametrize("rewind", rows([False, True], [True]))
def test_early_pruning_freezes_its_mask_and_rewinding_restarts_from_the_beginning(
    rewind, data_dir, tmp_path
):
    config = _config(
        data_dir,
        plan=PGH,
        rewind=rewind,
        dense=0.0,
        min_keep_ratio=0.0,  # What a floor keeps beyond the threshold starts at 0.
        finetune_learning_rate=0.0,  # What it starts from is what it ends with.
    )
    summary = train.train_and_evaluate(config, tmp_path)
    (pruned, found), (_, final) = _networks_of_the_trail(config, tmp_path)[-2:]
    count = jaxprune.masks.keep_count(0.05, 50_200)
    assert pruned["kept_weights"] == count
    start = prepare(config, pathlib.Path("unused")).init()["params"]
    for name, kernel in jaxprune.tree.select(final, jaxprune.kernels).items():
        want = jaxprune.tree.named_leaves(start if rewind else found)[name]
        kept = np.asarray(kernel != 0)
        np.testing.assert_array_equal(np.asarray(kernel)[kept], np.asarray(want)[kept])
        assert not np.asarray(jaxprune.tree.named_leaves(found)[name] != 0)[~kept].any()
    assert count - 1 <= summary["final"]["kept_weights"] <= count


@pytest.mark.usefixtures("one_device", "no_pictures")
def test_the_average_of_the_weights_is_what_is_measured_and_kept(data_dir, tmp_path):
    config = _config(data_dir, plan=SNIP, dense=0.0, prune=0.03, model="cnn")
    put(config, average=0.9, checkpoint_every=1, checkpoints_kept=9)
    summary = train.train_and_evaluate(config, tmp_path)
    setting = prepare(config, tmp_path)
    *_, (_, last) = _networks_of_the_trail(config, tmp_path)
    parts = phases.make(setting)
    blank = phases.blank_state(parts[-1], setting.network)
    states = [
        io.load(entry, blank)
        for entry in io.entries(tmp_path / "checkpoints")
        if entry.step >= parts[-1].begin
    ]
    want = states[0].average
    for done, state in enumerate(states[1:]):
        kept = min(0.9, (1 + done) / (10 + done))
        now = {"params": state.params, "batch_stats": state.batch_stats}
        want = jax.tree.map(
            lambda a, b, kept=kept: kept * a + (1 - kept) * b, want, now
        )
    assert len(states) >= 3
    kernel = last["conv2"]["kernel"]
    # The last step is not saved, so the average has moved once more.
    kept = len(states) / (9 + len(states))
    moved = kept * want["params"]["conv2"]["kernel"]
    assert 0 < np.abs(kernel - moved).max() < 2 * (1 - kept) * np.abs(kernel).max()
    assert summary["final"]["kept_weights"] == summary["points"][-1]["kept_weights"]


@pytest.mark.usefixtures("one_device", "no_pictures")
@pytest.mark.parametrize(
    "plan",
    rows(
        [SNIP, GRASP, RANDOM_ERK],
        [SNIP],
    ),
)
def test_a_method_that_prunes_once_moves_no_weight_before(plan, data_dir, tmp_path):
    config = _config(data_dir, plan=plan, dense=0.0, finetune_learning_rate=0.0)
    summary = train.train_and_evaluate(config, tmp_path)
    assert summary["final"]["kept_weights"] == jaxprune.masks.keep_count(0.05, 50_200)
    start = prepare(config, pathlib.Path("unused")).init()["params"]
    start = jaxprune.tree.named_leaves(start)
    _, final = _networks_of_the_trail(config, tmp_path)[-1]
    for name, kernel in jaxprune.tree.select(final, jaxprune.kernels).items():
        kept = np.asarray(kernel != 0)
        assert kept.any()
        np.testing.assert_array_equal(
            np.asarray(kernel)[kept], np.asarray(start[name])[kept]
        )


@pytest.mark.slow
@pytest.mark.usefixtures("one_device", "no_pictures")
@pytest.mark.parametrize("changes", [{"final_threshold": 0.2}, {"penalty_weight": 0.5}])
def test_an_open_loop_of_soft_thresholds_ends_at_its_threshold_or_weight(
    changes, data_dir, tmp_path
):
    config = _config(data_dir, plan=LATS, finetune=0.0, **changes)
    summary = train.train_and_evaluate(config, tmp_path)
    assert summary["budget"] is None
    assert 0 < summary["final"]["keep_ratio"] < 0.5


@pytest.mark.usefixtures("one_device", "no_pictures")
@pytest.mark.parametrize(
    ("plan", "solver"),
    [
        # That of LTP by `dual_ascent` is its default, above.
        pytest.param(LTP, "admm", marks=pytest.mark.slow),
        pytest.param(LATS, "dual_ascent", marks=pytest.mark.slow),
        pytest.param(LATS, "admm", marks=pytest.mark.slow),
    ],
)
def test_learned_and_soft_thresholds_are_driven_by_either_solver(
    plan, solver, data_dir, tmp_path
):
    config = _config(data_dir, plan=plan, solver=solver, prune=2.0)
    put(config, trail_every=20, checkpoint_every=100)
    summary = train.train_and_evaluate(config, tmp_path)
    assert summary["budget"] == {"weights": 0.05}
    assert summary["costs"]["weights"] <= 0.05
    assert summary["result"] in ("MET", "NOT_MET")
    assert summary["keep_ratios"].keys() == {f"dense{i}/kernel" for i in (1, 2, 3)}
    # By the solver, not by the finalizing alone.
    soft = [
        m["keep_ratio"]
        for m in read_metrics(tmp_path / "metrics.jsonl")
        if m.get("phase") == "prune" and "keep_ratio" in m
    ]
    assert soft[-1] < 0.3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"solver": "newton"}, r"config.method.solver='newton'.*'admm'"),
        (
            {"plan": LATS, "solver": "admm", "final_threshold": 0.1},
            "both say what moves the threshold",
        ),
    ],
)
def test_a_solver_that_does_not_fit_is_refused(changes, message, data_dir, tmp_path):
    with pytest.raises(ValueError, match=message):
        train.train_and_evaluate(_config(data_dir, **changes), tmp_path)


def _planned(config):
    """The setting of a config, and how its first phase trains."""
    setting = prepare(config, pathlib.Path("unused"))
    return setting, phases.make(setting)[0].plan(setting.network)


@pytest.mark.usefixtures("one_device", "no_pictures")
def test_a_search_that_is_not_finite_is_noticed(data_dir):
    config = put(dsa.get_config(), **SHORT, dir=str(data_dir))
    setting, plan = _planned(put(config, dense=0.0))
    cost = setting.task.channels.costs["parameters"]
    model = setting.network.model
    search = make_search_step(Step(model=model, plan=plan, size_cost=cost))
    network = setting.init()
    state = init_state(plan, network["params"], network["batch_stats"], 5)
    batch = next(setting.streams["held_out"])
    search = jax.jit(search)
    assert int(search(state, batch)[0].bad_step) == -1
    batch["image"] = batch["image"] * np.inf
    assert int(search(state, batch)[0].bad_step) == 4  # the step before


@pytest.mark.usefixtures("one_device", "no_pictures")
def test_the_published_search_lowers_keep_ratios_until_the_limit_is_met(data_dir):
    config = put(dsa.get_config(), **SHORT, dir=str(data_dir))
    config = default.with_method(config, DSA_AS_PUBLISHED)
    setting, plan = _planned(put(config, dense=0.0, ratio_learning_rate=100.0))
    cost = setting.task.channels.costs["parameters"]
    model = setting.network.model
    search = make_search_step(Step(model=model, plan=plan, size_cost=cost))
    network = setting.init()
    state = init_state(plan, network["params"], network["batch_stats"], 5)
    batch, search = next(setting.streams["held_out"]), jax.jit(search)
    before = state.variables
    # The dual variables of a search that is under way: all keep ratios are too large.
    pull = state.budget_state._replace(dual=1e6 + 0 * state.budget_state.dual)
    moved, _ = search(state._replace(budget_state=pull), batch)
    assert all(moved.variables[n] < before[n] for n in before)
    push = state.budget_state._replace(dual=-1e6 + 0 * state.budget_state.dual)
    assert search(state._replace(budget_state=push), batch)[0].variables == before
    met = pull._replace(step=pull.step + 1, cost=0.9 * pull.limit)
    assert search(state._replace(budget_state=met), batch)[0].variables == before


@pytest.mark.usefixtures("one_device")
def test_a_run_to_a_budget_of_channels_ends_compact_and_equal(
    data_dir, tmp_path, monkeypatch
):
    """To three limits at once; the small network is the masked large one."""
    config = put(dsa.get_config(), **SHORT, dir=str(data_dir), progress=False)
    put(config, latency_widths=4, latency_batch=8)
    put(config, ratio_every=1, finetune_learning_rate=0.0)
    put(config, macs=0.5, parameters=0.4, latency=0.9)
    # Timing is left out: a busy machine may find that nothing but calling takes time.
    seconds = lambda functions: [1.0, *[0.2] * (len(functions) - 1)]
    monkeypatch.setattr(
        jaxprune.costs.measure,
        "__kwdefaults__",
        {**jaxprune.costs.measure.__kwdefaults__, "timer": seconds},
    )
    compacted, compact = [], channels.Channels.compact
    monkeypatch.setattr(
        channels.Channels,
        "compact",
        lambda *args: compacted.append(args) or compact(*args),
    )
    summary = train.train_and_evaluate(config, tmp_path)
    assert len(compacted) == 1
    assert summary["budget"] == {"macs": 0.5, "parameters": 0.4, "latency": 0.9}
    reached = {name: summary["costs"][name] for name in summary["budget"]}
    assert all(reached[name] <= most for name, most in summary["budget"].items())
    assert any(reached[name] > m - 0.01 for name, m in summary["budget"].items())
    assert summary["result"] in ("MET", "NOT_MET")
    assert all(ratio > 0 for ratio in summary["keep_ratios"].values())
    assert (tmp_path / "report.html").exists()
    # Latency is measured once for a folder.
    monkeypatch.setattr(latencies, "_measure", None)  # would fail
    traced = prepare(config, tmp_path).task.channels
    masks = channels.from_json(traced.graph, summary["channels"])
    assert traced.reached(masks)["latency"] == summary["costs"]["latency"]
    _check_compact(traced, masks, io.latest(tmp_path / "trail"))
    config.budget.latency = 1e-6
    with pytest.raises(ValueError, match="smallest reachable cost"):
        prepare(config, tmp_path)


def _check_compact(traced, masks, entry):
    """The saved compact network computes what the masked dense one does."""
    small, _ = traced.compact(masks)
    network = io.load(entry, small.blank)
    x = jax.random.normal(jax.random.key(0), (16, 8, 8, 1))
    logits = jax.jit(functools.partial(small.apply, train=False))(network, x)
    # The weights back in their places, whatever stands in those of the others.
    full = jax.tree.map(lambda p: jnp.full(p.shape, 3.0), traced.blank)
    full = {"params": full[0], "batch_stats": full[1]}
    kept = traced.graph.compact(masks).kept
    leaves = jaxprune.tree.named_leaves(full)
    for name, values in jaxprune.tree.named_leaves(network).items():
        leaves[name] = leaves[name].at[np.ix_(*kept[name])].set(values)
    masked = traced.graph.masked(masks)
    want = jax.jit(masked)(jaxprune.tree.replace(full, leaves), x)
    np.testing.assert_allclose(logits, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"macs": 1.5}, r"config.budget.macs=1.5.*must be in \(0, 1\]"),
        ({"macs": 1e-6}, "smallest reachable cost"),
        ({"macs": None}, "prunes channels and needs a budget"),
        ({"held_out": 0.01}, "leaves 14 examples, fewer than one batch"),
        ({"held_out": 1.0}, r"must be in \[0, 1\)"),
        ({"importance": "norm_scale"}, "has no member of that name"),
    ],
)
def test_a_budget_that_cannot_be_met_is_refused(changes, message, data_dir, tmp_path):
    config = put(dsa.get_config(), dir=str(data_dir), progress=False, **changes)
    with pytest.raises(ValueError, match=message):
        train.train_and_evaluate(config, tmp_path)
    assert not list(tmp_path.glob("checkpoints/*"))


# Of each plan one is run here, unless a test above or below runs it on digits whole.
# The steps of the others are traced below, and run by `make test-slow`.
_RUN_WHOLE = (
    *("digits/dsa", "digits/erk", "digits/grasp", "digits/lats", "digits/ltp"),
    *("digits/pai", "digits/pgh_early", "digits/snip"),
)
_TRACED = (
    "cifar10/dsa_resnet18",
    "imagenet/dsa_resnet18",
    "cifar10/dsa_resnet20_as_published",
    "digits/dsa_resnet20",
    "imagenet/dsa_resnet50",
    "cifar10/dsa_resnet56",
    "cifar10/dsa_vgg16",
    "cifar10/ltp_resnet20",
    "digits/ltp_resnet20",
    "imagenet/ltp_alexnet",
    "imagenet/ltp_efficientnet_b0",
    "imagenet/ltp_mixnet_s",
    "imagenet/ltp_mobilenetv2",
    "imagenet/ltp_resnet18",
    "imagenet/ltp_resnet50",
    "imagenet/s_lats_mobilenetv1",
    "imagenet/s_lats_resnet50",
    "imagenet/s_lats_sew_resnet18",
)
# Their gradients take minutes to compile; with fewer layers they are run below.
_DEEP = (
    *("imagenet/ltp_efficientnet_b0", "imagenet/ltp_mixnet_s"),
    *("imagenet/ltp_mobilenetv2", "imagenet/s_lats_sew_resnet18"),
)
# A config of each network of the three papers.
_OF_PAPERS = (
    *("imagenet/ltp_alexnet", "imagenet/ltp_efficientnet_b0", "imagenet/ltp_mixnet_s"),
    *("imagenet/ltp_mobilenetv2", "imagenet/s_lats_resnet50"),
    *("imagenet/s_lats_mobilenetv1", "imagenet/s_lats_sew_resnet18"),
    *("cifar10/dsa_resnet20", "cifar10/dsa_resnet56", "cifar10/dsa_vgg16"),
    "imagenet/dsa_resnet18",
)


# Networks with one layer or block of each kind, as wide as those of the names.
_BASIC = functools.partial(
    models.ImageNetResNet, block=models.Basic, blocks=(1, 1, 1, 1)
)
_SHALLOW = {
    "resnet20": functools.partial(models.ResNet, blocks_per_stage=1),
    "resnet56": functools.partial(models.ResNet, blocks_per_stage=1),
    "resnet18": _BASIC,
    "resnet18_cifar": functools.partial(_BASIC, small_images=True),
    "resnet50": functools.partial(
        models.ImageNetResNet, block=models.Bottleneck, blocks=(2, 1, 1, 1)
    ),
    "vgg16": functools.partial(
        models.VGG16, stages=tuple((filters, 1) for filters, _ in models.VGG16.stages)
    ),
    "sew_resnet18": functools.partial(models.SEWResNet, blocks=(1, 1, 1, 1), width=16),
    "mobilenetv1": functools.partial(
        models.MobileNetV1, blocks=tuple((64 * 2**i, 1 + (i > 0)) for i in range(5))
    ),
}


_SHALLOW |= {
    name: functools.partial(
        model, stages=[dataclasses.replace(s, blocks=1) for s in model.stages]
    )
    for name, model in (
        ("mobilenetv2", models.MobileNetV2),
        ("efficientnet_b0", models.EfficientNetB0),
        ("mixnet_s", models.MixNetS),
    )
}


@pytest.fixture
def shallow(monkeypatch):
    """Networks with fewer layers of the same kinds and widths."""
    for name, model in _SHALLOW.items():
        monkeypatch.setitem(models.MODELS, name, model)


@pytest.mark.usefixtures("one_device", "no_pictures", "shallow")
@pytest.mark.parametrize(
    "name",
    rows(
        [name for name in CONFIGS if name not in (*_TRACED, *_RUN_WHOLE)],
        ("digits/dense", "digits/gmp"),
    ),
)
def test_a_config_of_each_plan_runs_two_steps(name, data_dir, tmp_path, monkeypatch):
    config = _two_steps(name, data_dir, monkeypatch)
    summary = train.train_and_evaluate(config, tmp_path)
    assert summary["final"]["step"] == 2
    assert _meets_its_target(config, summary)


@pytest.mark.slow
@pytest.mark.usefixtures("one_device")
@pytest.mark.parametrize("name", [n for n in CONFIGS if n not in _DEEP])
def test_every_config_runs_two_steps_of_its_own_network(
    name, data_dir, tmp_path, monkeypatch
):
    config = _two_steps(name, data_dir, monkeypatch)
    summary = train.train_and_evaluate(config, tmp_path)
    assert summary["final"]["step"] == 2
    assert _meets_its_target(config, summary)


@pytest.mark.slow
@pytest.mark.usefixtures("one_device", "shallow", "no_pictures")
@pytest.mark.parametrize("name", _OF_PAPERS)
def test_a_network_of_the_papers_is_pruned_compacted_and_exported(
    name, data_dir, tmp_path, monkeypatch
):
    config = _two_steps(name, data_dir, monkeypatch)
    train.train_and_evaluate(config, tmp_path)
    found = compact.compact_run(tmp_path, batch_sizes=(), rounds=1)
    assert found["difference"] < 1e-4
    assert (tmp_path / "compact" / "program.jax").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("one_device", "shallow")
@pytest.mark.parametrize("name", _TRACED)
def test_the_steps_of_other_configs_trace_and_their_widths_meet_the_budget(
    name, data_dir, monkeypatch
):
    config = _two_steps(name, data_dir, monkeypatch)
    reached, metrics = _traced_two_steps(config)
    assert metrics
    assert all(m.shape == () for m in metrics)
    limits = channel_limits(config)
    assert limits.keys() <= reached.keys()
    for cost, limit in limits.items():
        assert limit - 0.01 < reached[cost] <= limit


def _two_steps(name, data_dir, monkeypatch):
    """A config with two steps of its pruning phase, where it has one."""
    config = configs.load(name)
    examples = 1437
    if config.data.name != "digits":
        # Images of noise in the shape of the data set: nothing is downloaded.
        monkeypatch.setattr(data, "load", _noise)
        examples = 40
        put(config, pretrained="")
        # A pass over every leaf, which small networks take above.
        if has(config, "min_keep_ratio"):
            put(config, min_keep_ratio=0.0)
        if config.data.name == "imagenet2012":
            # AlexNet reads no pictures below 63x63.
            put(config, image_size=64 if config.model == "alexnet" else _SIDE)
        put(config, held_out=0.25 if config.data.held_out else 0.0, eval_split="test")
    # Both steps are followed by one of the search, where there is one.
    for field, value in (("ratio_every", 1), ("trials", 2)):
        if has(config, field):
            put(config, **{field: value})
    names = [p for p in ("prune", "dense", "finetune") if config.phases[p]]
    for phase in names[1:]:
        config.phases[phase] = 0.0
    config.phases[names[0]] = 2 / (examples // 8)
    put(config, dir=str(data_dir), progress=False)
    return put(config, eval_batch_size=40, batch_size=8)


def _meets_its_target(config, summary):
    if channel_limits(config):
        limits = summary["budget"].items()
        return all(summary["costs"][cost] <= limit for cost, limit in limits)
    if config.phases.prune:
        return summary["final"]["keep_ratio"] <= 1 - config.budget.sparsity + 1e-9
    return True


def _traced_two_steps(config):
    """Traces the steps of the weights and of the search, and decides the widths.

    Returns the costs of the widths, {} where weights are pruned, and the metrics of the
    steps.
    """
    setting = prepare(config, pathlib.Path("unused"))
    (phase,) = phases.make(setting)
    plan, traced = phase.plan(setting.network), setting.task.channels
    steps = [(make_train_step, "weights"), (make_search_step, "held_out")]
    if traced is None:
        cost, steps = (
            jaxprune.density(setting.network.params),
            [(make_train_step, "train")],
        )
    else:
        cost = traced.costs["parameters"]
    step = Step(setting.network.model, plan, cost, seed=config.seed)
    state = phases.blank_state(phase, setting.network)
    shapes = lambda batch: jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch
    )
    seen = []
    for make, stream in steps:
        batch = shapes(next(setting.streams[stream]))
        state, metrics = jax.eval_shape(make(step), state, batch)
        seen += jax.tree.leaves(metrics)
    if traced is None:
        return {}, seen
    variables = {name: jnp.float32(1.0) for name in state.variables}
    params = jax.tree.map(lambda p: jnp.ones(p.shape), state.params)
    masks = plan.allocate(state._replace(params=params, variables=variables))
    return traced.reached(masks), seen


# Of the pictures that stand for those of ImageNet.
_SIDE = 32


def _noise(name, *, data_dir):
    del data_dir
    spec = data.dataset_spec(name)
    if not spec.in_memory:  # Pictures in files, and too large for a test.
        spec = dataclasses.replace(
            spec,
            image_shape=(_SIDE, _SIDE, 3),
            train_view=None,
            test_view=images.upsample,
        )
    rng = np.random.default_rng(0)
    source = data.ArraySource(
        images=rng.integers(0, 256, (40, *spec.image_shape)).astype(np.uint8),
        labels=rng.integers(0, spec.num_classes, (40, *spec.label_shape)).astype(
            np.int32
        ),
    )
    return data.Dataset(spec=spec, train=source, test=source)


# ------------------------------------------------------------- devices and kills


@pytest.mark.parametrize("way", rows(["jit", "fsdp", "pmap"], ["jit"]))
def test_eight_devices_equal_one_after_twenty_steps(way, data_dir):
    config = _config(data_dir, model="cnn", batch_size=64)
    setting = prepare(config, pathlib.Path("unused"))
    network = jax.device_get(setting.init())
    plan = LTP.plan(config, setting.task._replace(steps=20))
    batches = [next(setting.streams["train"]) for _ in range(20)]
    cost = jaxprune.density(network["params"])

    same = lambda tree: tree

    def run(model, compiled, shard, replicate, collect):
        state = replicate(
            init_state(plan, network["params"], network["batch_stats"], 0)
        )
        for batch in batches:
            state, _ = compiled(state, shard(batch))
        if way == "fsdp" and shard is not same:
            kernel = state.params["dense1"]["kernel"]
            assert kernel.addressable_data(0).size == kernel.size // 8
        return jax.device_get(collect(state))

    shared = Step(model=setting.network.model, plan=plan, size_cost=cost)
    single = jax.jit(make_train_step(shared))
    want = run(setting.network.model, single, same, same, same)
    ways = parallel.create(way)
    model = models.create("cnn", 10, axis_name=ways.axis_name)
    shared = shared._replace(model=model, axis_name=ways.axis_name)
    step = ways.compile(make_train_step(shared))
    got = run(model, step, ways.shard, ways.replicate, ways.collect)
    parts = ("params", "variables", "batch_stats")
    a, b = (
        np.concatenate(
            [np.ravel(x) for n in parts for x in jax.tree.leaves(getattr(state, n))]
        )
        for state in (got, want)
    )
    # An activation at the kink of a ReLU may round to either side of it. Then the
    # gradients of one unit, 288 weights of a filter here, differ by one example.
    apart = ~np.isclose(a, b, rtol=1e-5, atol=1e-5)
    assert apart.sum() <= 300
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits/dsa", "digits/channel_garrote_resnet20"])
@pytest.mark.parametrize("way", ["fsdp", "pmap"])
def test_channels_however_spread_are_those_under_jit(name, way, data_dir, tmp_path):
    found = {}
    for one in ("jit", way):
        short = {"dense": 0.2, "prune": 0.5, "finetune": 0.2, "progress": False}
        config = put(configs.load(name), dir=str(data_dir), model="cnn", **short)
        config = put(config, parallel=one, batch_size=64, eval_batch_size=64)
        found[one] = train.train_and_evaluate(config, tmp_path / one)
    assert found["jit"]["channels"] == found[way]["channels"]
    # An example is 0.28 %.
    accuracies = [run["final"]["accuracy"] for run in found.values()]
    assert accuracies[0] == pytest.approx(accuracies[1], abs=0.01)


_COMMAND = [sys.executable, "-m", "experiments", "train"]
# Seconds, for a machine as busy as it may be: what hangs must end some day.
_PATIENCE = 1800


def _start(data_dir, workdir, name="digits/ltp", arguments=(), **changes):
    flags = {
        "model": "mlp" if name == "digits/ltp" else "cnn",
        **SHORT,
        "dir": data_dir,
        "checkpoint_every": 3,
        "log_every": 1,
        "trail_every": 1,
        "threshold_learning_rate": 0.5,
        **changes,
    }
    leaves = configs.leaves(configs.load(name))
    full = {field.rpartition(".")[2]: field for field, _ in leaves}
    return subprocess.Popen(
        [
            *_COMMAND,
            f"--config={name}",
            f"--workdir={workdir}",
            *(
                f"--config.{full[field]}={value}"
                for field, value in flags.items()
                if field in full
            ),
            *arguments,
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            # What one start has compiled the next need not compile again.
            "JAX_COMPILATION_CACHE_DIR": str(data_dir / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _wait_for_step(process, workdir, step):
    """Waits until a run has logged a step; fails if it ends before."""
    metrics = workdir / "metrics.jsonl"
    while not metrics.exists() or all(m["step"] < step for m in read_metrics(metrics)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def _trail_of(name, run, data_dir):
    """The networks of a trail; once channels are decided, they are compact."""
    config = configs.load(name)
    found = json.loads((run / "summary.json").read_text())
    put(config, dir=str(data_dir), model=found["model"])
    dense = _network_like(config)
    for entry in io.entries(run / "trail"):
        like = dense
        if "costs" in entry.metadata:
            traced = prepare(config, pathlib.Path("unused")).task.channels
            masks = channels.from_json(traced.graph, found["channels"])
            like = traced.compact(masks)[0].blank
        yield entry.step, entry.metadata, io.load(entry, like)


def _stop(process, number, workdir):
    """Ends a run by a signal, and checks what it leaves."""
    process.send_signal(number)
    out, errors = process.communicate(timeout=_PATIENCE)
    if number == signal.SIGKILL:
        return
    assert process.returncode == 130, errors
    assert "the same command goes on" in out
    assert "Traceback" not in errors
    assert json.loads((workdir / "summary.json").read_text())["status"] == "stopped"


# While pruning, by a closed terminal or killed, and again while fine-tuning.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "signals"),
    [
        ("digits/ltp", {4: signal.SIGHUP}),
        ("digits/dsa", {4: signal.SIGKILL, 8: signal.SIGINT, 11: signal.SIGKILL}),
    ],
)
def test_a_run_that_was_stopped_goes_on_and_ends_with_the_same_bits(
    name, signals, data_dir, tmp_path
):
    data.load("digits", data_dir=data_dir)
    start = functools.partial(_start, name=name, ratio_every=1)
    undisturbed = start(data_dir, tmp_path / "undisturbed")
    out, errors = undisturbed.communicate(timeout=_PATIENCE)
    assert undisturbed.returncode == 0, errors
    assert "report.html" in out
    workdir = tmp_path / "stopped"
    for step, number in signals.items():
        process = start(data_dir, workdir)
        _wait_for_step(process, workdir, step)
        _stop(process, number, workdir)
        summary = workdir / "summary.json"
        assert not summary.exists() or json.loads(summary.read_text())["final"] is None
    last = start(data_dir, workdir)
    _, errors = last.communicate(timeout=_PATIENCE)
    assert last.returncode == 0, errors
    _assert_same_bits(name, [tmp_path / "undisturbed", workdir], data_dir)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits/ltp", "digits/dsa", "digits/s_lats"])
def test_twenty_kills_at_random_moments_change_no_bit(name, data_dir, tmp_path):
    data.load("digits", data_dir=data_dir)
    longer = {"dense": 0.5, "prune": 1.5, "finetune": 0.5, "ratio_every": 1}
    start = functools.partial(_start, data_dir, name=name, **longer)
    undisturbed = start(workdir=tmp_path / "undisturbed")
    _, errors = undisturbed.communicate(timeout=_PATIENCE)
    assert undisturbed.returncode == 0, errors
    steps = read_metrics(tmp_path / "undisturbed/metrics.jsonl")[-1]["step"]
    rng = np.random.default_rng(0)
    for kill in range(20):
        process = start(workdir=tmp_path / "killed")
        if kill % 2:  # while it starts, looks for a checkpoint, loads and compiles
            time.sleep(rng.uniform(0.1, 5))
        else:
            _wait_for_step(process, tmp_path / "killed", round(0.9 * steps * kill / 20))
            time.sleep(rng.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=_PATIENCE)
        assert process.returncode == -signal.SIGKILL
    last = start(workdir=tmp_path / "killed")
    _, errors = last.communicate(timeout=_PATIENCE)
    assert last.returncode == 0, errors
    _assert_same_bits(name, [tmp_path / "undisturbed", tmp_path / "killed"], data_dir)


def _assert_same_bits(name, runs, data_dir):
    """Two runs have the same networks, metrics and summaries."""
    trails = [list(_trail_of(name, run, data_dir)) for run in runs]
    assert len(trails[0]) >= 3
    for one, other in zip(*trails, strict=True):
        assert one[:2] == other[:2]
        for x, y in zip(*map(jax.tree.leaves, (one[2], other[2])), strict=True):
            assert np.asarray(x).tobytes() == np.asarray(y).tobytes()
    assert numbers(runs[0]) == numbers(runs[1])
    summaries = [json.loads((run / "summary.json").read_text()) for run in runs]
    for key in (
        *("points", "final", "dense_accuracy", "config", "channels", "result"),
        "status",
    ):
        assert summaries[0][key] == summaries[1][key]


# ------------------------------------------------------------------- bad input


@pytest.mark.usefixtures("one_device", "no_pictures")
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(
    data_dir, tmp_path, monkeypatch
):
    config = _config(data_dir, log_every=100, checkpoint_every=4)
    batches = data.train_batches

    class Poisoned:
        """The real batches; the seventh holds a NaN."""

        def __init__(self, *args, **kwargs):
            self._batches, self._count = batches(*args, **kwargs), 0

        def __next__(self):
            batch, self._count = next(self._batches), self._count + 1
            if self._count == 7:
                batch["image"] = np.full_like(batch["image"], np.nan)
            return batch

        def __getattr__(self, name):
            return getattr(self._batches, name)

    monkeypatch.setattr(data, "train_batches", Poisoned)
    with pytest.raises(
        train.NonFiniteLossError, match=r"loss of step 7 .*checkpoints/4"
    ):
        train.train_and_evaluate(config, tmp_path)
    assert io.latest(tmp_path / "checkpoints").step == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sparsity": 1.0}, r"sparsity=1\.0.*\[0, 1\)"),
        ({"sparsity": -0.5}, r"sparsity=-0\.5"),
        ({"sparsity": 0.999, "min_keep_ratio": 0.5}, "at least"),
        ({"batch_size": 63}, "batch_size=63.*multiple"),
        ({"batch_parts": 3}, "batch_parts=3.*must divide"),
        ({"dtype": "float16"}, "dtype='float16'.*must be one of"),
        ({"parallel": "threads"}, r"parallel='threads'.*one of 'jit', 'fsdp', 'pmap'"),
        ({"dense": -1.0}, "phases.dense=-1"),
        ({"dense": 0.0, "prune": 0.0, "finetune": 0.0}, "long enough for a step"),
        ({"model": "cn"}, "Did you mean"),
        ({"data__name": "digit"}, "digits"),
        (
            {"macs": 0.5, "plan": UNIFORM, "prune": 0.01},
            r"budget.macs=0\.5.*phases.prune=0\.01. leaves the pruning out",
        ),
        ({"plan": DENSE}, "method 'dense' prunes nothing"),
        ({"rewind": True, "prune": 0.0}, "phases.rewind.*phases.prune"),
    ],
)
def test_bad_fields_are_refused_before_anything_is_written(
    changes, message, data_dir, tmp_path
):
    config = _config(data_dir, **changes)
    with pytest.raises(ValueError, match=message):
        train.train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_workdir_that_cannot_be_made_is_refused(data_dir, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match=r"cannot be written.*Choose a folder"):
        train.train_and_evaluate(_config(data_dir), tmp_path / "file" / "run")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.budget.sparsity=1.5"], "budget.sparsity=1.5"),
        (["--config.sparsty=0.9"], "Did you mean 'budget.sparsity'"),
        (["--config.method.sharpness=3"], "no such field for LTP"),
        (["--config.momentum=0.8"], "Did you mean 'optimizer.momentum'"),
    ],
)
def test_the_command_says_what_is_wrong_without_a_traceback(
    arguments, message, tmp_path, capsys
):
    given = ["--config=digits/ltp", f"--workdir={tmp_path / 'run'}", *arguments]
    try:
        status = train.main(given)
    except SystemExit as error:
        status = error.code
    assert status in (1, 2)
    errors = capsys.readouterr().err
    assert message in errors
    assert "Traceback" not in errors
