"""The final network: exactly the target, in the order of the method, and warnings."""

import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprune
from jaxprune import costs
from jaxprune.training import PruningWarning


def _params():
    draw = np.random.default_rng(0).normal
    kernels = (jnp.asarray(draw(size=n), jnp.float32) for n in ((30, 20), (20, 10)))
    return {
        "a": {"bias": jnp.ones(20), "kernel": next(kernels)},
        "b": {"kernel": next(kernels)},
    }


def _trained(pruning, steps=1):
    """A state whose budget has counted steps, the weights as they were."""
    trainable = pruning.init(_params())
    budget = {**trainable["budget"], "step": jnp.float32(steps)}
    return {**trainable, "budget": budget}


def _at_threshold(trainable, value):
    moved = jax.tree.map(lambda v: jnp.full_like(v, value), trainable["variables"])
    return {**trainable, "variables": moved}


def _quietly(function, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PruningWarning)
        return function(*args, **kwargs)


@pytest.mark.parametrize("target", [0.5, 0.1, 0.29, 0.01])
def test_a_target_density_is_met_exactly(target):
    limit = jaxprune.at_most(jaxprune.density, target, ramp=(0, 10))
    pruning = jaxprune.pruning(jaxprune.ltp(min_keep_ratio=0.0), limit)
    final = _quietly(pruning.finalize, _trained(pruning))
    kept = sum(int(jnp.sum(final.params[x]["kernel"] != 0)) for x in "ab")
    assert kept == jaxprune.masks.keep_count(target, 800)
    assert final.report.keep_ratio == pytest.approx(kept / 800)
    chex.assert_trees_all_equal(
        final.params, jaxprune.apply_masks(_params(), final.masks)
    )


def test_soft_thresholds_stay_in_the_final_weights():
    limit = jaxprune.at_most(jaxprune.density, 0.4)
    pruning = jaxprune.pruning(jaxprune.soft_thresholding(), limit)
    trainable = _at_threshold(_trained(pruning), 0.5)
    final = _quietly(pruning.finalize, trainable)
    seen, _ = pruning(trainable)
    kept = np.asarray(final.masks["a"]["kernel"])
    np.testing.assert_allclose(
        np.asarray(final.params["a"]["kernel"])[kept],
        np.asarray(seen["a"]["kernel"])[kept],
        atol=1e-7,
    )


def test_without_a_limit_the_method_decides():
    pruning = jaxprune.pruning(jaxprune.ltp())
    trainable = _at_threshold(_trained(pruning), 1.0)
    final = pruning.finalize(trainable)
    want = pruning.pruner.masks(_params(), trainable["variables"])
    chex.assert_trees_all_equal(final.masks, want)
    assert final.report.own_keep_ratio == pytest.approx(final.report.keep_ratio)


def test_a_limit_on_another_cost_is_met_by_the_largest_network():
    def cost(keep_ratios):
        return 0.9 * keep_ratios["a/kernel"] + 0.1 * keep_ratios["b/kernel"]

    pruning = jaxprune.pruning(jaxprune.ltp(), jaxprune.at_most(cost, 0.3))
    final = _quietly(pruning.finalize, _trained(pruning))
    (value,) = final.report.costs.values()
    assert 0.3 - 2 / 600 <= value <= 0.3


def test_a_cut_far_from_the_training_warns_and_is_reported():
    limit = jaxprune.at_most(jaxprune.density, 0.05)
    pruning = jaxprune.pruning(jaxprune.ltp(), limit)
    trainable = _at_threshold(_trained(pruning), 0.5)  # keeps far more
    with pytest.warns(PruningWarning, match="by its own rule"):
        final = pruning.finalize(
            trainable, evaluate=lambda p: jnp.sum(p["b"]["kernel"])
        )
    assert final.report.own_keep_ratio > 0.5
    assert final.report.score == pytest.approx(float(final.params["b"]["kernel"].sum()))
    text = str(final.report)
    assert "keep ratio by the method" in text
    assert "score, final" in text


def test_an_emptied_leaf_warns():
    limit = jaxprune.at_most(jaxprune.density, 0.01)
    pruning = jaxprune.pruning(jaxprune.ltp(min_keep_ratio=0.0), limit)
    trainable = _trained(pruning)
    weights = {**_params(), "b": {"kernel": 1e-3 * _params()["b"]["kernel"]}}
    rough = weights["b"]["kernel"].at[0, 0].set(1.0)  # one weight sets the spread
    trainable["params"] = {**weights, "b": {"kernel": rough}}
    trainable["variables"] = {"a/kernel": jnp.float32(0), "b/kernel": jnp.float32(50)}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PruningWarning)
        _, _, report = pruning.finalize(trainable)
    assert any("nothing is left of b/kernel" in str(w.message) for w in caught)
    assert report.emptied == ("b/kernel",)


def test_a_method_that_prunes_once_is_counted():
    pruning = jaxprune.pruning(jaxprune.random_erk(jax.random.key(0)))
    report = pruning.finalize(_trained(pruning), keep_ratio=0.5).report
    assert report.keep_ratio == pytest.approx(0.5)
    assert not report.emptied


def test_a_solver_without_limits_is_used():
    cost = jaxprune.density(_params())
    fixed = jaxprune.pruning(
        jaxprune.ltp(), solver=lambda limits: jaxprune.weighted(cost, 2.0)
    )
    _, penalty = fixed(fixed.init(_params()))
    assert float(penalty) == pytest.approx(2.0, rel=0.2)
    assert hash(fixed) == hash(fixed)


def test_what_diverged_or_was_not_trained_is_refused():
    limit = jaxprune.at_most(jaxprune.density, 0.5)
    pruning = jaxprune.pruning(jaxprune.ltp(), limit)
    with pytest.raises(ValueError, match=r"no step was counted.*penalty"):
        pruning.finalize(pruning.init(_params()))
    trainable = _trained(pruning)
    broken = {**_params(), "b": {"kernel": jnp.full((20, 10), jnp.nan)}}
    with pytest.raises(ValueError, match=r"'b/kernel' is not"):
        pruning.finalize({**trainable, "params": broken})


def test_channels_meet_a_limit_and_compact():
    def apply_fn(params, x):
        hidden = jnp.tanh(jnp.dot(x, params["a"]["kernel"]) + params["a"]["bias"][None])
        return jnp.dot(hidden, params["b"]["kernel"])

    graph = jaxprune.trace_channels(apply_fn, _params(), jnp.ones((4, 30)))
    limit = jaxprune.at_most(costs.macs(graph), 0.5, name="macs")
    pruning = jaxprune.pruning(jaxprune.dsa(graph), limit)
    tx = pruning.optimizer(optax.sgd(1e-2))
    trainable = pruning.init(_params())
    x = jnp.ones((4, 30))

    @jax.jit
    def step(trainable, state):
        def loss(trainable):
            params, penalty = pruning(trainable)
            return jnp.mean(apply_fn(params, x) ** 2) + penalty

        updates, state = tx.update(jax.grad(loss)(trainable), state, trainable)
        return optax.apply_updates(trainable, updates), state

    trainable, _ = step(trainable, tx.init(trainable))
    small, final = _quietly(pruning.compact, trainable)
    assert small.trees[0]["a"]["kernel"].shape == (30, 10)
    assert final.report.costs["macs"] <= 0.5
    kept = pruning.finalize
    report = _quietly(kept, trainable, evaluate=lambda p: apply_fn(p, x).sum()).report
    masked = graph.masked(final.masks)(trainable["params"], x)
    assert report.score == pytest.approx(float(masked.sum()), rel=1e-4)
    eight, _ = _quietly(pruning.compact, trainable, multiple_of=8)
    assert eight.trees[0]["a"]["kernel"].shape == (30, 8)
    np.testing.assert_allclose(
        np.asarray(small.apply_fn(small.trees[0], x)), np.asarray(masked), rtol=1e-5
    )
    with pytest.raises(ValueError, match="counts single weights"):
        pruning.finalize(trainable, keep_ratio=0.5)
    weights = jaxprune.pruning(jaxprune.ltp())
    with pytest.raises(TypeError, match="leaves shapes as they are"):
        weights.compact(_trained(weights))
