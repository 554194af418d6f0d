"""Gradients without their negative parts."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxprune
from jaxprune.transforms import non_negative_gradients


def test_negative_gradients_are_zero_and_nan_stays():
    grads = {"a": jnp.array([-2.0, 3.0, -0.0]), "b": jnp.float32(jnp.nan)}
    tx = non_negative_gradients()
    updates, _ = jax.jit(tx.update)(grads, tx.init(grads))
    np.testing.assert_array_equal(updates["a"], [0.0, 3.0, 0.0])
    assert np.isnan(updates["b"])


def test_logits_of_keep_ratios_only_fall():
    mlp = lambda params, x: jnp.tanh(x @ params["w1"]) @ params["w2"]
    params = {"w1": jnp.ones((3, 8)), "w2": jnp.ones((8, 2))}
    graph = jaxprune.trace_channels(mlp, params, jnp.ones((1, 3)))
    pruning = jaxprune.pruning(jaxprune.dsa(graph, init_logit=0.0))
    down = optax.chain(non_negative_gradients(), optax.sgd(0.5))
    tx = pruning.optimizer(optax.sgd(0.0), variables=down)
    trainable = pruning.init(params)
    grads = jax.tree.map(jnp.zeros_like, trainable)
    for slope, logit in ((-4.0, 0.0), (3.0, -1.5)):  # theta - 0.5 max(slope, 0)
        grads["variables"] = {"w1:1": jnp.float32(slope)}
        updates, _ = tx.update(grads, tx.init(trainable), trainable)
        moved = optax.apply_updates(trainable, updates)
        assert float(moved["variables"]["w1:1"]) == logit
