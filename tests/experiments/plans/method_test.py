"""A method is one module and one config: nothing else knows it."""

import json

import pytest

from experiments import train

PLAN = '''
"""Prunes the weights of every layer at random, in one step."""

import jax
import jaxprune
from experiments.plans import optimizers
from experiments.plans.fields import NOT_NEGATIVE, Field
from experiments.plans.method import WEIGHT_FIELDS, WEIGHTS, Method, Plan


def toy(config, task):
    key = jax.random.key(config.method.toy_seed)
    floor = config.method.min_keep_ratio
    pruner = jaxprune.random_erk(key, min_keep_ratio=floor)
    plan = optimizers.dense(config, task, config.optimizer.learning_rate)
    return plan._replace(pruner=pruner)


TOY = Method(
    title="Toy",
    full_title="A toy",
    plan=toy,
    fields={**WEIGHT_FIELDS, "toy_seed": Field(7, "Of the masks.", NOT_NEGATIVE)},
    budget=WEIGHTS,
)
'''

CONFIG = """
from experiments.configs import default
from toy_plan import TOY


def get_config():
    config = default.get_config(TOY)
    config.model = "mlp"
    config.budget.sparsity = 0.8
    return config
"""


@pytest.mark.usefixtures("digits_in_memory", "one_device")
def test_a_new_method_is_a_plan_and_a_config(data_dir, tmp_path, monkeypatch, capsys):
    (tmp_path / "toy_plan.py").write_text(PLAN)
    (tmp_path / "toy.py").write_text(CONFIG)
    monkeypatch.syspath_prepend(tmp_path)
    arguments = [
        f"--config={tmp_path / 'toy.py'}",
        f"--workdir={tmp_path / 'run'}",
        f"--config.data.dir={data_dir}",
        *("--config.phases.dense=0.0", "--config.phases.prune=0.05"),
        *("--config.phases.finetune=0.05", "--config.run.progress=false"),
    ]
    assert train.main(arguments) == 0
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert (summary["method"], summary["title"]) == ("toy", "Toy")
    assert summary["final"]["keep_ratio"] == pytest.approx(0.2, abs=1e-3)
    assert "A toy" in (tmp_path / "run/report.html").read_text()
    capsys.readouterr()
    with pytest.raises(SystemExit):
        train.main([*arguments, "--config.method.toy_sed=3"])
    assert "for Toy. Did you mean 'method.toy_seed'" in capsys.readouterr().err
    assert train.main([*arguments, "--config.method.toy_seed=-1"]) == 1
    assert "must be 0 or above" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        train.main([*arguments, "--help"])
    assert "method.toy_seed=7" in capsys.readouterr().out
