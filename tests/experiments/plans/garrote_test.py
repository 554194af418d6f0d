"""The plan of the garrote: where its ramp lies, and how strong its prior is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.configs import default
from experiments.plans.garrote import GARROTE, garrote
from experiments.plans.method import Task


@pytest.fixture
def task(rng):
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    params = {"a": {"kernel": draw(20, 30)}, "b": {"kernel": draw(30, 10)}}
    return Task(
        params=params,
        first_step=0,
        steps=200,
        steps_per_epoch=50,
        loss=None,
        channels=None,
        judge=None,
        sample=None,
    )


def _kept(plan, task, step):
    variables = plan.pruner.init(task.params)
    seen = plan.pruner.apply(task.params, variables, step=step).params
    return sum(np.count_nonzero(leaf) for leaf in jax.tree.leaves(seen))


def test_the_ramp_takes_its_part_of_the_phase(task):
    config = default.get_config(GARROTE)
    config.budget.sparsity = 0.9
    config.method.ramp_begin, config.method.ramp_end = 0.25, 0.75
    plan = garrote(config, task)
    assert [_kept(plan, task, t) for t in (0, 50, 150, 200)] == [900, 900, 90, 90]
    assert 90 < _kept(plan, task, 100) < 900


def test_the_prior_is_three_relative_entropies_for_all_examples(task):
    config = default.get_config(GARROTE)
    config.data.batch_size = 8
    plan = garrote(config, task)
    ratios = {"a/kernel": jnp.float32(0.02), "b/kernel": jnp.float32(0.26)}
    divergence = sum(
        n * (k * np.log(k / 0.1) + (1 - k) * np.log((1 - k) / 0.9))
        for n, k in ((600, 0.02), (300, 0.26))
    )
    got = plan.budget.penalty(ratios, plan.budget.init(ratios))
    assert float(got) == pytest.approx(3 * divergence / 400, rel=1e-3)


def test_pruning_from_the_start_takes_as_long():
    before = default.get_config(GARROTE)
    after = default.pruned_from_the_start(before)
    assert after.phases.dense == 0
    assert (after.phases.prune, after.phases.finetune) == (28, 12)
    assert after.optimizer.finetune_learning_rate == before.optimizer.learning_rate
    assert before.phases.dense == 6
