"""Channels behind norms go, exactly or renormalised."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, PartitionSpec

from jaxprune import costs
from jaxprune.channels import (
    Reason,
    consumer_masks,
    largest_channels,
    live_channels,
    plan_gates,
    random_channel_masks,
    standard_form,
    trace_channels,
)
from tests.support import architectures, transformers
from tests.support.channel_checks import (
    as_dtype,
    check,
    cut,
    quick_jit,
    relative_difference,
)
from tests.support.rows import rows

NETWORKS = transformers.networks()
EXACT, LEFT = "dense-count", "renormalise"
ALL = [(name, norms) for name in NETWORKS for norms in (EXACT, LEFT)]
FEW = [("pre_rms", EXACT), ("post_two_passes", LEFT), ("nnx_layer", EXACT)]
FEW += [("cached", EXACT)]


@pytest.fixture(autouse=True)
def _ranks():
    """Networks of others promote ranks: scales of norms are vectors."""
    with jax.numpy_rank_promotion("allow"):
        yield


def graph_of(architecture, norms="dense-count"):
    function, variables, inputs = architecture
    return trace_channels(function, variables, *inputs, norms=norms)


def loss_of(apply_fn, inputs):
    def loss(variables):
        outs = apply_fn(variables, *inputs)
        outs = outs[0] if isinstance(outs, tuple) else outs
        return jnp.mean(jnp.square(outs - 0.3))

    return loss


def check_gradients(architecture, graph, masks, tolerance):
    _, variables, inputs = architecture
    small = graph.compact(masks, variables)
    got = quick_jit(jax.grad(loss_of(small.apply_fn, inputs)))(small.trees[0])
    want = quick_jit(jax.grad(loss_of(graph.masked(masks), inputs)))(variables)
    want = cut(want, small.kept)
    largest = max(np.abs(g).max() for g in jax.tree.leaves(want))
    assert largest > 1e-4
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance * largest)


@pytest.mark.parametrize("case", rows(ALL, FEW), ids="-".join)
def test_compact_equals_masked_in_double_precision(case):
    name, norms = case
    with jax.enable_x64(True):
        architecture = as_dtype(NETWORKS[name](), jnp.float64)
        graph = graph_of(architecture, norms)
        assert not graph.unknown
        masks = random_channel_masks(jax.random.key(0), graph, 0.6)
        smaller = check(architecture, graph, masks, jnp.float64, 1e-12)
        check_gradients(architecture, graph, masks, 1e-12)
    widths = {leaf.shape[-1] for leaf in jax.tree.leaves(smaller)}
    assert transformers.WIDTH // 2 in widths  # Features of the residual stream went.


@pytest.mark.parametrize("name", rows(NETWORKS, ("linen_rms",)))
def test_compact_equals_masked_in_single_precision(name):
    architecture = NETWORKS[name]()
    graph = graph_of(architecture)
    masks = largest_channels(graph, architecture.variables, 0.7)
    check(architecture, graph, masks, jnp.float32, 1e-5)
    check_gradients(architecture, graph, masks, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["groupnorm_resnet", "convnext", "scanned_transformer"]
)
def test_other_networks_with_norms(name):
    with jax.enable_x64(True):
        architecture = as_dtype(architectures.architectures()[name](), jnp.float64)
        graph = graph_of(architecture)
        masks = random_channel_masks(jax.random.key(3), graph, 0.5)
        check(architecture, graph, masks, jnp.float64, 1e-12)


def test_by_default_norms_pin_their_channels():
    architecture = transformers.decoder("rms")
    graph = trace_channels(*architecture[:2], *architecture.inputs)
    assert graph.norms == "pinned"
    assert "embed:1" not in graph.groups
    pins = {pin.kind for pin in graph.pinned if (pin.leaf, pin.axis) == ("embed", 1)}
    assert pins == {Reason.READ_WHOLE}


def standardised(params, x):
    """A convolution whose kernel has mean 0 and variance 1 over its inputs."""
    y = jnp.einsum("bi,io->bo", x, params["first"])
    w = params["second"]
    w = (w - w.mean(0)) / jnp.sqrt(w.var(0) + 1e-4)
    return jnp.tanh(y) @ w


def test_weight_standardisation_lets_inputs_go():
    params = transformers.drawn({"first": (3, 6), "second": (6, 4)})
    x = jnp.linspace(-1, 1, 6).reshape(2, 3)
    graph = trace_channels(standardised, params, x, norms="dense-count")
    masks = {"first:1": np.array([1, 0, 1, 1, 0, 1], bool)}
    small = graph.compact(masks, params)
    assert small.trees[0]["second"].shape == (4, 4)
    got, want = small.apply_fn(small.trees[0], x), graph.masked(masks)(params, x)
    assert relative_difference(got, want) < 1e-5


def experts(params, x):
    """A sum over all experts, with weights of sum below 1."""
    w = jax.nn.sigmoid(x @ params["router"])
    w = w / (w.sum(-1, keepdims=True) + 1)
    h = jnp.tanh(jnp.einsum("bi,eih->beh", x, params["up"]))
    return jnp.einsum("be,beh,eho->bo", w, h, params["down"])


def test_experts_of_a_sum_go_with_their_weights():
    params = transformers.drawn({"router": (3, 4), "up": (4, 3, 5), "down": (4, 5, 2)})
    x = jnp.linspace(-1, 1, 6).reshape(2, 3)
    graph = trace_channels(experts, params, x, norms="dense-count")
    masks = {"router:1": np.array([True, False, True, True])}
    small = graph.compact(masks, params)
    assert small.trees[0]["up"].shape == (3, 3, 5)
    want = experts(small.trees[0], x)  # The sum of the weights has no count.
    assert relative_difference(graph.masked(masks)(params, x), want) < 1e-6
    assert relative_difference(small.apply_fn(small.trees[0], x), want) < 1e-6


@pytest.mark.parametrize("norms", ["dense-count", "renormalise"])
def test_compacting_twice_is_compacting_with_both_masks(norms):
    architecture = transformers.decoder("two_passes")
    graph = graph_of(architecture, norms)
    once = graph.compact({"embed:1": np.arange(8) < 6}, architecture.variables)
    again = trace_channels(
        once.apply_fn, once.trees[0], *architecture.inputs, norms=norms
    )
    twice = again.compact({"embed:1": np.arange(6) < 4}, once.trees[0])
    got = quick_jit(twice.apply_fn)(twice.trees[0], *architecture.inputs)
    both = graph.masked({"embed:1": np.arange(8) < 4})
    want = quick_jit(both)(architecture.variables, *architecture.inputs)
    assert relative_difference(got, want) < 1e-5


# What can go.


def _floor(graph) -> float:
    least = {name: 1 / group.size for name, group in graph.groups.items()}
    return float(costs.macs(graph)(least))


def llama():
    sizes = transformers.decoder_shapes(128, 256, 320, 8, 4, 16)
    model = transformers.decoder_of(transformers.rms_norm, heads=8, groups=4)
    return model, _abstract(sizes), (_words(32),)


def mamba():
    sizes = transformers.mamba_shapes(128, 256, 8, 16, 256)
    model = functools.partial(transformers.mamba, heads=8, state=16)
    return model, _abstract(sizes), (_words(32),)


def _abstract(shapes):
    return jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s, jnp.float32),
        shapes,
        is_leaf=lambda s: isinstance(s, tuple),
    )


def _words(length):
    return jax.ShapeDtypeStruct((1, length), jnp.int32)


@pytest.mark.parametrize("network", [llama, mamba])
def test_nearly_all_operations_can_go(network):
    function, shapes, inputs = network()
    graph = trace_channels(function, shapes, *inputs, norms="dense-count")
    assert _floor(graph) < 0.05
    assert _floor(trace_channels(function, shapes, *inputs)) > 0.05


# Renormalised networks are those that were written at the smaller width.


def _keeps(graph, widths):
    """Keep the first channels of groups, by size."""
    return {
        name: np.arange(group.size) < widths[group.size]
        for name, group in graph.groups.items()
        if group.size in widths
    }


TWO_PASSES = functools.partial(nn.LayerNorm, use_fast_variance=False)


@pytest.mark.parametrize("norm", rows([nn.LayerNorm, TWO_PASSES], [TWO_PASSES]))
def test_renormalised_linen_is_the_smaller_module(norm):
    architecture = architectures.linen(
        transformers.Decoder(norm, width=20, hidden=12), transformers.tokens()
    )
    graph = graph_of(architecture, "renormalise")
    small = graph.compact(_keeps(graph, {20: 13}), architecture.variables)
    got = quick_jit(small.apply_fn)(small.trees[0], *architecture.inputs)
    module = transformers.Decoder(norm, width=13, hidden=12)
    want = quick_jit(module.apply)(small.trees[0], *architecture.inputs)
    assert relative_difference(got, want) < 1e-6


def test_renormalised_nnx_is_the_smaller_module():
    architecture = transformers.encoder(nnx.LayerNorm, width=20)
    graph = graph_of(architecture, "renormalise")
    small = graph.compact(_keeps(graph, {20: 13}), architecture.variables)
    got = quick_jit(small.apply_fn)(small.trees[0], *architecture.inputs)
    other = nnx.split(transformers.Encoder(nnx.LayerNorm, width=13), nnx.Param)[0]
    want = nnx.merge(other, small.trees[0])(*architecture.inputs)
    assert relative_difference(got, want) < 1e-6


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_divisors_are_what_dense_code_says(ddof, dtype):
    def norm(params, x):
        h = x @ params["w"]
        return (h * jax.lax.rsqrt(h.var(-1, ddof=ddof, keepdims=True))) @ params["v"]

    params = as_dtype(transformers.drawn({"w": (3, 7), "v": (7, 2)}), dtype)
    x = jnp.linspace(-1, 1, 6, dtype=dtype).reshape(2, 3)
    graph = trace_channels(norm, params, x, norms="renormalise")
    small = graph.compact({"w:1": np.arange(7) % 2 == 0}, params)
    np.testing.assert_array_equal(
        small.apply_fn(small.trees[0], x), norm(small.trees[0], x)
    )


def test_a_sum_that_is_divided_by_another_number_keeps_it():
    def network(params, x):
        h = x @ params["w"]
        return h / (h.sum(-1, keepdims=True) / 3 + 9) @ params["v"]

    params = transformers.drawn({"w": (3, 7), "v": (7, 2)})
    x = jnp.ones((2, 3))
    masks = {"w:1": np.arange(7) % 2 == 0}
    got = [
        trace_channels(network, params, x, norms=norms).masked(masks)(params, x)
        for norms in ("dense-count", "renormalise")
    ]
    np.testing.assert_array_equal(*got)


def test_with_an_own_derivative_means_of_what_is_left_are_none():
    @jax.custom_vjp
    def norm(x):
        return x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True))

    norm.defvjp(lambda x: (norm(x), x), lambda x, g: jax.vjp(norm.fun, x)[1](g))
    network = lambda params, x: norm(x @ params["w"]) @ params["v"]
    params = transformers.drawn({"w": (3, 8), "v": (8, 2)})
    architecture = architectures.Architecture(
        network, params, (jnp.linspace(-1, 1, 6).reshape(2, 3),)
    )
    assert not graph_of(architecture, "renormalise").groups
    graph = graph_of(architecture)
    masks = {"w:1": np.arange(8) < 5}
    check(architecture, graph, masks, jnp.float32, 1e-5)
    check_gradients(architecture, graph, masks, 1e-5)


@pytest.mark.parametrize("norms", ["dense-count", "renormalise"])
def test_norms_of_batches_on_several_devices(norms):
    def network(params, x):
        y = transformers.two_passes(x @ params["w"], params["scale"])
        return y @ params["v"]

    params = transformers.drawn({"w": (3, 8), "scale": (8,), "v": (8, 2)})
    x = jax.random.normal(jax.random.key(0), (8, 3))
    graph = trace_channels(network, params, x, norms=norms)
    masks = {"w:1": np.arange(8) % 3 > 0}
    small = graph.compact(masks, params)
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))
    mapped = jax.shard_map(
        small.apply_fn,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec("batch")),
        out_specs=PartitionSpec("batch"),
    )
    got = jax.jit(mapped)(small.trees[0], x)
    assert relative_difference(got, graph.masked(masks)(params, x)) < 1e-5


# Masks of parameters.


def test_where_no_mask_of_parameters_is_exact_gates_are_refused():
    architecture = transformers.decoder("two_passes")
    with pytest.raises(ValueError, match="or sums one, over channels that may go"):
        plan_gates(graph_of(architecture))
    architecture = transformers.decoder("rms")
    with pytest.raises(ValueError, match="whose groups are the same"):
        plan_gates(graph_of(architecture, "renormalise"))


@pytest.mark.parametrize("name", ["pre_rms", "linen_layer"])
def test_zeros_on_both_sides_of_a_norm_are_found(name):
    architecture = NETWORKS[name]()
    graph = graph_of(architecture)
    masks = random_channel_masks(jax.random.key(1), graph, 0.5)
    unread = consumer_masks(graph, architecture.variables, masks)
    small = graph.compact(unread, architecture.variables)
    for group, mask in masks.items():
        np.testing.assert_array_equal(small.masks[group], mask)
    kept = live_channels(graph, architecture.variables)
    assert all(mask.all() for mask in kept.values())


# Standard networks.


def llama_like(eps, width=12, offset=0.0):
    def norm(x, scale):
        return transformers.rms_norm(x, scale + offset, eps)

    shapes = transformers.decoder_shapes(width, hidden=12, features=4)
    return transformers.decoder_of(norm), shapes


@pytest.mark.parametrize("offset", rows([0.0, 1.0], [1.0]))
def test_the_standard_form_is_an_ordinary_smaller_network(offset):
    function, shapes = llama_like(0.01, offset=offset)
    params, x = transformers.drawn(shapes), transformers.tokens()
    graph = trace_channels(function, params, x, norms="dense-count")
    masks = {"embed:1": np.arange(12) % 3 > 0}
    small = standard_form(graph, masks, params)
    want_shapes = jax.tree.map(
        np.shape, transformers.drawn(llama_like(0.01, width=8)[1])
    )
    assert jax.tree.map(np.shape, small.params) == want_shapes
    (eps,) = set(small.epsilons.values())
    assert eps == pytest.approx(0.01 * 12 / 8)
    smaller = llama_like(eps, width=8, offset=offset)[0]
    got = quick_jit(smaller)(small.params, x)
    want = quick_jit(graph.masked(masks))(params, x)
    assert relative_difference(got, want) < 1e-5
    # Not without the factors: that is the distance to a renormalised network.
    plain = graph.compact(masks, params).trees[0]
    assert relative_difference(quick_jit(function)(plain, x), want) > 1e-3


@pytest.mark.parametrize("framework", rows(["linen", "nnx"], ["nnx"]))
def test_the_standard_form_of_modules(framework):
    if framework == "linen":
        norm = lambda eps: functools.partial(nn.RMSNorm, epsilon=eps)
        architecture = architectures.linen(
            transformers.Decoder(norm(0.01), width=12, hidden=10),
            transformers.tokens(),
        )
    else:
        norm = lambda eps: functools.partial(nnx.RMSNorm, epsilon=eps)
        architecture = transformers.encoder(norm(0.01), width=12, hidden=10)
    _, variables, inputs = architecture
    graph = graph_of(architecture)
    (name,) = (n for n, g in graph.groups.items() if g.size == 12)
    masks = {name: np.arange(12) % 4 > 0}
    small = standard_form(graph, masks, variables)
    (eps,) = set(small.epsilons.values())
    if framework == "linen":
        module = transformers.Decoder(norm(eps), width=9, hidden=10)
        got = quick_jit(module.apply)(small.params, *inputs)
    else:
        module = transformers.Encoder(norm(eps), width=9, hidden=10)
        got = nnx.merge(nnx.split(module, nnx.Param)[0], small.params)(*inputs)
    want = quick_jit(graph.masked(masks))(variables, *inputs)
    assert relative_difference(got, want) < 1e-5


def test_what_has_no_standard_form_is_refused():
    architecture = transformers.decoder("one_pass")
    masks = {"embed:1": np.arange(8) < 5}
    with pytest.raises(ValueError, match=r"RMS norm with a scale.*reads its mean"):
        standard_form(graph_of(architecture), masks, architecture.variables)
    with pytest.raises(ValueError, match="traced with `norms='dense-count'`"):
        standard_form(
            graph_of(architecture, "renormalise"), masks, architecture.variables
        )
    bare = lambda p, x: transformers.rms_norm(x @ p["w"], 1.0) @ p["v"]
    params = transformers.drawn({"w": (3, 8), "v": (8, 2)})
    graph = trace_channels(bare, params, jnp.ones((2, 3)), norms="dense-count")
    with pytest.raises(ValueError, match=r"no scale multiplies|reads its factor"):
        standard_form(graph, {"w:1": np.arange(8) < 5}, params)
    # Nothing is refused where no channel of a norm goes.
    assert standard_form(graph_of(architecture), {}, architecture.variables)


def test_norms_are_named():
    with pytest.raises(ValueError, match="norms='exact'"):
        trace_channels(standardised, {"w": jnp.ones(2)}, norms="exact")
