"""Constants of pruned channels move into the biases behind them, exactly or not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprune.channels import fold_constants, live_channels, trace_channels
from tests.support import architectures
from tests.support.channel_checks import quick_jit, relative_difference


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        yield


def draw(x=(2, 4, 4, 3), **shapes):
    """Random parameters and inputs in double precision."""
    rng = np.random.default_rng(0)
    params = {name: jnp.asarray(rng.normal(size=s)) for name, s in shapes.items()}
    return params, jnp.asarray(rng.normal(size=x))


def conv(x, w, padding="SAME"):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, w, (1, 1), padding, dimension_numbers=numbers
    )


def check(function, params, x, removed):
    """Folds, compares, and asserts how many channels of each group can then go."""
    graph = trace_channels(function, params, x)
    before = jax.tree.map(np.array, params)
    folded = fold_constants(graph, params)
    jax.tree.map(np.testing.assert_array_equal, params, before)
    want = function(params, x)
    assert relative_difference(function(folded, x), want) < 1e-12
    live = live_channels(graph, folded)
    assert {n: int((~mask).sum()) for n, mask in live.items()} == removed
    small = graph.compact(live, folded)
    assert relative_difference(small.apply_fn(small.trees[0], x), want) < 1e-12
    return folded


def mlp(p, x, act=jax.nn.relu):
    y = act(x @ p["a"] + p["a_bias"])
    y = act(y @ p["b"] + p["b_bias"])
    return y @ p["c"] + p["c_bias"]


MLP = {
    **{"a": (3, 5), "a_bias": (5,), "b": (5, 6), "b_bias": (6,)},
    **{"c": (6, 2), "c_bias": (2,)},
}


@pytest.mark.parametrize("act", [jax.nn.relu, jnp.tanh, jax.nn.sigmoid, jnp.exp])
def test_dense_layers_absorb_constants_through_any_activation(act):
    params, x = draw((4, 3), **MLP)
    params["a"] = params["a"].at[:, [1, 3]].set(0)
    params["a_bias"] = params["a_bias"].at[1].set(2.5)
    function = lambda p, x: mlp(p, x, act)
    graph = trace_channels(function, params, x)
    alive = {n: int((~m).sum()) for n, m in live_channels(graph, params).items()}
    assert alive == {"a:1": 0, "b:1": 0}
    folded = check(function, params, x, {"a:1": 2, "b:1": 0})
    assert not folded["b"][jnp.array([1, 3])].any()


def test_constants_pass_through_several_layers():
    params, x = draw((4, 3), **MLP)
    params["a"] = params["a"].at[:, 2].set(0)
    # Channel 4 of b reads channel 2 of a alone, so it is constant too.
    params["b"] = params["b"].at[jnp.array([0, 1, 3, 4]), 4].set(0)
    check(lambda p, x: mlp(p, x, jnp.tanh), params, x, {"a:1": 1, "b:1": 1})


def two_convolutions(p, x, padding="SAME"):
    y = jnp.tanh(conv(x, p["a"]) + p["a_bias"])
    return conv(y, p["b"], padding) + p["b_bias"]


@pytest.mark.parametrize(
    ("window", "padding", "removed"),
    [(1, "SAME", 1), (3, "VALID", 1), (3, "SAME", 0), (2, [(1, 0), (0, 0)], 0)],
)
def test_convolutions_absorb_constants_if_nothing_is_padded(window, padding, removed):
    shapes = {"a": (3, 3, 3, 4), "a_bias": (4,), "b_bias": (2,)}
    params, x = draw(**shapes, b=(window, window, 4, 2))
    params["a"] = params["a"].at[..., 2].set(0)
    function = lambda p, x: two_convolutions(p, x, padding)
    folded = check(function, params, x, {"a:3": removed})
    assert (folded["b"][..., 2, :] == 0).all() == bool(removed)


def test_a_channel_that_is_zero_goes_despite_padding():
    shapes = {"a": (3, 3, 3, 4), "a_bias": (4,), "b_bias": (2,), "b": (3, 3, 4, 2)}
    params, x = draw(**shapes)
    params["a"] = params["a"].at[..., 2].set(0)
    params["a_bias"] = params["a_bias"].at[2].set(-1)

    def function(p, x):
        return conv(jax.nn.relu(conv(x, p["a"]) + p["a_bias"]), p["b"]) + p["b_bias"]

    check(function, params, x, {"a:3": 1})


def normalised(p, x, layer):
    y = (x - p[f"{layer}_mean"]) * jax.lax.rsqrt(p[f"{layer}_var"] + 1e-5)
    return y * p[f"{layer}_scale"] + p[f"{layer}_offset"]


def test_the_mean_of_a_normalisation_absorbs_constants():
    vectors = {f"{n}_{k}": (4,) for n in "ab" for k in ("mean", "scale", "offset")}
    params, x = draw(**vectors, a=(3, 3, 3, 4), b=(1, 1, 4, 4), c=(4, 2))
    params |= {"a_var": jnp.full(4, 0.7), "b_var": jnp.full(4, 1.3)}
    params["a"] = params["a"].at[..., 1].set(0)

    def function(p, x):
        y = jax.nn.relu(normalised(p, conv(x, p["a"]), "a"))
        y = jax.nn.relu(normalised(p, conv(y, p["b"]), "b"))
        return y.mean((1, 2)) @ p["c"]

    params["a_offset"] = params["a_offset"].at[1].set(3.0)
    folded = check(function, params, x, {"a:3": 1, "b:3": 0})
    assert (folded["b_mean"] != params["b_mean"]).all()


def test_a_scale_of_zero_makes_a_constant():
    params, x = draw((4, 3), **MLP, scale=(5,))
    params["scale"] = params["scale"].at[0].set(0)

    def function(p, x):
        y = jnp.tanh((x @ p["a"]) * p["scale"] + p["a_bias"])
        y = jnp.tanh(y @ p["b"] + p["b_bias"])
        return y @ p["c"] + p["c_bias"]

    check(function, params, x, {"a:1": 1, "b:1": 0})


def test_statistics_of_a_batch_do_not_absorb():
    params, x = draw((8, 3), **MLP)
    params["a"] = params["a"].at[:, 1].set(0)

    def function(p, x):
        y = jnp.tanh(x @ p["a"] + p["a_bias"]) @ p["b"]
        y = jnp.tanh((y - y.mean(0)) * p["b_bias"])
        return y @ p["c"] + p["c_bias"]

    check(function, params, x, {"a:1": 0, "b:1": 0})


def test_a_residual_stream_is_constant_if_all_that_makes_it_is():
    shapes = {"a": (3, 5), "b": (5, 5), "bias": (5,), "c": (5, 2), "c_bias": (2,)}
    params, x = draw((4, 3), **shapes, b_bias=(5,), e=(5, 5))

    def function(p, x):
        y = x @ p["a"] + p["bias"]
        y = y + jnp.tanh(y @ p["b"] + p["b_bias"]) @ p["e"]
        return y @ p["c"] + p["c_bias"]

    params["a"] = params["a"].at[:, jnp.array([0, 1])].set(0)
    params["e"] = params["e"].at[:, 1].set(0)
    check(function, params, x, {"a:1": 1, "b:1": 0})


def test_what_has_no_bias_or_shares_it_keeps_its_channels():
    params, x = draw((4, 3), **MLP)
    params["a"] = params["a"].at[:, 1].set(0)
    hidden = lambda p, x: jnp.tanh(x @ p["a"] + p["a_bias"])
    no_bias = lambda p, x: hidden(p, x) @ p["b"] @ p["c"]
    nonlinear = lambda p, x: (hidden(p, x) @ p["b"] + jnp.exp(p["b_bias"])) @ p["c"]
    shared = lambda p, x: (
        (hidden(p, x) @ p["b"] + p["b_bias"] * 2 + p["b_bias"]) @ p["c"]
    )
    read_twice = lambda p, x: (lambda y: (y + p["b_bias"]) * y)(hidden(p, x) @ p["b"])
    layer = lambda p, x: hidden(p, x) @ p["b"] + p["b_bias"]
    used_twice = lambda p, x: (layer(p, x) + jnp.tanh(layer(p, 2 * x))) @ p["c"]
    for function in (no_bias, nonlinear, shared, read_twice, used_twice):
        graph = trace_channels(function, params, x)
        folded = fold_constants(graph, params)
        jax.tree.map(np.testing.assert_array_equal, folded, params)
        assert live_channels(graph, folded)["a:1"].all()


def test_layers_of_a_scan_keep_their_channels():
    params, x = draw((4, 3), a=(3, 5), bias=(5,), b=(2, 5, 5), b_bias=(5,), c=(5, 2))
    params["a"] = params["a"].at[:, 1].set(0)
    params["b"] = params["b"].at[:, :, 1].set(0)

    def scanned(p, x):
        step = lambda y, w: (jnp.tanh(y @ w + p["b_bias"]), None)
        return jax.lax.scan(step, jnp.tanh(x @ p["a"] + p["bias"]), p["b"])[0] @ p["c"]

    check(scanned, params, x, {"a:1": 0})


@pytest.mark.parametrize("name", ["mlp", "gpt", "spiking"])
def test_sparse_networks_stay_what_they_are(name):
    function, variables, inputs = architectures.architectures()[name]()
    rng = np.random.default_rng(0)

    def prune(x):
        columns = rng.random(x.shape[-1:]) < (0.4 if x.ndim > 1 else 0.0)
        return jnp.where(columns, 0, x)

    pruned = jax.tree.map(prune, variables)
    graph = trace_channels(function, pruned, *inputs)
    folded = fold_constants(graph, pruned)
    live = live_channels(graph, folded)
    small = graph.compact(live, folded)
    want = quick_jit(function)(pruned, *inputs)
    assert relative_difference(quick_jit(function)(folded, *inputs), want) < 1e-5
    got = quick_jit(small.apply_fn)(small.trees[0], *inputs)
    assert relative_difference(got, want) < 1e-5


def test_other_leaves_are_refused():
    params, x = draw((4, 3), **MLP)
    graph = trace_channels(mlp, params, x)
    with pytest.raises(ValueError, match="leaves that were traced"):
        fold_constants(graph, {"a": params["a"]})
