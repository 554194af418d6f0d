"""Gradients of batches in parts, and what evaluation counts as correct."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprune
from experiments import models
from experiments.plans.method import Plan
from experiments.run.steps import (
    Step,
    init_state,
    make_count_correct,
    make_total_nats,
    make_train_step,
)


class _Given:
    """A model whose logits are its images."""

    def apply(self, variables, image, *, train):
        del variables, train
        return image


def _counted(logits, label, valid):
    batch = {"image": jnp.asarray(logits), "label": jnp.asarray(label)}
    batch["valid"] = jnp.asarray(valid)
    return make_count_correct(_Given())({}, {}, batch).tolist()  # pyright: ignore


def test_the_correct_are_those_of_a_sort():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(64, 12)).astype(np.float32)
    label = rng.integers(0, 12, 64)
    valid = (rng.random(64) < 0.7).astype(np.float32)
    order = np.argsort(-logits, axis=1)
    top1 = (order[:, 0] == label) & (valid > 0)
    top5 = (order[:, :5] == label[:, None]).any(axis=1) & (valid > 0)
    assert 0 < top1.sum() < top5.sum() < valid.sum()
    assert _counted(logits, label, valid) == [top1.sum(), top5.sum()]


@pytest.mark.parametrize(
    ("logits", "want"),
    [
        # The label has index 5; the same logits share the first places.
        ([0, 0, 0, 0, 0, 0, 0], [0, 1]),
        ([1, 1, 1, 1, 0, 0, 0], [0, 1]),
        ([1, 1, 1, 1, 1, 0, 0], [0, 0]),
        # Nothing is right where logits are not numbers.
        ([np.nan] * 7, [0, 0]),
        ([0, 0, 0, 0, 0, np.nan, 0], [0, 0]),
    ],
)
def test_ties_and_logits_that_are_no_numbers(logits, want):
    assert _counted([np.float32(logits)], [5], [1.0]) == want


def test_the_nats_of_texts_are_those_of_a_sum_over_their_bytes():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 6, 9))
    label, valid = rng.integers(0, 9, (4, 6)), np.float32([1, 0, 1, 1])
    batch = {"image": jnp.float32(logits), "label": label, "valid": valid}
    found = make_total_nats(_Given())({}, {}, batch)  # pyright: ignore
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    own = np.take_along_axis(shares, label[..., None], -1)[..., 0]
    want = -(np.log(own).sum(1) * valid).sum()
    np.testing.assert_allclose(found, want, rtol=1e-6)


def _step(model, parts):
    plan = Plan(jaxprune.identity(), jaxprune.unlimited(), optax.sgd(0.1))
    return Step(models.create(model, 3), plan, size_cost=None, parts=parts)  # pyright: ignore


@pytest.mark.parametrize("parts", [2, 4])
def test_gradients_of_parts_are_those_of_the_whole_batch(parts):
    whole, split = _step("mlp", 1), _step("mlp", parts)
    rng = np.random.default_rng(1)
    batch = {
        "image": jnp.asarray(rng.normal(size=(8, 4, 4, 1)), jnp.float32),
        "label": jnp.asarray(rng.integers(0, 3, 8)),
    }
    init = whole.model.init(jax.random.key(0), batch["image"], train=False)
    state = init_state(whole.plan, init["params"], {}, 0)
    trainable = {"params": init["params"], "variables": {}}
    (want, one), (got, other) = (
        jax.jit(step.gradient)(trainable, state, batch) for step in (whole, split)
    )
    assert jax.tree.reduce(max, jax.tree.map(lambda x: abs(x).max(), want)) > 0.01
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, want
    )
    np.testing.assert_allclose(other[0], one[0], rtol=1e-5)
    assert other[1] == one[1]


def test_every_part_moves_running_statistics_and_drops_other_units():
    step = _step("cnn", 2)
    image = jax.random.normal(jax.random.key(2), (4, 8, 8, 1))
    batch = {"image": image, "label": jnp.array([0, 1, 2, 0])}
    first = step.model.init(jax.random.key(0), image, train=False)
    state = init_state(step.plan, first["params"], first["batch_stats"], 0)
    trainable = {"params": first["params"], "variables": {}}
    _, (_, _, stats, _) = jax.jit(step.gradient)(trainable, state, batch)
    want = first["batch_stats"]
    for part in (image[0::2], image[1::2]):  # of every device some examples
        variables = {**first, "batch_stats": want}
        _, updated = step.model.apply(
            variables, part, train=True, mutable=["batch_stats"]
        )
        want = updated["batch_stats"]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), stats, want
    )
    keys = [step._dropout_key(jax.random.key(0), part) for part in (0, 1)]
    assert keys[0] != keys[1]


def test_the_average_is_of_weights_and_statistics_after_every_step():
    step = _step("cnn", 1)
    plan = step.plan._replace(average=0.4)
    step = step._replace(plan=plan, first_step=7, size_cost=lambda ratios: 1.0)
    image = jax.random.normal(jax.random.key(2), (4, 8, 8, 1))
    batch = {"image": image, "label": jnp.array([0, 1, 2, 0])}
    first = step.model.init(jax.random.key(0), image, train=False)
    state = init_state(plan, first["params"], first["batch_stats"], 7)
    want = {name: first[name] for name in ("params", "batch_stats")}
    for done in range(6):
        state, _ = jax.jit(make_train_step(step))(state, batch)
        kept = min(0.4, (1 + done) / (10 + done))
        now = {"params": state.params, "batch_stats": state.batch_stats}
        want = jax.tree.map(
            lambda a, b, kept=kept: kept * a + (1 - kept) * b, want, now
        )
    found = state.with_average()
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        {"params": found.params, "batch_stats": found.batch_stats},
        want,
    )
    alone = init_state(step.plan._replace(average=0.0), first["params"], {}, 7)
    assert alone.with_average().params is first["params"]
    assert not jax.tree.leaves(alone.average)
