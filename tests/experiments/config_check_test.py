"""Configs that are wrong are refused before data are loaded or a folder is made."""

import importlib
import inspect
from pathlib import Path

import pytest

from experiments import channel_plans, config_check, data, plans, train
from experiments.configs import default, dsa_digits

CONFIGS = sorted(
    path.stem
    for path in (Path(__file__).parents[2] / "experiments/configs").glob("*.py")
    if path.stem != "__init__"
)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_is_accepted(name):
    module = importlib.import_module(f"experiments.configs.{name}")
    config_check.check(module.get_config())


@pytest.mark.parametrize("module", [plans, channel_plans])
def test_every_plan_declares_what_it_reads(module):
    found = {
        name
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__
        and not name.startswith("_")
        and list(inspect.signature(function).parameters) == ["config", "task"]
    } - {"pruning_learning_rate", "stepped_learning_rate"}
    assert len(found) >= 8
    assert found <= {*config_check._READS}


WRONG = [
    ({"epochs": 3}, r"config.epochs`: there is no such field.*'prune_epochs'"),
    ({"budget.flops": 0.5}, "budget.flops`: there is no such field"),
    ({"budget.macs": 0.5}, "macs=0.5`: `config.plan=ltp` does not read it.*dsa"),
    ({"budget.macs": 50}, r"must be in \(0, 1\].*For 50.0 %, pass 0.5"),
    ({"sparsity": 95.0}, r"must be in \[0, 1\)\. For 95.0 %, pass 0.95"),
    ({"sparsity": float("nan")}, r"must be in \[0, 1\)"),
    ({"channel_multiple": 8}, "`config.plan=ltp` does not read it"),
    ({"importance": "filter_norm"}, "choose a plan that reads it: dsa, dsa_as_pub"),
    ({"homotopy_beta": 0.1}, "choose a plan that reads it: pgh"),
    ({"log_every": 0}, "log_every=0` must be at least 1"),
    ({"learning_rate": -0.1}, "must be 0 or above"),
    ({"penalty_weight": 3.0, "sparsity": 0.9}, "config.penalty_weight` decides"),
    ({"momentum": 1.5}, r"must be in \[0, 1\)"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_a_wrong_field_is_refused_before_anything_starts(
    changes, message, tmp_path, monkeypatch
):
    monkeypatch.setattr(data, "load", None)  # would fail
    config = default.get_config()
    for name, value in changes.items():
        *folders, last = name.split(".")
        (config[folders[0]] if folders else config)[last] = value
    with pytest.raises(ValueError, match=message):
        train.train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes", [{"sparsity": 0.9}, {"min_keep_ratio": 0.01}, {"solver": "admm"}]
)
def test_fields_for_single_weights_are_refused_with_channels(changes):
    config = dsa_digits.get_config()
    config.update(changes)
    with pytest.raises(ValueError, match=r"`config.plan=dsa` does not read it"):
        config_check.check(config)
