"""Compact networks equal masked ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxprune.channels import (
    channel_masks,
    consumer_masks,
    largest_channels,
    live_channels,
    random_channel_masks,
    trace_channels,
)
from jaxprune.masks import apply_masks
from tests.support import architectures, architectures_nnx, random_networks
from tests.support.channel_checks import (
    as_dtype,
    check,
    cut,
    quick_jit,
    relative_difference,
    size,
)
from tests.support.rows import rows

ARCHITECTURES = architectures.architectures() | architectures_nnx.architectures()
# The quick ones: of small networks each, and beside them one for each kind of layer.
FEW = ("mlp", "nnx_mlp", "generator", "tied_autoencoder", "stacked_branches")
FEW += ("control_flow", "spiking", "nnx_recurrent", "scanned_transformer", "bert")
FEW += ("nnx_vit", "resnet18_training")
EACH_KIND = ("densenet_training", "groupnorm_resnet", "mixnet", "fpn", "recurrent")
EACH_KIND += ("gpt", "shufflenet", "fused_glu")
SEEDS = rows(range(300), range(12))


@functools.cache
def traced(name):
    architecture = ARCHITECTURES[name]()
    function, variables, inputs = architecture
    return architecture, trace_channels(function, variables, *inputs)


@pytest.mark.parametrize("name", rows(ARCHITECTURES, (*FEW, *EACH_KIND)))
def test_random_channels_removed_in_double_precision(name):
    architecture = ARCHITECTURES[name]()
    with jax.enable_x64(True):
        architecture = as_dtype(architecture, jnp.float64)
        graph = trace_channels(
            architecture.apply_fn, architecture.variables, *architecture.inputs
        )
        assert not graph.unknown
        masks = random_channel_masks(jax.random.key(0), graph, 0.5)
        smaller = check(architecture, graph, masks, jnp.float64, 1e-12)
    assert size(smaller) < size(architecture.variables)


@pytest.mark.parametrize("name", rows(ARCHITECTURES, FEW))
def test_small_channels_removed_in_single_precision(name):
    architecture, graph = traced(name)
    masks = largest_channels(graph, architecture.variables, 0.7)
    check(architecture, graph, masks, jnp.float32, 1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_networks(seed):
    keep = float(np.random.default_rng(seed).choice([0.3, 0.5, 0.7]))
    architecture = random_networks.draw_network(seed)
    with jax.enable_x64(True):
        architecture = as_dtype(architecture, jnp.float64)
        function, variables, inputs = architecture
        graph = trace_channels(function, variables, *inputs)
        key, masks = jax.random.key(seed), {}
        if graph.groups:  # In some networks something reads all channels together.
            masks = random_channel_masks(key, graph, keep)
        check(architecture, graph, masks, jnp.float64, 1e-12)


# A small network for what follows.


def network(variables, x):
    params, stats = variables["params"], variables["batch_stats"]
    y = jax.lax.conv_general_dilated(
        x, params["conv"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    y = (y - stats["mean"][None, None, None]) * params["scale"][None, None, None]
    y = jax.nn.relu(y + params["shift"][None, None, None])
    y = y.reshape((y.shape[0], -1))
    return jax.nn.silu(y @ params["hidden"]) @ params["out"]


def small_case():
    shapes = {
        "params": {
            "conv": (3, 3, 3, 6),
            "scale": (6,),
            "shift": (6,),
            "hidden": (4 * 4 * 6, 8),
            "out": (8, 5),
        },
        "batch_stats": {"mean": (6,)},
    }
    shapes = jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s, jnp.float32),
        shapes,
        is_leaf=lambda s: isinstance(s, tuple),
    )
    variables, x = architectures.draw(shapes), architectures.images(4, batch=2)
    graph = trace_channels(network, variables, x)
    masks = {
        "params/conv:3": np.array([1, 0, 1, 1, 0, 0], bool),
        "params/hidden:1": np.arange(8) % 3 > 0,
    }
    return variables, x, graph, masks


def test_widths_and_kept_say_what_is_left():
    variables, _, graph, masks = small_case()
    small = graph.compact(masks, variables)
    assert small.widths == {"params/conv:3": 3, "params/hidden:1": 5}
    assert small.kept["batch_stats/mean"][0].tolist() == [0, 2, 3]
    assert small.kept["params/out"][1].tolist() == [0, 1, 2, 3, 4]
    rows = small.kept["params/hidden"][0]
    assert rows.tolist() == [i for i in range(96) if i % 6 in (0, 2, 3)]
    jax.tree.map(
        np.testing.assert_array_equal, small.trees[0], cut(variables, small.kept)
    )


def test_the_small_function_takes_other_batch_sizes_and_is_vmapped():
    variables, x, graph, masks = small_case()
    small = graph.compact(masks, variables)
    many = jnp.concatenate([x, 2 * x, -x])
    want = graph.masked(masks)(variables, many)
    got = jax.jit(small.apply_fn)(small.trees[0], many)
    assert relative_difference(got, want) < 1e-5
    each = jax.vmap(lambda x: small.apply_fn(small.trees[0], x[None])[0])(many)
    assert relative_difference(each, want) < 1e-5


def test_compacting_twice_is_compacting_with_both_masks():
    variables, x, graph, masks = small_case()
    once = graph.compact({"params/conv:3": masks["params/conv:3"]}, variables)
    again = trace_channels(once.apply_fn, once.trees[0], x)
    rest = {"params/hidden:1": masks["params/hidden:1"]}
    twice = again.compact(rest, once.trees[0])
    both = graph.compact(masks, variables)
    jax.tree.map(np.testing.assert_array_equal, twice.trees[0], both.trees[0])
    got, want = (s.apply_fn(s.trees[0], x) for s in (twice, both))
    assert relative_difference(got, want) < 1e-6


def test_compacting_with_everything_kept_changes_nothing():
    variables, x, graph, _ = small_case()
    small = graph.compact({}, variables)
    jax.tree.map(np.testing.assert_array_equal, small.trees[0], variables)
    np.testing.assert_array_equal(small.apply_fn(variables, x), network(variables, x))


@pytest.mark.parametrize(
    "name",
    rows(
        ["spiking", "control_flow", "gpt", "resnet18_training"],
        ["spiking", "control_flow", "gpt"],
    ),
)
def test_gradients_are_those_of_the_masked_network(name):
    (_, variables, inputs), graph = traced(name)
    # `while` has no reverse mode; forward mode it has.
    differentiate = jax.jacfwd if name == "control_flow" else jax.grad
    masks = random_channel_masks(jax.random.key(1), graph, 0.5)
    small = graph.compact(masks, variables)
    run = graph.masked(masks)

    def loss_of(apply_fn):
        def loss(variables):
            outs = apply_fn(variables, *inputs)
            outs = outs[0] if isinstance(outs, tuple) else outs
            return jnp.mean(jnp.square(outs - 0.3))

        return loss

    got = quick_jit(differentiate(loss_of(small.apply_fn)))(small.trees[0])
    want = quick_jit(differentiate(loss_of(run)))(variables)
    want = cut(want, small.kept)
    largest = max(np.abs(g).max() for g in jax.tree.leaves(want))
    assert largest > 1e-4
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5 * largest)


def test_own_derivatives_survive():
    """At zero the derivative of `jax.nn.relu` is 0, of `max(x, 0)` it is 1/2."""
    params = {"w": jnp.zeros((2, 4)), "v": jnp.ones((4, 1))}
    function = lambda params, x: jax.nn.relu(x @ params["w"]) @ params["v"]
    graph = trace_channels(function, params, jnp.ones((1, 2)))
    masks = {"w:1": np.array([1, 1, 0, 1], bool)}
    small = graph.compact(masks, params)
    loss = lambda params: small.apply_fn(params, jnp.ones((1, 2))).sum()
    assert not np.any(jax.grad(loss)(small.trees[0])["w"])


OPTIMIZERS = {
    "adam": optax.adam(1e-2),
    "momentum": optax.sgd(1e-2, momentum=0.9),
    "chain": optax.chain(optax.clip(1.0), optax.adamw(1e-2)),
    "masked": optax.masked(
        optax.adam(1e-2), lambda tree: jax.tree.map(lambda x: x.ndim > 1, tree)
    ),
    "partition": optax.partition(
        {"a": optax.adam(1e-2), "b": optax.sgd(1e-2, momentum=0.9)},
        {"conv": "a", "scale": "b", "shift": "b", "hidden": "a", "out": "b"},
    ),
    "multi_steps": optax.MultiSteps(optax.adam(1e-2), 2),
    "ema": optax.chain(optax.sgd(1e-2), optax.ema(0.9)),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on_as_that_of_the_masked_network(name):
    variables, x, graph, masks = small_case()
    optimizer, stats = OPTIMIZERS[name], variables["batch_stats"]
    run, params = graph.masked(masks), variables["params"]

    def train(apply_fn, params, stats, state, steps):
        def loss(params):
            logits = apply_fn({"params": params, "batch_stats": stats}, x)
            return jnp.mean(jnp.square(logits - 0.5))

        @quick_jit
        def step(params, state):
            value, grads = jax.value_and_grad(loss)(params)
            updates, state = optimizer.update(grads, state, params)
            return optax.apply_updates(params, updates), state, value

        for _ in range(steps):
            params, state, value = step(params, state)
        return params, state, value

    params, state, _ = train(run, params, stats, optimizer.init(params), 3)
    small = graph.compact(
        masks, {"params": params, "batch_stats": stats}, state, params
    )
    trees, small_state, small_params = small.trees
    small_stats = trees["batch_stats"]
    *_, want = train(run, params, stats, state, 20)
    small_params, small_state, got = train(
        small.apply_fn, small_params, small_stats, small_state, 20
    )
    np.testing.assert_allclose(got, want, rtol=1e-4)
    shapes = jax.tree.map(jnp.shape, optimizer.init(small_params))
    assert jax.tree.map(jnp.shape, small_state) == shapes


def test_variables_of_methods_pass():
    _, _, graph, masks = small_case()
    learned = {"params/conv": jnp.float32(0.3), "params/conv:3": jnp.float32(0.5)}
    assert graph.compact(masks, learned).trees[0] == learned


# What pruned weights leave in use.


@pytest.mark.parametrize("name", ["resnet18", "densenet", "gpt", "mlp", "mobilenet_v3"])
def test_channels_that_nobody_reads_are_removed_exactly(name):
    (function, variables, inputs), graph = traced(name)
    masks = random_channel_masks(jax.random.key(5), graph, 0.6)
    prune = jax.jit(lambda v: apply_masks(v, consumer_masks(graph, v, masks)))
    pruned = prune(variables)
    live = live_channels(graph, pruned)
    assert any((~mask).any() for mask in live.values())
    small = graph.compact(live, pruned)
    got = quick_jit(small.apply_fn)(small.trees[0], *inputs)
    want = quick_jit(function)(pruned, *inputs)
    assert relative_difference(got, want) < 1e-5


def test_dead_channels_make_others_dead():
    params = {
        "a": jnp.ones((3, 4)),
        "b": jnp.ones((4, 5)).at[1, 1:].set(0),  # Channel 1 of a feeds 0 of b alone,
        "c": jnp.ones((5, 2)).at[0].set(0),  # which nobody reads.
    }
    function = lambda p, x: jnp.tanh(jnp.exp(x @ p["a"]) @ p["b"]) @ p["c"]
    graph = trace_channels(function, params, jnp.ones((1, 3)))
    live = live_channels(graph, params)
    assert live["a:1"].tolist() == [True, False, True, True]
    assert live["b:1"].tolist() == [False, True, True, True, True]


@pytest.mark.parametrize(("act", "dead"), [(jnp.tanh, True), (jnp.exp, False)])
def test_channels_without_input_are_dead_if_they_are_zero(act, dead):
    params = {"a": jnp.ones((3, 4)).at[:, 2].set(0), "b": jnp.ones((4, 2))}
    function = lambda p, x: act(x @ p["a"]) @ p["b"]
    graph = trace_channels(function, params, jnp.ones((1, 3)))
    assert live_channels(graph, params)["a:1"].tolist() == [True, True, not dead, True]


# Reading masks.


def test_consumer_masks_touch_only_what_reads():
    variables, _, graph, masks = small_case()
    tree = consumer_masks(graph, variables, masks)
    assert tree["params"]["conv"].shape == tree["params"]["scale"].shape == ()
    rows = np.asarray(tree["params"]["hidden"]).all(axis=1)
    assert rows.reshape(4, 4, 6).all((0, 1)).tolist() == masks["params/conv:3"].tolist()
    assert not np.asarray(tree["params"]["out"])[0].any()


def test_consumer_masks_are_refused_where_masked_weights_are_not_zero():
    params = {"a": jnp.ones((3, 4)), "b": jnp.ones((4, 2))}
    function = lambda p, x: jnp.tanh(x @ p["a"]) @ jax.nn.sigmoid(p["b"])
    graph = trace_channels(function, params, jnp.ones((2, 3)))
    masks = {"a:1": np.array([1, 0, 1, 1], bool)}
    # The producer may be masked instead: tanh maps zero to zero.
    unread = apply_masks(params, consumer_masks(graph, params, masks))
    want = graph.masked(masks)(params, jnp.ones((2, 3)))
    assert relative_difference(function(unread, jnp.ones((2, 3))), want) < 1e-6
    function = lambda p, x: jnp.cos(x @ p["a"]) @ jax.nn.sigmoid(p["b"])
    graph = trace_channels(function, params, jnp.ones((2, 3)))
    with pytest.raises(ValueError, match="no mask of parameters is exact"):
        consumer_masks(graph, params, masks)


def test_masks_of_producers_or_consumers_name_the_same_channels():
    variables, _, graph, masks = small_case()
    everything = jax.tree.map(lambda _: np.array(True), variables)
    kernel = np.broadcast_to(masks["params/conv:3"], (3, 3, 3, 6))
    everything["params"]["conv"] = kernel
    by_producer = channel_masks(graph, everything)
    np.testing.assert_array_equal(by_producer["params/conv:3"], masks["params/conv:3"])
    by_consumer = channel_masks(graph, consumer_masks(graph, variables, masks))
    for name, mask in masks.items():
        np.testing.assert_array_equal(by_consumer[name], mask)


def test_heads_and_features_are_read_off_trees():
    (_, variables, _), graph = traced("fused_glu")
    masks = random_channel_masks(jax.random.key(3), graph, 0.5)
    read = channel_masks(graph, consumer_masks(graph, variables, masks))
    for name, mask in masks.items():
        np.testing.assert_array_equal(read[name], mask)


# Bad input.


def test_masks_that_split_a_group_are_refused():
    variables, _, graph, _ = small_case()
    tree = jax.tree.map(lambda x: np.ones(x.shape, bool), variables)
    tree["params"]["conv"][..., 1] = False
    tree["params"]["scale"][2] = False
    with pytest.raises(ValueError, match=r"'params/conv:3' must stay.*axis 3"):
        graph.compact(tree, variables)


def test_a_mask_that_splits_one_channel_is_refused():
    variables, _, graph, _ = small_case()
    tree = jax.tree.map(lambda x: np.ones(x.shape, bool), variables)
    tree["params"]["hidden"][7] = False  # One of 16 pixels of channel 1.
    with pytest.raises(ValueError, match=r"'params/hidden', axis 0, removes .*\[7\]"):
        graph.compact(tree, variables)


def test_a_mask_that_removes_a_whole_group_is_refused():
    variables, _, graph, _ = small_case()
    with pytest.raises(ValueError, match=r"'params/conv', axis 3.*removes all"):
        graph.compact({"params/conv:3": np.zeros(6, bool)}, variables)


def test_masks_of_integers_are_refused():
    variables, _, graph, _ = small_case()
    with pytest.raises(TypeError, match=r"'params/conv', axis 3.*boolean"):
        graph.compact({"params/conv:3": np.ones(6, np.int32)}, variables)


def test_masks_of_another_size_are_refused():
    variables, _, graph, _ = small_case()
    with pytest.raises(ValueError, match=r"shape \(6,\).*\(5,\)"):
        graph.compact({"params/conv:3": np.ones(5, bool)}, variables)


def test_masks_of_unknown_groups_are_refused():
    variables, _, graph, _ = small_case()
    with pytest.raises(ValueError, match=r"'conv' is|\['conv'\] is neither"):
        graph.compact({"conv": np.ones(6, bool)}, variables)


def test_masks_that_remove_outputs_are_refused():
    variables, _, graph, _ = small_case()
    tree = jax.tree.map(lambda x: np.ones(x.shape, bool), variables)
    tree["params"]["out"][:, 2] = False
    with pytest.raises(ValueError, match=r"'params/out', axis 1.*an output of the"):
        graph.compact(tree, variables)


def test_a_tree_of_other_shapes_is_refused():
    _, _, graph, masks = small_case()
    wider = {"params": {"conv": jnp.ones((3, 3, 3, 7))}}
    with pytest.raises(ValueError, match=r"'params/conv' has shape \(3, 3, 3, 7\)"):
        graph.compact(masks, wider)


def test_a_tree_that_belongs_nowhere_is_refused():
    _, _, graph, masks = small_case()
    with pytest.raises(ValueError, match="belongs to no traced leaf"):
        graph.compact(masks, {"elsewhere": jnp.ones(6)})


def test_constants_of_an_optimizer_pass():
    params = {"a": {"kernel": jnp.ones((4, 8))}, "b": {"kernel": jnp.ones((8, 2))}}
    function = lambda p, x: jax.nn.relu(x @ p["a"]["kernel"]) @ p["b"]["kernel"]
    graph = trace_channels(function, params, jnp.ones((1, 4)))
    masks = {"a/kernel:1": np.arange(8) < 5}
    optimizer = optax.contrib.muon(1e-2)
    state = optimizer.init(params)
    small = graph.compact(masks, params, state)
    want = jax.tree.map(jnp.shape, optimizer.init(small.trees[0]))
    assert jax.tree.map(jnp.shape, small.trees[1]) == want


def test_trees_may_be_abstract():
    variables, _, graph, masks = small_case()
    state = optax.adam(1e-3).init(variables["params"])
    concrete = graph.compact(masks, variables, state).trees
    blank = graph.compact(masks, *jax.eval_shape(lambda: (variables, state))).trees
    shape = lambda x: (x.shape, x.dtype)
    assert jax.tree.map(shape, blank) == jax.tree.map(shape, concrete)
    leaf = jax.tree.leaves(blank)[0]
    assert isinstance(leaf, jax.ShapeDtypeStruct)
    mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    alone = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None))
    for kept, left in ((4, spread), (3, alone)):  # three do not divide over two
        mean = jax.ShapeDtypeStruct((6,), jnp.float32, sharding=spread)
        masks = {"params/conv:3": np.arange(6) < kept}
        (cut,) = graph.compact(masks, {"batch_stats": {"mean": mean}}).trees
        assert cut["batch_stats"]["mean"].sharding == left


def test_masks_of_weights_that_leave_a_constant_are_refused():
    """Zero filters in front of a normalisation do not make zero channels."""

    def function(p, x):
        h = (x @ p["w1"] - p["mean"][None]) * p["scale"][None]
        return jax.nn.relu(h) @ p["w2"]

    draw = lambda i, *shape: jax.random.normal(jax.random.key(i), shape)
    params = {"w1": draw(0, 3, 8), "mean": draw(1, 8), "scale": draw(2, 8)}
    params["w2"] = draw(3, 8, 2)
    x = draw(4, 5, 3)
    graph = trace_channels(function, params, x)
    left = np.arange(8) < 4
    masks = {name: np.asarray(True) for name in params}
    filters = {**masks, "w1": np.broadcast_to(left, (3, 8))}
    with pytest.raises(
        ValueError, match=r"channels \[4, 5, 6, 7\] of group 'w1:1' keep"
    ):
        graph.compact(filters, params)
    small = graph.compact(filters, params, unread=True)
    want = graph.masked({"w1:1": left})(params, x)
    np.testing.assert_allclose(small.apply_fn(small.trees[0], x), want, rtol=1e-5)
    # Nothing is left of a channel: its mean and its scale are masked too.
    every = {**filters, "mean": left, "scale": left}
    readers = {**masks, "w2": np.broadcast_to(left[:, None], (8, 2))}
    for silent in (every, readers):
        pruned = apply_masks(params, silent)
        small = graph.compact(silent, pruned)
        np.testing.assert_allclose(
            small.apply_fn(small.trees[0], x), function(pruned, x), rtol=1e-5
        )


def test_factored_statistics_are_refused():
    variables, _, graph, masks = small_case()
    state = optax.adafactor(1e-2, min_dim_size_to_factor=4).init(variables["params"])
    with pytest.raises(ValueError, match="adafactor"):
        graph.compact(masks, state)


def test_parameters_of_the_old_size_are_refused():
    variables, x, graph, masks = small_case()
    small = graph.compact(masks, variables)
    with pytest.raises(ValueError, match=r"'batch_stats/mean' .*shape \(3,\)"):
        small.apply_fn(variables, x)


def test_inputs_that_do_not_fit_the_parameters_are_refused():
    variables, _, graph, masks = small_case()
    small = graph.compact(masks, variables)
    with pytest.raises(TypeError, match=r"\(150,\) and \(96,\)"):
        small.apply_fn(small.trees[0], architectures.images(5))


def test_masking_is_no_change_where_nothing_is_removed():
    variables, x, graph, _ = small_case()
    unread = apply_masks(variables, consumer_masks(graph, variables, {}))
    np.testing.assert_array_equal(network(unread, x), network(variables, x))
