"""Importance of channels by their activations; influence of blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import jaxprune
from jaxprune import channels, costs
from jaxprune.calibration import activation_norms, block_influence, calibrate


class Net(nn.Module):
    """A convolution, one in groups of one channel, and a dense layer."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(6, (3, 3), name="first")(x))
        x = nn.relu(nn.Conv(6, (3, 3), feature_group_count=6, name="each")(x))
        self.sow("intermediates", "seen", x)
        return nn.Dense(3, name="out")(x.reshape(x.shape[0], -1))


def _network():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(5, 4, 4, 2)), jnp.float32)
    params = jax.jit(Net().init)(jax.random.key(0), x)["params"]
    return lambda p, x: Net().apply({"params": p}, x), params, x


def test_norms_are_those_of_what_the_readers_of_a_channel_see():
    network, params, x = _network()
    graph = jaxprune.trace_channels(network, params, x)
    statistics = calibrate(network, params, [x[:2], x[2:]])
    _, seen = Net().apply({"params": params}, x, mutable=["intermediates"])
    each = np.asarray(seen["intermediates"]["seen"][0], np.float64)
    (name,) = graph.groups
    got = activation_norms(graph, statistics)(params)[name]
    want = np.sqrt((each**2).mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(got, want, rtol=1e-5)
    got = activation_norms(graph, statistics, weighted=True)(params)[name]
    rows = np.asarray(params["out"]["kernel"], np.float64).reshape(4, 4, 6, 3)
    sizes = np.einsum("bhwc,hwco->c", each**2, rows**2) / (5 * 16)
    np.testing.assert_allclose(got, np.sqrt(sizes), rtol=1e-5)


def test_importances_rank_channels_to_a_limit():
    network, params, x = _network()
    graph = jaxprune.trace_channels(network, params, x)
    importance = activation_norms(graph, calibrate(network, params, [x]))(params)
    limit = jaxprune.base.Limit(costs.parameters(graph), 0.6)
    counts = channels.round_to_limits(graph, {}, limit)
    masks = channels.important_channels(graph, importance, counts)
    (name,) = graph.groups
    kept = np.asarray(importance[name])[np.asarray(masks[name])]
    assert kept.min() >= np.sort(importance[name])[-counts[name]]
    assert graph.compact(masks, params).trees[0]["out"]["bias"].shape == (3,)


def test_a_tree_with_statistics_of_norms_and_its_part_are_both_read():
    network, params, x = _network()
    whole = lambda variables, x: network(variables["params"], x)
    graph = jaxprune.trace_channels(whole, {"params": params}, x)
    statistics = calibrate(network, params, [x])
    inside = calibrate(whole, {"params": params}, [x])
    want = activation_norms(graph, inside, weighted=True)({"params": params})
    for given in (params, {"params": params}):
        got = activation_norms(graph, statistics, weighted=True)(given)
        for name, values in want.items():
            np.testing.assert_allclose(got[name], values, rtol=1e-6)


def test_groups_that_no_product_reads_need_another_importance():
    network, params, x = _network()
    graph = jaxprune.trace_channels(network, params, x)
    statistics = calibrate(network, params, [x], where="first/*")
    with pytest.raises(ValueError, match="must be read by a product"):
        activation_norms(graph, statistics)
    norms = channels.filter_norms(graph)
    got = activation_norms(graph, statistics, otherwise=norms)(params)
    for name, values in norms(params).items():
        np.testing.assert_array_equal(got[name], values)
    with pytest.raises(TypeError, match="must be `Statistics`"):
        activation_norms(graph, params)


def test_influence_is_one_minus_the_mean_cosine():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 3, 4, 5))
    norm = lambda v: np.linalg.norm(v, axis=-1)
    want = 1 - np.mean(np.sum(x * y, axis=-1) / (norm(x) * norm(y)))
    x, y = jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)
    np.testing.assert_allclose(jax.jit(block_influence)(x, y), want, rtol=1e-6)
    np.testing.assert_allclose(block_influence(x, 3 * x), 0, atol=1e-6)
    assert block_influence(0 * x, y) == 1
    assert block_influence(x.astype(jnp.bfloat16), y).dtype == jnp.float32
    with pytest.raises(ValueError, match="must have one shape"):
        block_influence(x, y[:1])
