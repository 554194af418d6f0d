"""Configs that are wrong are refused before data are loaded or a folder is made."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import configs, data, models, train
from experiments.configs import default
from experiments.configs.digits import dsa
from experiments.plans import channel_plans, channels, weight_plans
from experiments.run import config_check
from experiments.run.steps import init_state

CONFIGS = configs.names()


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_is_accepted(name):
    config_check.check(configs.load(name))


@pytest.mark.parametrize("module", [weight_plans, channel_plans])
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


class _Noted:
    """A config that notes the fields that are read."""

    def __init__(self, config):
        self._config, self.noted = config, set()

    def __getattr__(self, name):
        self.noted.add(name)
        return self._config[name]

    __getitem__ = __getattr__


@pytest.fixture(scope="module")
def network():
    """A network of ones with its channels: `params, batch_stats, channels`."""
    model = models.ResNet(num_classes=10, blocks_per_stage=1)
    init = functools.partial(model.init, jax.random.key(0), train=False)
    shapes = jax.eval_shape(init, jnp.zeros((1, 8, 8, 1)))
    made = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), shapes)
    both = made["params"], made["batch_stats"]
    return *both, channels.trace(model, both, (8, 8, 1))


# What decides which other fields are read.
_BRANCHES = (
    {},
    {"penalty_weight": 0.5},
    {"final_threshold": 0.1},
    {"solver": "dual_ascent"},
    {"solver": "admm"},
    {"gated": True},
)
# Read beside the plan: by the trail, the end of the phase, the sample of the loss and
# the measured latency.
_ELSEWHERE = {
    *("trail_every", "lowest_rung", "sparsity", "score_batches"),
    *("latency_batch", "latency_widths"),
}


def _noted(name, branch, network):
    """The fields that a plan reads when it is made, and for the masks of its end."""
    params, batch_stats, traced = network
    config = default.get_config()
    config.update({**branch, "budget": {"macs": 0.5}, "trials": 1})
    config = _Noted(config)
    task = weight_plans.Task(
        params=params,
        first_step=0,
        steps=8,
        steps_per_epoch=4,
        loss=lambda params, temperature=1.0: jnp.float32(0),
        channels=traced,
        judge=lambda params, batch_stats: 0.5,
    )
    plan = (getattr(weight_plans, name, None) or getattr(channel_plans, name))(
        config, task
    )
    if plan.allocate is not None:
        plan.allocate(init_state(plan, params, batch_stats, 0))
    return config.noted


@pytest.mark.parametrize("name", config_check._READS)
def test_a_plan_reads_what_it_declares_and_nothing_else(name, network):
    declared = {*config_check._READS[name]}
    branches = [branch for branch in _BRANCHES if declared.issuperset(branch)]
    noted = set().union(*(_noted(name, branch, network) for branch in branches))
    of_methods = set().union(*config_check._READS.values())
    assert noted & of_methods <= declared
    assert declared - noted <= _ELSEWHERE


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
    config = dsa.get_config()
    config.update(changes)
    with pytest.raises(ValueError, match=r"`config.plan=dsa` does not read it"):
        config_check.check(config)
