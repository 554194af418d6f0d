"""Configs that are wrong are refused before data are loaded or a folder is made."""

import functools
import importlib
import inspect
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import configs, data, models, plans, train
from experiments.configs import default
from experiments.plans import channels
from experiments.plans.fields import flatten
from experiments.plans.method import Method, Task, prunes_channels
from experiments.run import config_check
from experiments.run.steps import init_state
from tests.experiments.fields import put

METHODS = {
    method.name: method
    for module in pkgutil.iter_modules(plans.__path__)
    for _, method in inspect.getmembers(
        importlib.import_module(f"experiments.plans.{module.name}"),
        lambda value: isinstance(value, Method),
    )
}


@pytest.mark.parametrize("name", configs.names())
def test_every_config_is_accepted(name):
    config_check.check(configs.load(name))


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_the_defaults_of_every_method_are_accepted(method):
    config = default.get_config(method)
    if prunes_channels(method):
        put(config, macs=0.5)
    if method.plan is None:
        put(config, prune=0.0)
    config_check.check(config)
    assert all(field.about.endswith(".") for _, field in flatten(method.fields))


class _Noted:
    """A config that notes the fields that are read."""

    def __init__(self, config, noted, prefix=""):
        self._config, self._noted, self._prefix = config, noted, prefix

    def __getattr__(self, name):
        value = self._config[name]
        if isinstance(value, type(self._config)):
            return _Noted(value, self._noted, f"{self._prefix}{name}.")
        self._noted.add(f"{self._prefix}{name}")
        return value

    __getitem__ = __getattr__

    def __contains__(self, name):
        return name in self._config

    def get(self, name, default=None):
        return getattr(self, name) if name in self._config else default


@pytest.fixture(scope="module")
def network():
    """A network of ones with its channels: `params, batch_stats, channels`."""
    model = models.ResNet(num_classes=10, blocks_per_stage=1)
    init = functools.partial(model.init, jax.random.key(0), train=False)
    shapes = jax.eval_shape(init, jnp.zeros((1, 8, 8, 1)))
    made = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), shapes)
    both = made["params"], made["batch_stats"]
    image = jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32)
    return *both, channels.trace(model, both, image)


# What decides which other fields are read.
_BRANCHES = (
    {},
    {"penalty_weight": 0.5},
    {"final_threshold": 0.1},
    {"solver": "dual_ascent"},
    {"solver": "admm"},
    {"gated": True},
)
# Read beside the plan: by the trail, the end of the phase and the sample of the loss.
_ELSEWHERE = {"trail_every", "lowest_rung", "score_batches"}


def _noted(method, branch, network):
    """The fields that a plan reads when it is made, and for the masks of its end."""
    params, batch_stats, traced = network
    config, noted = put(default.get_config(method), **branch), set()
    if prunes_channels(method):
        put(config, macs=0.7, **({"trials": 1} if "trials" in config.method else {}))
    task = Task(
        params=params,
        first_step=0,
        steps=8,
        steps_per_epoch=4,
        loss=lambda params, temperature=1.0: jnp.float32(0),
        channels=traced,
        judge=lambda params, batch_stats: 0.5,
        sample=lambda: {"image": jnp.ones((2, 8, 8, 1)), "label": jnp.zeros(2, int)},
    )
    plan = method.plan(_Noted(config, noted), task)
    if plan.allocate is not None:
        plan.allocate(init_state(plan, params, batch_stats, 0))
    return {name.removeprefix("method.") for name in noted if "method." in name}


@pytest.mark.parametrize("name", sorted({*METHODS} - {"dense"}))
def test_a_method_reads_all_of_its_fields(name, network):
    method = METHODS[name]
    declared = {*method.fields}
    branches = [branch for branch in _BRANCHES if declared.issuperset(branch)]
    noted = set().union(*(_noted(method, branch, network) for branch in branches))
    assert noted <= declared
    assert declared - noted <= _ELSEWHERE


WRONG = [
    ({"epochs": 3}, r"config.epochs`: there is no such field for LTP"),
    ({"budget.flops": 0.5}, "budget.flops`: there is no such field"),
    ({"budget.macs": 0.5}, "budget.macs`: there is no such field for LTP"),
    ({"method.sharpness": 3.0}, "method.sharpness`: there is no such field for LTP"),
    ({"method.temprature": 3.0}, "Did you mean 'method.temperature'"),
    ({"budget.sparsity": 95.0}, r"must be in \[0, 1\)\. For 95.0 %, pass 0.95"),
    ({"budget.sparsity": float("nan")}, r"must be in \[0, 1\)"),
    ({"run.log_every": 0}, "log_every=0` must be at least 1"),
    ({"optimizer.learning_rate": -0.1}, "must be 0 or above"),
    (
        {"method.penalty_weight": 3.0, "budget.sparsity": 0.9},
        "config.method.penalty_weight` decides",
    ),
    ({"optimizer.momentum": 1.5}, r"must be in \[0, 1\)"),
    ({"method.solver": "newton"}, "must be one of 'dual_ascent', 'admm'"),
    ({"phases.rewind": True, "phases.prune": 0.0}, "needs masks to train under"),
    (
        {"optimizer.name": "adam", "optimizer.momentum": 0.5},
        r"momentum=0\.5`: Adam does not read it",
    ),
    ({"optimizer.name": "adam", "optimizer.nesterov": False}, "Adam does not read it"),
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
