"""Residual branches go, and with them what only they need."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.ad_checkpoint import checkpoint_name

from jaxprune import at_most, costs, io, tree
from jaxprune.channels import (
    consumer_masks,
    important_layers,
    random_channel_masks,
    trace_channels,
)
from tests.support import architectures, architectures_nnx, transformers
from tests.support.channel_checks import (
    as_dtype,
    quick_jit,
    relative_difference,
    size,
)
from tests.support.rows import rows

NETWORKS = (
    architectures.architectures()
    | architectures_nnx.architectures()
    | transformers.networks()
)
NAMES = ("scanned_transformer", "pre_rms", "post_two_passes", "linen_layer")
NAMES += ("nnx_rms", "bert", "resnet18", "nnx_vit", "mamba", "convnext", "cached")
FEW = ("scanned_transformer", "pre_rms", "nnx_rms")


@pytest.fixture(autouse=True)
def _ranks():
    """Networks of others promote ranks: scales of norms are vectors."""
    with jax.numpy_rank_promotion("allow"):
        yield


@functools.cache
def traced(name):
    architecture = NETWORKS[name]()
    function, variables, inputs = architecture
    return architecture, trace_channels(function, variables, *inputs)


def first(outs):
    return outs[0] if isinstance(outs, tuple) else outs


def leaves_of(params):
    return tree.named_leaves(params)


def some_layers(graph, seed=0):
    """Draw block masks: half of the layers."""
    rng = np.random.default_rng(seed)
    return {n: rng.random(b.layers) < 0.5 for n, b in graph.blocks.items()}


@pytest.mark.parametrize("name", rows(NAMES, FEW))
def test_without_blocks_is_with_gates_of_zero(name):
    with jax.enable_x64(True):
        architecture = as_dtype(NETWORKS[name](), jnp.float64)
        function, variables, inputs = architecture
        graph = trace_channels(function, variables, *inputs, norms="dense-count")
        assert graph.blocks
        blocks = some_layers(graph)
        masks = {**random_channel_masks(jax.random.key(0), graph, 0.6), **blocks}
        small = graph.compact(masks, variables)

        # Without blocks: a gate of 0 multiplies the branch.
        gates = {n: jnp.asarray(m, jnp.float64) for n, m in blocks.items()}
        got = quick_jit(graph.masked(blocks))(variables, *inputs)
        want = quick_jit(graph.gated())(variables, gates, *inputs)
        assert relative_difference(first(got), first(want)) <= 1e-12

        # Without channels too.
        def loss(apply_fn, params):
            return jnp.mean(jnp.square(first(apply_fn(params, *inputs)) - 0.3))

        run = quick_jit(jax.value_and_grad(functools.partial(loss, small.apply_fn)))
        value, mine = run(small.trees[0])
        run = quick_jit(
            jax.value_and_grad(functools.partial(loss, graph.masked(masks)))
        )
        expected, theirs = run(variables)
        mine, theirs = (jax.device_get(leaves_of(g)) for g in (mine, theirs))
        value, expected = float(value), float(expected)
    assert abs(value - expected) <= 1e-12 * abs(expected)
    largest = max(np.abs(gradient).max() for gradient in theirs.values())
    gone = {n for n, kept in small.kept.items() if not all(map(len, kept))}
    assert gone == theirs.keys() - mine.keys()
    for leaf, gradient in mine.items():
        other = theirs[leaf][np.ix_(*small.kept[leaf])]
        np.testing.assert_allclose(gradient, other, atol=1e-12 * largest)


@pytest.mark.parametrize("name", rows(NAMES, ("scanned_transformer", "linen_layer")))
def test_costs_are_those_of_the_network_without(name):
    (function, variables, inputs), graph = traced(name)
    del function
    blocks = some_layers(graph, 2)
    left = {n: m.mean() for n, m in blocks.items()}
    small = graph.compact(blocks, variables)
    again = trace_channels(small.apply_fn, small.trees[0], *inputs)
    for cost in (costs.macs, costs.parameters, costs.bytes_moved):
        priced = cost(graph, blocks=True)
        assert cost(again).dense == pytest.approx(priced.dense * priced(left))
        assert set(priced.sites) == {*graph.groups, *graph.blocks}
        assert set(cost(graph).sites) == set(graph.groups)
    assert size(small.trees[0]) == costs.parameters(again).dense


def test_any_subset_of_scanned_layers_goes():
    (_, variables, inputs), graph = traced("scanned_transformer")
    attention, perceptron = graph.blocks.values()
    assert (attention.layers, perceptron.layers) == (3, 3)
    masks = {
        attention.name: np.array([False, True, False]),
        perceptron.name: np.array([False, True, True]),
    }
    small = graph.compact(masks, variables)
    left = leaves_of(small.trees[0])
    assert {left[n].shape[0] for n in attention.leaves} == {1}
    assert {left[n].shape[0] for n in perceptron.leaves} == {2}
    assert small.kept[perceptron.leaves[0]][0].tolist() == [1, 2]
    got = quick_jit(small.apply_fn)(small.trees[0], *inputs)
    want = quick_jit(graph.masked(masks))(variables, *inputs)
    assert relative_difference(got, want) < 1e-5
    # All layers: nothing of them is left, and no loop runs.
    none = {name: np.zeros(3, bool) for name in graph.blocks}
    small = graph.compact(none, variables)
    gone = {*attention.leaves, *perceptron.leaves}
    assert gone == graph.leaves.keys() - leaves_of(small.trees[0]).keys()
    assert "scan" not in str(jax.make_jaxpr(small.apply_fn)(small.trees[0], *inputs))


def test_a_scan_that_runs_backwards_and_returns_its_steps():
    def network(params, x):
        def layer(x, w):
            x = x + jnp.tanh(x @ w)
            return x, x.sum()

        return jax.lax.scan(layer, x, params["w"], reverse=True)

    params = transformers.drawn({"w": (4, 3, 3)})
    x = jnp.linspace(-1, 1, 6).reshape(2, 3)
    graph = trace_channels(network, params, x)
    (name,) = graph.blocks
    mask = np.array([True, False, False, True])
    small = graph.compact({name: mask}, params)
    assert small.trees[0]["w"].shape == (2, 3, 3)
    want = network({"w": jnp.where(mask[:, None, None], params["w"], 0)}, x)
    assert relative_difference(small.apply_fn(small.trees[0], x), want) < 1e-6


def test_a_recurrent_cell_is_one_block():
    def network(params, x):
        step = lambda h, x: (h + jnp.tanh((h + x) @ params["w"]), None)
        return jax.lax.scan(step, jnp.zeros(3), x)[0] @ params["v"]

    params = transformers.drawn({"w": (3, 3), "v": (3, 2)})
    graph = trace_channels(network, params, jnp.ones((5, 3)))
    assert [block.layers for block in graph.blocks.values()] == [1]


def test_what_is_no_residual_branch_is_no_block():
    def network(params, x):
        a = x @ params["a"]
        b = x @ params["b"] + params["bias"]  # Two branches side by side.
        y = a + b
        y = y + 0.1 * y**3  # No parameters.
        y = y + params["v"]
        return jax.nn.gelu(y, approximate=True) @ params["v"][:, None]

    params = transformers.drawn({"a": (3, 4), "b": (3, 4), "bias": (4,), "v": (4,)})
    assert not trace_channels(network, params, jnp.ones((2, 3))).blocks


def test_parallel_branches_are_blocks_each():
    def network(params, x):
        y = jnp.tanh(x)
        x = x + y @ params["a"] + jnp.sin(y @ params["b"])
        return x @ params["out"]

    params = transformers.drawn({"a": (3, 3), "b": (3, 3), "out": (3, 2)})
    x = jnp.linspace(-1, 1, 6).reshape(2, 3)
    graph = trace_channels(network, params, x)
    assert list(graph.blocks) == ["a:block", "b:block"]
    small = graph.compact({"a:block": np.array([False])}, params)
    assert small.trees[0]["a"] is None
    want = network({**params, "a": jnp.zeros((3, 3))}, x)
    assert relative_difference(small.apply_fn(small.trees[0], x), want) < 1e-6


def test_optimizer_states_shrink_and_training_goes_on():
    (_, variables, inputs), graph = traced("linen_layer")
    state = optax.adam(1e-2).init(variables)
    (name, *_) = graph.blocks
    small = graph.compact({name: np.array([False])}, variables, state)
    params, state = small.trees
    gradient = quick_jit(jax.grad(lambda p: jnp.mean(small.apply_fn(p, *inputs) ** 2)))
    step = quick_jit(optax.adam(1e-2).update)
    for _ in range(2):
        updates, state = step(gradient(params), state, params)
        params = optax.apply_updates(params, updates)
    assert leaves_of(params).keys() == leaves_of(small.trees[0]).keys()
    assert small.widths[name] == 0


def test_layers_come_back_from_disk(tmp_path):
    (_, variables, inputs), graph = traced("scanned_transformer")
    (name, _) = graph.blocks
    masks = {name: np.array([True, False, True])}
    small = graph.compact(masks, variables)
    folder = io.save_compact(tmp_path, 1, small.masks, *small.trees)
    again = io.load_compact(folder, graph, variables)
    np.testing.assert_array_equal(
        again.apply_fn(again.trees[0], *inputs),
        small.apply_fn(small.trees[0], *inputs),
    )


def test_layers_are_ranked_by_gates_and_go_until_limits_are_met():
    (_, variables, inputs), graph = traced("scanned_transformer")

    def loss(gates):
        return jnp.mean(graph.gated()(variables, gates, *inputs) ** 2)

    ones = {name: jnp.ones(block.layers) for name, block in graph.blocks.items()}
    scores = jax.tree.map(jnp.abs, quick_jit(jax.grad(loss))(ones))
    cost = costs.macs(graph, blocks=True)
    masks = important_layers(graph, scores, at_most(cost, 0.6))
    left = {name: mask.mean() for name, mask in masks.items()}
    assert cost(left) <= 0.6
    kept = [np.asarray(scores[n])[m] for n, m in masks.items()]
    gone = [np.asarray(scores[n])[~m] for n, m in masks.items()]
    assert np.concatenate(gone).max() <= np.concatenate(kept).min()
    with pytest.raises(ValueError, match="at least the costs without any"):
        important_layers(graph, scores, at_most(cost, 0.01))
    with pytest.raises(ValueError, match="must be the name of a block"):
        important_layers(graph, {"x": jnp.ones(1)}, at_most(cost, 0.6))
    with pytest.raises(ValueError, match=r"of shape \(3,\), got \[nan\]"):
        important_layers(graph, {next(iter(ones)): [np.nan]}, at_most(cost, 0.6))


def test_blocks_and_layers_under_other_transformations():
    (_, variables, inputs), graph = traced("scanned_transformer")
    masks = some_layers(graph, 3)
    small = graph.compact(masks, variables)
    (x,) = inputs
    many = jnp.concatenate([x, x[::-1], x])  # Another batch size.
    want = quick_jit(graph.masked(masks))(variables, many)
    got = quick_jit(jax.vmap(lambda x: small.apply_fn(small.trees[0], x[None])[0]))(
        many
    )
    assert relative_difference(got, want) < 1e-5


def test_masks_of_blocks_are_checked():
    (_, variables, inputs), graph = traced("linen_layer")
    (name, *_) = graph.blocks
    with pytest.raises(ValueError, match=r"must be boolean, of shape \(1,\)"):
        graph.compact({name: np.array([True, False])}, variables)
    with pytest.raises(ValueError, match="no masks of parameters leave out"):
        consumer_masks(graph, variables, {name: np.array([False])})
    with pytest.raises(ValueError, match="is neither"):
        graph.compact({"unknown:block": np.array([False])}, variables)
    with pytest.raises(ValueError, match="must be the name of a block"):
        graph.gated()(variables, {"x": jnp.ones(1)}, *inputs)
    with pytest.raises(ValueError, match=r"must have shape \(1,\)"):
        graph.gated()(variables, {name: jnp.ones(2)}, *inputs)
    with pytest.raises(ValueError, match="must be the name of a function"):
        graph.gated(function="train")


def test_checkpointed_layers():
    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x + nn.Dense(3)(nn.tanh(nn.Dense(4)(x)))

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x):
            for _ in range(2):
                x = nn.remat(Layer)()(x)
            return nn.Dense(2)(x)

    x = jnp.linspace(-1, 1, 6).reshape(2, 3)
    function, variables, inputs = architectures.linen(Network(), x)
    graph = trace_channels(function, variables, x)
    name, other = graph.blocks
    small = graph.compact({name: np.array([False])}, variables)
    gates = {name: jnp.zeros(1), other: jnp.ones(1)}
    want = graph.gated()(variables, gates, *inputs)
    assert relative_difference(small.apply_fn(small.trees[0], x), want) < 1e-6
    assert len(leaves_of(small.trees[0])) == len(graph.leaves) - 4


@pytest.mark.parametrize(
    "passed",
    [
        jax.lax.optimization_barrier,
        lambda x: checkpoint_name(x, "stream"),
        lambda x: jax.lax.reduce_precision(x, 8, 10),
        lambda x: jax.device_put(x, jax.devices()[0]),
    ],
    ids=["barrier", "name", "precision", "device"],
)
def test_a_stream_that_is_passed_on_is_the_same_stream(passed):
    def network(params, x):
        for layer in ("a", "b"):
            x = passed(x + jnp.tanh(x @ params[layer]))
        return x @ params["out"]

    params = {name: jnp.full((3, 3), 0.1) for name in ("a", "b", "out")}
    x = jnp.arange(6.0).reshape(2, 3)
    graph = trace_channels(network, params, x)
    assert list(graph.blocks) == ["a:block", "b:block"]
    small = graph.compact({"a:block": np.array([False])}, params)
    want = network({**params, "a": jnp.zeros((3, 3))}, x)
    np.testing.assert_allclose(small.apply_fn(small.trees[0], x), want, rtol=1e-6)
