"""Penalties on whole channels: norms and the proximal step, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprune
from experiments.plans.penalties import channel_norms, shrink_channels


def _mirrored(params, x):
    """Two layers make the same channels, the second in the opposite order."""
    hidden = jnp.tanh(x @ params["a"]) + jnp.tanh(x @ params["b"])[..., ::-1]
    return hidden @ params["out"]


def _joined(params, x):
    """A scale is read by the channels of two layers, one after the other."""
    hidden = jnp.concatenate([x @ params["a"], x @ params["b"]], axis=-1)
    return jnp.tanh(hidden * params["norm"]["scale"][None]) @ params["out"]


def _draw(*shapes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def _step(graph, params, strength, rate=0.1):
    strengths = dict.fromkeys(graph.groups, strength)
    step = shrink_channels(graph, strengths, lambda count: rate)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = step.update(zeros, step.init(params), params)
    return optax.apply_updates(params, updates)


def test_norms_follow_the_channels_whatever_their_order():
    a, b, out = _draw((3, 4), (3, 4), (4, 2))
    params = {"a": a, "b": b, "out": out}
    graph = jaxprune.trace_channels(_mirrored, params, jnp.ones((1, 3)))
    (norm,) = channel_norms(graph)(params).values()
    squares = np.sum(np.square(a), 0) + np.sum(np.square(b), 0)[::-1]
    np.testing.assert_allclose(norm, np.sqrt(squares / 6), rtol=1e-6)


def test_the_step_is_the_group_soft_threshold():
    a, b, out = _draw((3, 4), (3, 4), (4, 2))
    params = {"a": a, "b": b, "out": out}
    graph = jaxprune.trace_channels(_mirrored, params, jnp.ones((1, 3)))
    both = np.concatenate([a, b[:, ::-1]])
    norms = np.linalg.norm(both, axis=0)
    # A little more than takes the second smallest.
    strength = 1.0001 * float(np.sort(norms)[1]) / np.sqrt(6) / 0.1
    want = both * np.maximum(1 - 0.1 * strength * np.sqrt(6) / norms, 0)
    shrunk = _step(graph, params, strength)
    found = np.concatenate([shrunk["a"], shrunk["b"][:, ::-1]])
    np.testing.assert_allclose(found, want, atol=1e-6)
    assert (found == 0).all(axis=0).sum() == 2
    np.testing.assert_array_equal(shrunk["out"], out)


def test_two_groups_share_a_leaf():
    a, b, out = _draw((3, 4), (3, 5), (9, 2))
    params = {"a": a, "b": b, "out": out, "norm": {"scale": jnp.arange(1.0, 10.0)}}
    graph = jaxprune.trace_channels(_joined, params, jnp.ones((1, 3)))
    assert sorted(group.size for group in graph.groups.values()) == [4, 5]
    norms = channel_norms(graph, scales_only=True)(params)
    found = np.sort(np.concatenate(list(norms.values())))
    np.testing.assert_allclose(found, np.arange(1, 10))
    shrunk = _step(graph, params, 1.0)
    before = np.concatenate([a, b], axis=1)
    after = np.concatenate([shrunk["a"], shrunk["b"]], axis=1)
    factor = shrunk["norm"]["scale"] / params["norm"]["scale"]
    assert ((factor > 0) & (factor < 1)).all()
    np.testing.assert_allclose(after, before * factor[None], rtol=1e-5)


def test_scales_alone_need_scales():
    a, b, out = _draw((3, 4), (3, 4), (4, 2))
    params = {"a": a, "b": b, "out": out}
    graph = jaxprune.trace_channels(_mirrored, params, jnp.ones((1, 3)))
    with pytest.raises(ValueError, match="has no norm"):
        channel_norms(graph, scales_only=True)
