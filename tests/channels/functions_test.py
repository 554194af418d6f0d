"""One graph of several functions, and of functions that name mapped axes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from jax.sharding import AxisType, PartitionSpec

from jaxprune import costs
from jaxprune.channels import Function, random_channel_masks, trace_channels
from tests.support.channel_checks import quick_jit, relative_difference

X = jax.random.normal(jax.random.key(1), (8, 4, 4, 3))


class Net(nn.Module):
    """A convolution, a batch normalisation, a dense layer."""

    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, train=True):
        norm = nn.BatchNorm(use_running_average=not train, axis_name=self.axis_name)
        x = nn.relu(norm(nn.Conv(6, (3, 3))(x)))
        return nn.Dense(5)(x.mean((1, 2)))


def train_fn(model, variables, x):
    return model.apply(variables, x, mutable=["batch_stats"])


def eval_fn(model, variables, x):
    return model.apply(variables, x, train=False)


@functools.cache
def both(axis_name=None):
    model = Net(axis_name)
    variables = quick_jit(functools.partial(model.init, train=False))(
        jax.random.key(0), X
    )
    functions = {
        "train": functools.partial(train_fn, model),
        "eval": functools.partial(eval_fn, model),
    }
    sizes = {} if axis_name is None else {axis_name: 3}
    return variables, trace_channels(functions, variables, X[:2], axis_sizes=sizes)


def test_train_and_eval_are_compacted_by_one_call():
    variables, graph = both()
    masks = random_channel_masks(jax.random.key(0), graph, 0.5)
    small = graph.compact(masks, variables)
    (tree,) = small.trees
    assert small.widths == {"params/Conv_0/kernel:3": 3}
    assert list(small.functions) == ["train", "eval"]
    assert small.apply_fn is small.functions["eval"]
    logits, updated = small.functions["train"](tree, X)
    want, dense = graph.masked(masks, function="train")(variables, X)
    assert relative_difference(logits, want) < 1e-5
    (left,) = small.kept["batch_stats/BatchNorm_0/mean"]
    np.testing.assert_allclose(
        updated["batch_stats"]["BatchNorm_0"]["mean"],
        dense["batch_stats"]["BatchNorm_0"]["mean"][left],
        rtol=1e-5,
    )
    # What training returns, evaluation takes.
    logits = small.functions["eval"]({**tree, **updated}, X)
    full = {**variables, **dense}
    assert relative_difference(logits, graph.masked(masks)(full, X)) < 1e-5
    with pytest.raises(ValueError, match=r"function='test'.*\['train', 'eval'\]"):
        graph.masked(masks, function="test")


def test_costs_count_one_function():
    variables, graph = both()
    alone = trace_channels(graph.functions["eval"].apply_fn, variables, X[:2])
    assert graph.main == "eval"
    assert list(graph.groups) == list(alone.groups)
    for cost in (costs.macs, costs.bytes_moved, costs.parameters):
        assert cost(graph).dense == cost(alone).dense
    assert trace_channels({"a": lambda p, x: x @ p}, jnp.ones((3, 2)), X).main == "a"


def test_leaves_that_one_function_reads_follow_the_other():
    """As the statistics of Haiku, of which evaluation reads an average only."""

    def train(p, x):
        hidden = 0.9 * p["hidden"] + 0.1 * jnp.mean(x @ p["w1"], axis=0)
        y = jnp.tanh(x @ p["w1"] - hidden[None]) @ p["w2"]
        return y, {"hidden": hidden, "average": hidden / 0.5}

    def evaluate(p, x):
        return jnp.tanh(x @ p["w1"] - p["average"][None]) @ p["w2"]

    params = {
        "w1": jnp.ones((3, 8)),
        "hidden": jnp.ones(8),
        "average": jnp.ones(8),
        "w2": jnp.ones((8, 2)),
    }
    x = jnp.ones((4, 3))
    graph = trace_channels({"eval": evaluate, "train": train}, params, x)
    assert list(graph.groups) == ["w1:1"]
    masks = {"w1:1": np.arange(8) % 3 == 0}
    small = graph.compact(masks, params)
    _, updated = small.functions["train"](small.trees[0], x)
    assert updated["hidden"].shape == updated["average"].shape == (3,)
    assert small.functions["eval"]({**small.trees[0], **updated}, x).shape == (4, 2)


def test_each_function_may_have_inputs_of_its_own():
    def loss(p, x, label, key):
        keep = jax.random.bernoulli(key, 0.5, (x.shape[0], 1))
        return jnp.mean((jnp.tanh(x @ p["a"]) * keep @ p["b"] - label) ** 2)

    params = {"a": jnp.ones((3, 4)), "b": jnp.ones((4, 2))}
    x, label, key = jnp.ones((5, 3)), jnp.ones((5, 2)), jax.random.key(0)
    functions = {
        "eval": lambda p, x: jnp.tanh(x @ p["a"]) @ p["b"],
        "loss": Function(loss, (x, label, key)),
    }
    graph = trace_channels(functions, jax.eval_shape(lambda: params), x)
    masks = {"a:1": np.array([True, False, True, True])}
    small = graph.compact(masks, params)
    got = small.functions["loss"](small.trees[0], x, label, key)
    want = graph.masked(masks, function="loss")(params, x, label, key)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    with pytest.raises(ValueError, match=r"apply_fn=\{\}.*at least one function"):
        trace_channels({}, params, x)


def test_an_nnx_module_in_both_modes():
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(3, 8, rngs=rngs)
            self.norm = nnx.BatchNorm(8, rngs=rngs)
            self.last = nnx.Linear(8, 2, rngs=rngs)

        def __call__(self, x):
            return self.last(nnx.relu(self.norm(self.first(x))))

    model = Model(nnx.Rngs(0))
    definition, state = nnx.split(model)

    def train(state, x):
        model = nnx.merge(definition, state, copy=True)
        model.train()
        return model(x), nnx.state(model)

    def evaluate(state, x):
        model = nnx.merge(definition, state, copy=True)
        model.eval()
        return model(x)

    x = jax.random.normal(jax.random.key(0), (6, 3))
    graph = trace_channels({"train": train, "eval": evaluate}, state, x)
    masks = random_channel_masks(jax.random.key(0), graph, 0.5)
    small = graph.compact(masks, state)
    logits, new = small.functions["train"](small.trees[0], x)
    want, _ = graph.masked(masks, function="train")(state, x)
    assert relative_difference(logits, want) < 1e-5
    assert new["norm"]["mean"].get_value().shape == (4,)
    nnx.update(model, new)
    model.eval()
    np.testing.assert_allclose(model(x), small.apply_fn(new, x), rtol=1e-5)


@pytest.mark.parametrize("kind", ["vmap", "pmap", "shard_map", "checked shard_map"])
def test_a_function_that_names_an_axis_is_traced_outside_of_it(kind):
    variables, graph = both("batch")
    plain, dense = both()
    masks = random_channel_masks(jax.random.key(0), graph, 0.5)
    small = graph.compact(masks, variables)
    run = small.functions["train"]
    if kind.endswith("shard_map"):
        mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))
        batch, everywhere = PartitionSpec("batch"), PartitionSpec()
        mapped = jax.shard_map(
            run,
            mesh=mesh,
            in_specs=(everywhere, batch),
            out_specs=(batch, everywhere),
            check_vma=kind == "checked shard_map",
        )
        logits, updated = jax.jit(mapped)(small.trees[0], X)
    else:
        parts, over = (X[None] if kind == "vmap" else X[:, None]), (None, 0)
        if kind == "vmap":
            parts = X.reshape(4, 2, *X.shape[1:])
        mapped = jax.pmap if kind == "pmap" else jax.vmap
        logits, updated = mapped(run, axis_name="batch", in_axes=over)(
            small.trees[0], parts
        )
        updated = jax.tree.map(lambda s: s[0], updated)
    want, statistics = dense.masked(masks, function="train")(plain, X)
    assert relative_difference(logits.reshape(want.shape), want) < 1e-5
    (left,) = small.kept["batch_stats/BatchNorm_0/var"]
    np.testing.assert_allclose(
        updated["batch_stats"]["BatchNorm_0"]["var"],
        statistics["batch_stats"]["BatchNorm_0"]["var"][left],
        rtol=1e-5,
    )
    # Evaluation names no axis, and runs anywhere.
    assert small.functions["eval"](small.trees[0], X).shape == (8, 5)


def test_a_named_axis_without_a_size_is_explained():
    model = Net("batch")
    variables, _ = both("batch")
    with pytest.raises(NameError, match="batch") as caught:
        trace_channels(functools.partial(train_fn, model), variables, X)
    assert any("axis_sizes={'batch': 8}" in note for note in caught.value.__notes__)
