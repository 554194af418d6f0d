"""Spiking neurons and networks against simulations in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxprune
from experiments.models.sew_resnet import SEWResNet
from experiments.models.spiking import neurons, spike

STEPS = 4


def simulated(current, tau=None):
    """Spikes in float64, one step and one neuron after the other."""
    current = np.asarray(current, np.float64)
    spikes = np.zeros(current.shape)
    for place in np.ndindex(*current.shape[1:]):
        v = 0.0
        for t, x in enumerate(current[(slice(None), *place)]):
            v = v + x if tau is None else v + (x - v) / tau
            if v >= 1:
                spikes[(t, *place)], v = 1.0, 0.0
    return spikes


@pytest.mark.parametrize("tau", [None, 2.0])
@pytest.mark.parametrize("shape", [(STEPS,), (STEPS, 3, 5), (1, 4), (7, 0)])
def test_neurons_are_those_of_a_simulation(tau, shape):
    current = np.random.default_rng(0).normal(0.5, 1, shape).astype(np.float32)
    spikes = jax.jit(functools.partial(neurons, tau=tau))(current)
    np.testing.assert_array_equal(spikes, simulated(current, tau))
    assert spikes.dtype == jnp.float32


def test_a_constant_current_is_sent_on_at_its_rate():
    # 0.4 a step reaches 1 in the third, and starts from 0 again.
    spikes = neurons(jnp.full((9, 1), 0.4))[:, 0]
    assert spikes.tolist() == [0, 0, 1] * 3
    # With tau = 2 the potential tends to 0.9, and never reaches 1.
    assert neurons(jnp.full((50, 1), 0.9), tau=2.0).sum() == 0


def test_the_derivative_is_that_of_an_arctan():
    v = np.linspace(-3, 3, 601)
    with jax.enable_x64(True):
        np.testing.assert_array_equal(spike(jnp.asarray(v)), v >= 0)
        slope = jax.vmap(jax.grad(spike))(jnp.asarray(v))
        np.testing.assert_allclose(slope, 1 / (1 + (np.pi * v) ** 2), rtol=1e-12)
        # The curve it belongs to rises from 0 to 1.
        curve = np.arctan(np.pi * v) / np.pi + 0.5
        np.testing.assert_allclose(np.gradient(curve, v)[1:-1], slope[1:-1], atol=2e-3)


@pytest.mark.parametrize("tau", [None, 2.0])
def test_the_gradient_through_time_leaves_the_reset_out(tau):
    current = np.random.default_rng(1).normal(0.6, 0.7, (STEPS, 6))
    weights = np.random.default_rng(2).normal(size=(STEPS, 6))
    spikes = simulated(current, tau)
    # h_t = keep (1 - s_(t-1)) h_(t-1) + share x_t, with s taken as constant.
    keep, share = (1.0, 1.0) if tau is None else (1 - 1 / tau, 1 / tau)
    h = np.zeros((STEPS, 6))
    for t in range(STEPS):
        before = h[t - 1] * (1 - spikes[t - 1]) if t else 0.0
        h[t] = keep * before + share * current[t]
    want, later = np.zeros((STEPS, 6)), 0.0
    for t in reversed(range(STEPS)):
        slope = weights[t] / (1 + (np.pi * (h[t] - 1)) ** 2)
        later = slope + (keep * (1 - spikes[t]) * later if t < STEPS - 1 else 0.0)
        want[t] = share * later
    with jax.enable_x64(True):
        got = jax.grad(lambda x: jnp.sum(neurons(x, tau=tau) * weights))(current)
    np.testing.assert_allclose(got, want, rtol=1e-12)


def small(**fields):
    return SEWResNet(
        5, blocks=(1, 1), width=4, small_images=True, steps=STEPS, **fields
    )


@pytest.fixture(scope="module")
def variables():
    x = jnp.zeros((1, 6, 6, 2))
    shapes = jax.eval_shape(lambda: small().init(jax.random.key(0), x, train=False))
    rng = np.random.default_rng(3)

    def draw(path, leaf):
        if path[-1].key == "kernel":
            return jnp.float32(rng.normal(size=leaf.shape))
        centre = 1.0 if path[-1].key in ("scale", "var") else 0.3
        return jnp.float32(centre + rng.uniform(-0.3, 0.3, leaf.shape))

    return jax.tree.map_with_path(draw, shapes)


def convolved(x, kernel, stride):
    """A convolution with symmetric padding, in float64: (B, H, W, C) to (B, ...)."""
    size = kernel.shape[0]
    pad = size // 2
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    high, wide = ((side - size) // stride + 1 for side in x.shape[1:3])
    out = np.zeros((len(x), high, wide, kernel.shape[3]))
    for i, j in np.ndindex(size, size):
        rows = x[:, i : i + stride * high : stride, j : j + stride * wide : stride]
        out += rows @ kernel[i, j]
    return out


def by_hand(variables, images):
    """The network of `small` in float64, and what its layers read."""
    params, stats = (
        jax.tree.map(lambda x: np.asarray(x, np.float64), variables[name])
        for name in ("params", "batch_stats")
    )
    read = {}

    def layer(x, path, conv, bn, stride):
        at = lambda tree, name: functools.reduce(lambda t, k: t[k], [*path, name], tree)
        read["/".join([*path, conv])] = x
        kernel, scale = at(params, conv)["kernel"], at(params, bn)
        mean, var = at(stats, bn)["mean"], at(stats, bn)["var"]
        y = np.stack([convolved(part, kernel, stride) for part in x])
        return (y - mean) / np.sqrt(var + 1e-5) * scale["scale"] + scale["bias"]

    x = layer(np.asarray(images, np.float64)[None], [], "conv0", "bn0", 1)
    x = simulated(np.concatenate([x] * STEPS))
    for stage, stride in ((1, 1), (2, 2)):
        path = [f"stage{stage}_block1"]
        y = simulated(layer(x, path, "conv1", "bn1", stride))
        y = simulated(layer(y, path, "conv2", "bn2", 1))
        if stride == 2:
            x = simulated(layer(x, path, "shortcut_conv", "shortcut_bn", stride))
        x = x + y
    mean = x.mean(axis=(0, 2, 3))
    read["dense"] = mean
    return mean @ params["dense"]["kernel"] + params["dense"]["bias"], read


def test_a_network_is_that_of_a_simulation(variables):
    images = np.random.default_rng(4).normal(size=(3, 6, 6, 2)).astype(np.float32)
    want, read = by_hand(variables, images)
    assert 0.1 < read["stage2_block1/conv1"].mean() < 2
    logits = jax.jit(functools.partial(small().apply, train=False))(variables, images)
    np.testing.assert_allclose(logits, want, rtol=1e-5, atol=1e-6)


def test_channels_are_traced_through_time_and_go_exactly(variables):
    images = np.random.default_rng(5).normal(size=(3, 6, 6, 2)).astype(np.float32)
    apply = functools.partial(small().apply, train=False)
    graph = jaxprune.trace_channels(apply, variables, images)
    assert sorted(group.size for group in graph.groups.values()) == [4, 4, 8, 8]
    masks = {name: np.arange(g.size) % 4 != 1 for name, g in graph.groups.items()}
    compact = graph.compact(masks, variables)
    want = jax.jit(graph.masked(masks))(variables, images)
    got = jax.jit(compact.apply_fn)(compact.trees[0], images)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    assert not np.allclose(want, apply(variables, images))
