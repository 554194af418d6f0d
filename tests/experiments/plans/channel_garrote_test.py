"""The plan of the channel garrote: where its ramp lies, and what it decides."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import models
from experiments.configs import mnist1d
from experiments.plans import channels
from experiments.plans.channel_garrote import CHANNEL_GARROTE, channel_garrote
from experiments.plans.method import Task


@pytest.fixture(scope="module")
def task():
    model = models.create("cnn1d_norm", num_classes=10)
    tree = model.init(jax.random.key(0), jnp.zeros((1, 40, 1)), train=False)
    image = jax.ShapeDtypeStruct((1, 40, 1), jnp.float32)
    known = channels.trace(model, (tree["params"], tree["batch_stats"]), image)
    return Task(
        params=tree["params"],
        first_step=0,
        steps=200,
        steps_per_epoch=40,
        loss=None,
        channels=known,
        judge=None,
        sample=None,
    )


def _config():
    config = mnist1d.channels(CHANNEL_GARROTE, "cnn1d_norm")
    config.method.ramp_begin = 0.25
    return config


def test_the_ramp_takes_its_part_of_the_phase(task):
    plan, known = channel_garrote(_config(), task), task.channels
    variables = plan.pruner.init(task.params)
    costs = []
    for step in (0, 50, 120, 200):
        ratios = plan.pruner.apply(task.params, variables, step=step).keep_ratios
        costs.append(float(known.costs["macs"](ratios)))
    assert costs[:2] == [1, 1]
    assert 0.5 < costs[2] < 1
    assert 0.45 < costs[3] <= 0.5


def test_what_it_allocates_meets_the_budget(task):
    plan, known = channel_garrote(_config(), task), task.channels
    variables = plan.pruner.init(task.params)
    first = next(iter(variables))
    variables[first] += 1.0
    state = types.SimpleNamespace(params=task.params, variables=variables)
    masks = plan.allocate(state)
    assert 0.48 < known.reached(masks)["macs"] <= 0.5
    kept = {name: mask.mean() for name, mask in masks.items()}
    assert kept[first] == max(kept.values())


def test_the_prior_is_one_relative_entropy_for_all_examples(task):
    plan = channel_garrote(_config(), task)
    ratios = {name: jnp.float32(0.5) for name in task.channels.graph.groups}
    assert float(plan.budget.penalty(ratios, plan.budget.init(ratios))) == 0
    first = next(iter(ratios))
    ratios[first] = jnp.float32(0.9)
    # conv1: 5 weights in, half of 1,875 out, a scale and a bias, for each channel.
    weights = 25 * (5 + 75 / 2 + 2)
    got = float(plan.budget.penalty(ratios, plan.budget.init(ratios)))
    assert 0 < got < weights * np.log(2) / (100 * 40)
