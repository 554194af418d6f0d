"""Weights that come back after they were pruned are counted, step by step."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxprune
from experiments import train
from experiments.configs import default
from experiments.plans.lats import LATS
from experiments.report import report
from experiments.report.plots.run import figures
from experiments.run import regrowth
from experiments.run.setting import prepare
from jaxprune import io
from tests.experiments.fields import put
from tests.experiments.numbers import numbers

pytestmark = pytest.mark.usefixtures("digits_in_memory")

WEIGHTS = 50_200


def soft_run(data_dir, workdir, **changes):
    """Train `mlp` for twenty steps with soft thresholds; return its pruning steps."""
    config = put(default.get_config(LATS), dense=0.05, prune=0.46, finetune=0.0)
    put(config, model="mlp", dir=str(data_dir), progress=False)
    put(config, log_every=1, trail_every=100)
    put(config, learning_rate=0.3, sparsity=0.5)  # So that weights return.
    put(config, **changes)
    with pytest.MonkeyPatch.context() as patch:
        # The page is not what these tests look at, and takes longer than the run.
        patch.setattr(report, "write_report", lambda workdir: None)
        train.train_and_evaluate(config, workdir)
    records = numbers(workdir)
    entry = io.entries(workdir / "trail")[-1]
    like = prepare(config, workdir).init()
    like = {"params": like["params"], "batch_stats": like.get("batch_stats", {})}
    return {r["step"]: r for r in records if "loss" in r}, io.load(entry, like)


@pytest.fixture(scope="module")
def often(data_dir, tmp_path_factory):
    return soft_run(data_dir, tmp_path_factory.mktemp("often"))


def gains(records):
    """Of every pruning step but the last: the weights gained, counted and by ratio."""
    pruning = [r for r in records.values() if r["phase"] == "prune"]
    counted = [r["regrown"] - r["newly_pruned"] for r in pruning[:-1]]
    ratios = [b["keep_ratio"] - a["keep_ratio"] for a, b in pairwise(pruning)]
    return pruning, counted, [ratio * WEIGHTS for ratio in ratios]


def test_what_is_regrown_less_what_is_pruned_is_what_the_network_gains(often):
    pruning, counted, gained = gains(often[0])
    assert len(pruning) > 15
    np.testing.assert_allclose(counted, gained, atol=0.1)
    assert sum(r["regrown"] for r in pruning) > 0
    assert sum(r["newly_pruned"] for r in pruning) > 0.4 * WEIGHTS


def test_only_steps_that_prune_are_counted(often):
    counted = {step for step, r in often[0].items() if "regrown" in r}
    assert counted == {s for s, r in often[0].items() if r["phase"] == "prune"}


@pytest.mark.slow
def test_looking_changes_neither_the_network_nor_the_numbers(often, data_dir, tmp_path):
    records, network = soft_run(data_dir, tmp_path, log_every=5)
    for ours, theirs in zip(
        jax.tree.leaves(network), jax.tree.leaves(often[1]), strict=True
    ):
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()
    assert len(records) > 3
    assert all(often[0][step] == record for step, record in records.items())


@pytest.mark.slow
def test_under_pmap_the_counts_of_one_device_are_taken(data_dir, tmp_path):
    records, _ = soft_run(data_dir, tmp_path, parallel="pmap", prune=0.2)
    pruning, counted, gained = gains(records)
    np.testing.assert_allclose(counted, gained, atol=0.1)
    assert sum(r["newly_pruned"] for r in pruning) > 0


def test_zeros_are_those_of_the_network_not_of_the_latent_weights():
    params = {"kernel": jnp.array([[0.5, -2.0, 0.0]]), "bias": jnp.zeros(2)}
    soft = jaxprune.soft_thresholding(init_threshold=1.0)
    zeros = regrowth.make_zeros(soft)(params, soft.init(params), jnp.int32(0))
    assert {name: z.tolist() for name, z in zeros.items()} == {
        "kernel": [[True, False, True]]
    }


def test_the_pruner_counts_steps_from_the_begin_of_its_phase():
    ramp = jaxprune.magnitude(sparsity=lambda step: 0.25 * step)
    zeros = regrowth.make_zeros(ramp, first_step=10)
    params = {"kernel": jnp.array([[1.0, 2.0, 3.0, 4.0]])}
    assert [int(zeros(params, {}, jnp.int32(s))["kernel"].sum()) for s in (10, 12)] == [
        0,
        2,
    ]


def test_the_picture_is_drawn_where_a_weight_changed_sides():
    records = [
        {"step": s, "regrown": 3.0 * (s > 5), "newly_pruned": 20.0} for s in range(9)
    ]
    drawn = figures({"method": "lats"}, records)
    (axes,) = drawn["regrowth"].axes
    lines = {line.get_label(): line.get_ydata() for line in axes.get_lines()}
    np.testing.assert_array_equal(lines["regrown"], [0] * 6 + [3] * 3)
    np.testing.assert_array_equal(lines["pruned"], 20)
    assert axes.get_ylim()[0] == 0
    still = [{"step": s, "regrown": 0.0, "newly_pruned": 0.0} for s in range(9)]
    assert "regrowth" not in figures({"method": "ltp"}, still)
