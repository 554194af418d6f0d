"""What a user passes by mistake is refused by the function that was called.

The message begins with the call. Each row is a kind of mistake: a number instead of a
graph, a mask of another size, variables of another pruner.
"""

import fractions
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxprune
from jaxprune import channels, costs, io, masks, transforms
from jaxprune.base import Final

PARAMS = {
    "a": {"bias": np.ones((1, 8), np.float32), "kernel": np.ones((4, 8), np.float32)},
    "b": {"kernel": np.ones((8, 2), np.float32)},
}
X = np.ones((2, 4), np.float32)
HALF = np.arange(8) < 4
SGD = optax.sgd(0.1)
KEY = jax.random.key(0)


def apply_fn(params, x):
    hidden = jax.nn.relu(x @ params["a"]["kernel"] + params["a"]["bias"])
    return hidden @ params["b"]["kernel"]


@functools.cache
def _graph():
    return jaxprune.trace_channels(apply_fn, PARAMS, X)


@pytest.fixture(scope="module")
def graph():
    return _graph()


def _group(mask):
    return {"a/kernel:1": mask}


def _pruning():
    limit = jaxprune.at_most(jaxprune.density, 0.5)
    return jaxprune.pruning(jaxprune.ltp(), limit)


def _half_the_macs():
    return jaxprune.at_most(costs.macs(_graph()), 0.5)


def _module():
    return jaxprune.nnx_module(_pruning(), nnx.Linear(2, 2, rngs=nnx.Rngs(0)))


# What the message begins with, and a call that takes a graph.
GRAPHS = {
    "graph.compact(masks)": [
        lambda g: g.compact({"c": HALF}, PARAMS),
        lambda g: g.compact(_group(np.ones(7, bool)), PARAMS),
        lambda g: g.compact(_group(np.arange(8)), PARAMS),
        lambda g: g.compact(_group(np.zeros(8, bool)), PARAMS),
        lambda g: jax.jit(lambda m: g.compact(_group(m), PARAMS).trees[0])(HALF),
    ],
    "graph.masked(masks)": [lambda g: g.masked({"c": HALF})],
    "channel_masks(masks)": [lambda g: channels.channel_masks(g, {"c": HALF})],
    "consumer_masks(masks)": [
        lambda g: channels.consumer_masks(g, PARAMS, {"c": HALF})
    ],
    "apply_fn(params, ...)": [
        lambda g: g.compact(_group(HALF), PARAMS).apply_fn(PARAMS, X)
    ],
    "graph.compact(masks)`: must be masks, got a `Final`": [
        lambda g: g.compact(Final(PARAMS, _group(HALF), None), PARAMS)
    ],
    "random_channel_masks(key=3)": [lambda g: channels.random_channel_masks(3, g, 0.5)],
    "random_channel_masks(key=None)": [
        lambda g: channels.random_channel_masks(None, g, 0.5)
    ],
    "uniform_ratio(limits)": [lambda g: channels.uniform_ratio(g, 3)],
    "filter_norms(graph)(params)": [
        lambda g: channels.filter_norms(g)({"a": np.ones(1)}),
        lambda g: channels.filter_norms(g)(jax.tree.map(lambda x: x[:2], PARAMS)),
    ],
}

# The same without a graph.
OTHERS = {
    "trace_channels(apply_fn=3)": [lambda: jaxprune.trace_channels(3, PARAMS, X)],
    "trace_channels(updated=": [
        lambda: jaxprune.trace_channels(apply_fn, PARAMS, X, updated=("1",))
    ],
    "random_channel_masks(graph)": [
        lambda: channels.random_channel_masks(KEY, PARAMS, 0.5)
    ],
    "macs(graph)": [lambda: costs.macs(PARAMS)],
    "parameters(graph)": [lambda: costs.parameters(PARAMS)],
    "bytes_moved(graph)": [lambda: costs.bytes_moved(PARAMS)],
    "filter_norms(graph)": [lambda: channels.filter_norms(PARAMS)],
    "plan_gates(graph)": [lambda: channels.plan_gates(PARAMS)],
    "live_channels(graph)": [lambda: channels.live_channels(PARAMS, PARAMS)],
    "fold_constants(graph)": [lambda: channels.fold_constants(PARAMS, PARAMS)],
    "dsa(graph)": [lambda: jaxprune.dsa(PARAMS)],
    "ltp(": [
        lambda: jaxprune.ltp().apply(PARAMS, {}),
        lambda: jaxprune.ltp().masks(PARAMS, {"a/kernel": jnp.ones(3)}),
    ],
    "soft_thresholding(": [lambda: jaxprune.soft_thresholding().apply(PARAMS, {})],
    "snip(loss_fn=3)": [lambda: jaxprune.snip(3)],
    "grasp(loss_fn=3)": [lambda: jaxprune.grasp(3)],
    "random_erk(key=3)": [lambda: jaxprune.random_erk(3)],
    "top_k_masks(keep=": [
        lambda: jaxprune.top_k_masks(PARAMS, 10**9),
        lambda: jaxprune.top_k_masks(PARAMS, 2.5),
        lambda: jaxprune.top_k_masks(PARAMS, True),
    ],
    "keep_count(size=-1)": [lambda: masks.keep_count(0.5, -1)],
    "by_name(3)": [lambda: jaxprune.by_name(3)],
    "pruning.optimizer(optimizer=3)": [lambda: _pruning().optimizer(3)],
    "pruning.optimizer(...).init(params)": [
        lambda: _pruning().optimizer(SGD).init(PARAMS)
    ],
    "pruning.init(params)": [
        lambda: _pruning().init(_pruning().init(PARAMS)),
        lambda: jaxprune.pruning(jaxprune.ltp(), _half_the_macs()).init(PARAMS),
    ],
    "pruning(pruner=<function dsa": [lambda: jaxprune.pruning(jaxprune.dsa)],
    "pruning(pruner, Limit(": [
        lambda: jaxprune.pruning(
            jaxprune.dsa(_graph()), jaxprune.at_most(jaxprune.density, 0.5)
        )
    ],
    "nnx_module(pruning, model)": [
        lambda: jaxprune.nnx_module(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), _pruning()),
        lambda: jaxprune.nnx_module(_pruning(), _module()),
    ],
    "follow_threshold(": [
        lambda: transforms.follow_threshold(
            SGD, jaxprune.magnitude(sparsity=0.5), threshold=1.0
        ).init({"params": PARAMS, "variables": {}})
    ],
    "export_program(apply_fn=3)": [lambda: io.export_program(3, PARAMS, X)],
}


@pytest.mark.parametrize("begins", GRAPHS)
def test_messages_of_functions_of_a_graph_begin_with_the_call(begins, graph):
    for call in GRAPHS[begins]:
        with pytest.raises((TypeError, ValueError)) as error:
            call(graph)
        assert str(error.value).startswith(f"`{begins}")


@pytest.mark.parametrize("begins", OTHERS)
def test_messages_begin_with_the_call(begins):
    for call in OTHERS[begins]:
        with pytest.raises((TypeError, ValueError)) as error:
            call()
        assert str(error.value).startswith(f"`{begins}")


def test_a_sparsity_may_be_an_exact_fraction():
    pruner = jaxprune.magnitude(sparsity=fractions.Fraction(1, 3))
    kept = pruner.masks({"kernel": jnp.arange(12.0).reshape(3, 4)}, {})
    assert int(kept["kernel"].sum()) == 8


def test_masks_of_channels_in_the_place_of_masks_of_parameters_are_recognised():
    for call in (jaxprune.freeze_pruned(_group(HALF)).init, _applied):
        with pytest.raises(ValueError, match="consumer_masks"):
            call(PARAMS)


def _applied(params):
    return jaxprune.apply_masks(params, _group(HALF))


def test_an_attribute_of_the_model_is_found_in_the_message():
    with pytest.raises(AttributeError, match=r"`module\.params\.kernel`"):
        _ = _module().kernel
    with pytest.raises(AttributeError, match="no attribute 'kern'"):
        _ = _module().kern
