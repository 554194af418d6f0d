"""A Linen network and its NNX twin, given the same arrays, are pruned alike."""

import chex
import jax
import numpy as np
import optax
import pytest
from flax import nnx

import jaxprune
from tests.support import networks

STEPS = 20


@pytest.fixture(scope="module")
def twins():
    """Parameters, statistics and `(params, stats, x) -> logits, stats` of both."""
    (linen, network), (graph, params, stats) = networks.twins(
        (8, 8, 1), jax.random.key(0)
    )

    def apply_linen(params, stats, x):
        logits, updated = linen.apply(
            {"params": params, "batch_stats": stats}, x, train=True, mutable=True
        )
        return logits, updated["batch_stats"]

    def apply_nnx(params, stats, x):
        model = nnx.merge(graph, params, stats, copy=True)
        logits = model(x, train=True)
        return logits, nnx.state(model, nnx.BatchStat)

    return [
        (network["params"], network["batch_stats"], apply_linen),
        (params, stats, apply_nnx),
    ]


def _prune(params, stats, apply, images, labels):
    pruner = jaxprune.ltp()
    limit = jaxprune.at_most(jaxprune.density(params), 0.1, ramp=(0, STEPS))
    budget = jaxprune.dual_ascent(limit)
    optimizer = optax.partition(
        {"w": optax.sgd(0.05, momentum=0.9), "t": optax.adam(0.1)},
        {"params": "w", "variables": "t"},
    )
    trainable = {"params": params, "variables": pruner.init(params)}

    @jax.jit
    def step(carry, batch):
        trainable, stats, opt_state, budget_state = carry

        def objective(trainable):
            pruned = pruner.apply(trainable["params"], trainable["variables"])
            logits, new_stats = apply(pruned.params, stats, batch[0])
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])
            price = budget.penalty(pruned.keep_ratios, budget_state)
            return loss.mean() + price, (new_stats, pruned.keep_ratios)

        grads, (stats, keep_ratios) = jax.grad(objective, has_aux=True)(trainable)
        updates, opt_state = optimizer.update(grads, opt_state, trainable)
        trainable = optax.apply_updates(trainable, updates)
        return trainable, stats, opt_state, budget.update(keep_ratios, budget_state)

    ratios = pruner.apply(params, trainable["variables"]).keep_ratios
    budget_state = budget.init(ratios)
    carry = trainable, stats, optimizer.init(trainable), budget_state
    for batch in zip(images, labels, strict=True):
        carry = step(carry, batch)
    params, variables = carry[0]["params"], carry[0]["variables"]
    return params, variables, pruner.masks(params, variables, keep_ratio=0.1)


def test_twins_are_pruned_alike(twins, rng):
    images = rng.normal(size=(STEPS, 32, 8, 8, 1)).astype(np.float32)
    labels = rng.integers(0, 10, (STEPS, 32))
    linen, twin = (_prune(*network, images, labels) for network in twins)
    named = [
        [jaxprune.tree.named_leaves(tree) for tree in run] for run in (linen, twin)
    ]
    for name, leaf in named[0][0].items():
        np.testing.assert_allclose(named[1][0][name], leaf, rtol=0, atol=1e-6)
    chex.assert_trees_all_close(linen[1], twin[1], rtol=0, atol=1e-6)
    for name, mask in named[0][2].items():
        np.testing.assert_array_equal(named[1][2][name], mask)
    counts = jaxprune.summarize(jaxprune.apply_masks(twin[0], twin[2]))
    assert counts.kept == jaxprune.masks.keep_count(0.1, counts.size)
