"""Sensitivities of groups of a made-up run, against NumPy."""

import json

import jax
import numpy as np
import pytest

from experiments import data, models
from experiments.analyses import sensitivity
from experiments.report import sensitivity_report
from experiments.run import trail

DENSE, PRUNED = 3, 5
GROUPS = ("params/dense1/kernel:1", "params/dense2/kernel:1")


@pytest.fixture(scope="module")
def network():
    """Weights whose second group has 50 large filters, and 50 that nobody reads."""
    image = np.zeros((1, 8, 8, 1), np.float32)
    params = models.create("mlp", 10).init(jax.random.key(1), image, train=False)
    params = jax.tree.map(lambda x: np.array(3 * x), params["params"])
    params["dense2"]["kernel"][:, 50:] *= 0.1
    params["dense3"]["kernel"][50:] = 0
    return params


def summary_of(data_dir, **changes):
    return {
        "status": "finished",
        "method": "dsa",
        "dataset": "digits",
        "model": "mlp",
        "config": {
            "data": {"dir": str(data_dir), "eval_batch_size": 200, "image_size": 0}
        },
        "budget": {"macs": 0.5},
        "channels": {name: [0] for name in GROUPS},
        "keep_ratios": dict(zip(GROUPS, (0.9, 0.2), strict=True)),
        "points": [{"step": PRUNED, "checkpoint": f"trail/{PRUNED}"}],
        "final": None,
    } | changes


@pytest.fixture
def workdir(tmp_path, network, data_dir):
    trail.save_network(tmp_path, DENSE, network, {}, {"step": DENSE})
    # Networks of later phases are of other shapes, and none of them is taken.
    trail.save_network(tmp_path, PRUNED, {"small": np.zeros(1)}, {}, {"step": PRUNED})
    (tmp_path / "summary.json").write_text(json.dumps(summary_of(data_dir)))
    return tmp_path


def judged(params, data_dir):
    """Loss and accuracy in float64, one batch of all test images."""
    dataset = data.load("digits", data_dir=str(data_dir))
    (batch,) = data.test_batches(dataset, batch_size=360)
    x = batch["image"].reshape(360, -1).astype(float)
    for layer in ("dense1", "dense2"):
        x = np.maximum(x @ params[layer]["kernel"] + params[layer]["bias"], 0)
    logits = x @ params["dense3"]["kernel"] + params["dense3"]["bias"]
    right = logits[np.arange(360), batch["label"]]
    top = logits.max(-1)
    loss = top + np.log(np.exp(logits - top[:, None]).sum(-1)) - right
    return loss.mean(), np.mean(logits.argmax(-1) == batch["label"])


def test_losses_are_those_of_the_network_without_the_smaller_half(
    workdir, network, data_dir
):
    found = sensitivity.measure(workdir)
    loss, accuracy = judged(network, data_dir)
    assert found["step"] == DENSE
    assert found["loss"] == pytest.approx(loss, rel=1e-5)
    assert found["accuracy"] == pytest.approx(accuracy, abs=1e-9)
    small = jax.tree.map(np.copy, network)
    size = np.abs(small["dense1"]["kernel"]).mean(0)
    small["dense2"]["kernel"][np.argsort(-size)[150:]] = 0
    loss_of_half, accuracy_of_half = judged(small, data_dir)
    first, second = (found["groups"][name] for name in GROUPS)
    assert abs(first["loss_rise"]) > 0.05
    assert first["loss_rise"] == pytest.approx(loss_of_half - loss, rel=1e-4)
    lost = accuracy - accuracy_of_half
    assert first["accuracy_lost"] == pytest.approx(lost, abs=1e-9)
    assert (first["size"], first["kept"]) == (300, 150)
    # The half of the second group that is pruned is the one that nobody reads.
    assert second == {
        "size": 100, "kept": 50, "loss_rise": 0.0, "accuracy_lost": 0.0,
        "keep_ratio": 0.2,
    }  # fmt: skip


def test_the_command_writes_numbers_picture_and_section(workdir, capsys):
    assert sensitivity.main([f"--workdir={workdir}"]) == 0
    out = capsys.readouterr().out
    found = json.loads((workdir / "sensitivity.json").read_text())
    assert [*found["groups"]] == [*GROUPS]
    rises = [group["loss_rise"] for group in found["groups"].values()]
    assert found["correlation"] == pytest.approx(np.sign(rises[0] - rises[1]))
    assert out.splitlines()[0].split()[:2] == ["group", "sensitivity"]
    assert sensitivity_report.note(found) in out
    page = (workdir / "report.html").read_text()
    assert "Sensitivity of groups" in page
    assert sensitivity_report.note(found) in page
    assert (workdir / "plots" / "sensitivity.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"status": "stopped"}, "must be the folder of a finished run"),
        ({"channels": None}, "prunes no channels"),
        ({"points": [{"step": DENSE}]}, "`config.phases.dense` must not be 0"),
    ],
)
def test_runs_without_what_is_needed_are_refused(
    workdir, data_dir, changes, error, capsys
):
    text = json.dumps(summary_of(data_dir, **changes))
    (workdir / "summary.json").write_text(text)
    assert sensitivity.main([f"--workdir={workdir}"]) == 1
    assert error in capsys.readouterr().err
    assert not (workdir / "sensitivity.json").exists()


def test_ranks_that_all_tie_have_no_correlation():
    assert sensitivity.rank_correlation([1, 2, 3], [0.5, 0.5, 0.5]) is None
    assert sensitivity.rank_correlation([1, 2, 3], [0.9, 0.5, 0.1]) == pytest.approx(-1)
    found = {"correlation": None, "groups": {}, "step": 3, "loss": 0.1, "accuracy": 1.0}
    assert "no rank correlation" in sensitivity_report.note(found)
    note = sensitivity_report.note({**found, "correlation": -1.0})
    assert "−1.00, so the groups that lose most keep least" in note
    assert "so the groups" not in sensitivity_report.note({**found, "correlation": 1.0})
