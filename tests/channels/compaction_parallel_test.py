"""Compact networks over several devices: sharded batches, `shard_map`, `pmap`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxprune.channels import filter_norms, random_channel_masks, trace_channels
from tests.support import architectures
from tests.support.channel_checks import quick_jit, relative_difference
from tests.support.networks import CNN

P = PartitionSpec
MESH = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))
BATCH, EVERYWHERE = PartitionSpec("batch"), PartitionSpec()


@functools.cache
def small_network():
    """A network, half of its channels removed, and 16 images."""
    x = architectures.images(8, channels=1, batch=16)
    function, variables, _ = architectures.linen(CNN(), x, train=False)
    graph = trace_channels(function, variables, x[:1])
    masks = random_channel_masks(jax.random.key(0), graph, 0.5)
    small = graph.compact(masks, variables)
    want = quick_jit(graph.masked(masks))(variables, x)
    return small, x, want


def loss(apply_fn, variables, x):
    return jnp.mean(jnp.square(apply_fn(variables, x) - 0.3))


def test_a_sharded_batch_stays_sharded():
    small, x, want = small_network()
    tree = jax.device_put(small.trees[0], NamedSharding(MESH, EVERYWHERE))
    parts = jax.device_put(x, NamedSharding(MESH, BATCH))
    got = jax.jit(small.apply_fn)(tree, parts)
    assert got.sharding.is_equivalent_to(NamedSharding(MESH, BATCH), got.ndim)
    assert relative_difference(got, want) < 1e-5
    grads = jax.jit(jax.grad(functools.partial(loss, small.apply_fn)))(tree, parts)
    alone = jax.jit(jax.grad(functools.partial(loss, small.apply_fn)))
    for a, b in zip(
        jax.tree.leaves(grads["params"]),
        jax.tree.leaves(alone(small.trees[0], x)["params"]),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def gradients_over_devices(kind, apply_fn, tree, x):
    def mean_gradient(tree, x):
        grads = jax.grad(functools.partial(loss, apply_fn))(tree, x)
        return jax.lax.pmean(grads, "batch")

    if kind == "pmap":
        parts = x.reshape(8, -1, *x.shape[1:])
        mapped = jax.pmap(mean_gradient, axis_name="batch", in_axes=(None, 0))
        return jax.tree.map(lambda g: g[0], mapped(tree, parts))
    mapped = jax.shard_map(
        mean_gradient,
        mesh=MESH,
        in_specs=(EVERYWHERE, BATCH),
        out_specs=EVERYWHERE,
        check_vma=False,
    )
    return jax.jit(mapped)(tree, x)


@pytest.mark.parametrize("kind", ["pmap", "shard_map"])
def test_gradients_averaged_over_devices_are_those_of_the_whole_batch(kind):
    small, x, _ = small_network()
    (tree,) = small.trees
    got = gradients_over_devices(kind, small.apply_fn, tree, x)
    want = quick_jit(jax.grad(functools.partial(loss, small.apply_fn)))(tree, x)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["pmap", "shard_map"])
def test_statistics_over_a_mapped_axis_survive(kind):
    """A function that names an axis is traced and compacted where the axis is."""
    x = architectures.images(8, channels=1, batch=16)
    plain = architectures.linen(CNN(), x, train=True)
    model = CNN(axis_name="batch")

    def function(variables, x):
        return model.apply(variables, x, train=True, mutable=["batch_stats"])

    graph = trace_channels(*plain[:2], x[:2])
    masks = random_channel_masks(jax.random.key(0), graph, 0.5)
    want, statistics = quick_jit(graph.masked(masks))(plain.variables, x)

    def run(variables, x):
        here = trace_channels(function, variables, x)
        small = here.compact(masks, variables)
        return small.apply_fn(small.trees[0], x)

    if kind == "pmap":
        parts = x.reshape(8, -1, *x.shape[1:])
        logits, updates = jax.pmap(run, axis_name="batch", in_axes=(None, 0))(
            plain.variables, parts
        )
        logits, updates = logits.reshape(16, -1), jax.tree.map(lambda s: s[0], updates)
    else:
        specs = {"in_specs": (EVERYWHERE, BATCH), "out_specs": (BATCH, EVERYWHERE)}
        mapped = jax.shard_map(run, mesh=MESH, check_vma=False, **specs)
        logits, updates = jax.jit(mapped)(plain.variables, x)
    assert relative_difference(logits, want) < 1e-5
    kept = graph.compact(masks, plain.variables).kept
    for layer, name in (("bn1", "mean"), ("bn2", "var")):
        (indices,) = kept[f"batch_stats/{layer}/{name}"]
        np.testing.assert_allclose(
            updates["batch_stats"][layer][name],
            statistics["batch_stats"][layer][name][indices],
            rtol=1e-4,
            atol=1e-5,
        )


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("kept", [8, 11])
def test_a_sharded_axis_that_loses_channels_gives_the_network_of_one_device(kind, kept):
    def network(p, x):
        h = jnp.tanh(x @ p["a"] + p["b"][None])
        step = lambda h, w: (jnp.tanh(h @ w), None)
        return jax.lax.scan(step, h, p["layers"])[0] @ p["c"]

    draw = np.random.default_rng(0).normal
    shapes = {"a": (5, 16), "b": (16,), "layers": (2, 16, 16), "c": (16, 3)}
    params = {k: jnp.asarray(draw(size=s), jnp.float32) for k, s in shapes.items()}
    x = jnp.asarray(draw(size=(4, 5)), jnp.float32)
    graph = trace_channels(network, params, x)
    masks = random_channel_masks(jax.random.key(0), graph, kept / 16)
    want = graph.compact(masks, params).trees[0]
    mesh = jax.make_mesh((8,), ("m",), axis_types=(kind,))
    spec = {"a": P(None, "m"), "b": P("m"), "layers": P(None, "m"), "c": P("m")}
    with jax.set_mesh(mesh):
        place = lambda p, s: jax.device_put(p, NamedSharding(mesh, s))
        sharded = jax.tree.map(place, params, spec)
        small = graph.compact(masks, sharded)
        norms = filter_norms(graph)(sharded)
    if kind is AxisType.Explicit and kept == 8:  # the devices divide what is left
        assert small.trees[0]["a"].sharding.spec == spec["a"]
    for name, leaf in want.items():
        np.testing.assert_array_equal(small.trees[0][name], leaf)
    logits = small.apply_fn(jax.device_get(small.trees[0]), x)
    assert relative_difference(logits, graph.masked(masks)(params, x)) <= 1e-5
    for name, norm in filter_norms(graph)(params).items():
        np.testing.assert_allclose(norms[name], norm, rtol=1e-6)


def _named(h, spec):
    return jax.sharding.reshard(h, spec)


NAMED = {
    "dot": lambda x, w, spec: jnp.dot(x, w, out_sharding=spec),
    "einsum": lambda x, w, spec: jnp.einsum("bi,ij->bj", x, w, out_sharding=spec),
    "reshard": lambda x, w, spec: _named(x @ _named(w, P(None, None)), spec),
    "broadcast": lambda x, w, spec: (
        jnp.dot(x, w, out_sharding=spec)
        + jnp.broadcast_to(w[:1], (len(x), w.shape[1]), out_sharding=spec)
    ),
    "reshape": lambda x, w, spec: jax.lax.reshape(
        jnp.dot(x, w, out_sharding=P(None, None)).reshape(len(x), w.shape[1], 1),
        (len(x), w.shape[1]),
        out_sharding=spec,
    ),
}


@pytest.mark.parametrize("kept", [8, 7])
@pytest.mark.parametrize("name", NAMED)
def test_a_sharding_that_a_function_names_holds_where_its_devices_divide(name, kept):
    mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Explicit,) * 2)

    def network(p, x):
        hidden = jnp.tanh(NAMED[name](x, p["w1"], P("a", "b")))
        hidden = hidden * (1 + p["scale"])[None]
        return jnp.dot(hidden, p["w2"], out_sharding=P("a", None))

    draw = np.random.default_rng(0).normal
    shapes = {"w1": (5, 16), "scale": (16,), "w2": (16, 3)}
    params = {k: jnp.asarray(draw(size=s), jnp.float32) for k, s in shapes.items()}
    spec = {"w1": P(None, "b"), "scale": P("b"), "w2": P("b", None)}
    with jax.set_mesh(mesh):
        params = jax.tree.map(jax.device_put, params, spec)
        x = jax.device_put(jnp.asarray(draw(size=(8, 5)), jnp.float32), P("a", None))
        graph = trace_channels(network, params, x)
        masks = {"w1:1": np.arange(16) < kept}
        small = graph.compact(masks, params)
        got = [f(small.trees[0], x) for f in (small.apply_fn, jax.jit(small.apply_fn))]
        want = graph.masked(masks)(params, x)
    even = kept % 2 == 0
    assert small.trees[0]["w1"].sharding.spec == (
        P(None, "b") if even else P(None, None)
    )
    for logits in got:
        assert logits.sharding.spec == P("a", None)
        np.testing.assert_allclose(logits, want, atol=1e-5)


def test_abstract_leaves_have_the_shardings_of_arrays():
    mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Explicit,) * 2)
    network = lambda p, x: jnp.tanh(x @ p["w1"]) @ p["w2"]
    params = {"w1": jnp.ones((8, 16)), "w2": jnp.ones((16, 3))}
    graph = trace_channels(network, params, jnp.ones((4, 8)))
    masks = {"w1:1": np.arange(16) < 7}
    spec = {"w1": P("a", "b"), "w2": P("b", None)}
    with jax.set_mesh(mesh):
        sharded = jax.tree.map(jax.device_put, params, spec)
        shapes = jax.eval_shape(lambda p: p, sharded)
        found = graph.compact(masks, sharded).trees[0]
        abstract = graph.compact(masks, shapes).trees[0]
    for name, leaf in found.items():
        assert abstract[name].shape == leaf.shape
        assert abstract[name].sharding.spec == leaf.sharding.spec
