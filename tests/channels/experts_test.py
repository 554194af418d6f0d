"""Experts go with their logits: routers, dispatch, what must stay."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprune import costs, methods
from jaxprune.base import Limit
from jaxprune.channels import (
    channel_counts,
    consumer_masks,
    filter_norms,
    important_channels,
    live_channels,
    plan_gates,
    random_channel_masks,
    round_to_limits,
    trace_channels,
    uniform_ratio,
)
from tests.support import experts
from tests.support.channel_checks import (
    as_dtype,
    check,
    cut,
    quick_jit,
    relative_difference,
)
from tests.support.rows import rows
from tests.support.transformers import drawn

NETWORKS = experts.networks()
CHOSEN = {"qwen_renormalised": 3, "switch": 1, "deepseek": 3}
CLOSED = (1, 4)
STAY = np.array([True, False, True, True, False, True])


@pytest.fixture(autouse=True)
def _ranks():
    """Networks of others promote ranks: scales of norms are vectors."""
    with jax.numpy_rank_promotion("allow"):
        yield


@functools.cache
def network(name):
    return NETWORKS[name]()


def graph_of(architecture, norms="dense-count"):
    function, variables, inputs = architecture
    return trace_channels(function, variables, *inputs, norms=norms)


def without_experts(graph):
    return dict.fromkeys(graph.roles["experts"], STAY)


@pytest.mark.parametrize("name", rows(list(NETWORKS), ["mixtral", "switch"]))
def test_networks_without_experts_have_logits_of_minus_infinity(name):
    with jax.enable_x64(True):
        function, variables, inputs = as_dtype(network(name), jnp.float64)
        graph = graph_of((function, variables, inputs), "pinned")
        masks = without_experts(graph)
        closed = NETWORKS[name](closed=CLOSED).apply_fn

        def everything(variables):
            small = graph.compact(masks, variables)
            outs = small.apply_fn(small.trees[0], *inputs), closed(variables, *inputs)
            return *outs, graph.masked(masks)(variables, *inputs)

        mine, want, masked = quick_jit(everything)(variables)
        assert relative_difference(function(variables, *inputs), want) > 1e-3
        assert relative_difference(mine, want) < 1e-12
        assert relative_difference(masked, want) < 1e-12


@pytest.mark.parametrize("name", rows(list(NETWORKS), ["switch"]))
def test_compact_equals_masked_with_all_groups(name):
    with jax.enable_x64(True):
        architecture = as_dtype(network(name), jnp.float64)
        graph = graph_of(architecture)
        assert not graph.unknown
        masks = random_channel_masks(jax.random.key(1), graph, 0.5)
        check(architecture, graph, masks, jnp.float64, 1e-12)
        check_gradients(architecture, graph, masks, 1e-12)


@pytest.mark.parametrize("name", rows(list(NETWORKS), ["deepseek"]))
def test_compact_equals_masked_in_single_precision(name):
    architecture = network(name)
    graph = graph_of(architecture)
    masks = random_channel_masks(jax.random.key(2), graph, 0.7)
    check(architecture, graph, masks, jnp.float32, 1e-5)
    check_gradients(architecture, graph, masks, 1e-5)


def check_gradients(architecture, graph, masks, tolerance):
    _, variables, inputs = architecture
    small = graph.compact(masks, variables)

    def loss(apply_fn):
        return lambda tree: jnp.mean(jnp.square(apply_fn(tree, *inputs) - 0.3))

    got = quick_jit(jax.grad(loss(small.apply_fn)))(small.trees[0])
    want = quick_jit(jax.grad(loss(graph.masked(masks))))(variables)
    want = cut(want, small.kept)
    largest = max(np.abs(g).max() for g in jax.tree.leaves(want))
    assert largest > 1e-4
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance * largest)


@pytest.mark.parametrize("name", NETWORKS)
def test_groups_of_experts_know_how_many_are_chosen(name):
    graph = graph_of(network(name))
    found = [graph.groups[n] for n in graph.roles["experts"]]
    assert {(g.size, g.fewest) for g in found} == {(6, CHOSEN.get(name, 2))}
    assert all(g.fewest == 1 for g in graph.groups.values() if g not in found)


def test_an_expert_is_its_column_and_its_slices():
    graph = graph_of(network("switch"))
    (name,) = graph.roles["experts"]
    places = {(m.leaf, m.axis) for m in graph.groups[name].members}
    assert places == {("router", 1), ("bias", 0), ("wi", 0), ("wo", 0)}
    assert {m.leaf for m in graph.groups[name].makers} == {"router", "bias", "wi", "wo"}


# What must stay.


def test_as_many_experts_stay_as_are_chosen():
    graph = graph_of(network("deepseek"))
    (name,) = graph.roles["experts"]
    assert channel_counts(graph, 0.1)[name] == 3
    assert channel_counts(graph, 0.1, multiple_of=2)[name] == 4
    assert channel_counts(graph, 1.0, fixed={"experts": 0.2})[name] == 3
    mask = np.arange(6) < 2
    with pytest.raises(ValueError, match="at least 3 experts"):
        graph.compact({name: mask})
    with pytest.raises(ValueError, match="from 3 to 6"):
        important_channels(graph, {name: np.arange(6.0)}, {name: 2})


@pytest.mark.parametrize("most", [0.75, 0.6])
def test_allocation_respects_the_minimum(most):
    graph = graph_of(network("mixtral"))
    limit = Limit(costs.parameters(graph), most)
    ratio = uniform_ratio(graph, limit)
    counts = round_to_limits(graph, dict.fromkeys(graph.groups, ratio), limit)
    ratios = {n: count / graph.groups[n].size for n, count in counts.items()}
    assert 0.9 * most < limit.cost(ratios) <= most * (1 + 1e-9)
    assert all(counts[n] >= 2 for n in graph.roles["experts"])
    counts = round_to_limits(graph, {"experts": 0.0, "mlp": 1.0}, limit)
    assert all(counts[n] >= 2 for n in graph.roles["experts"])


def test_no_mask_of_parameters_makes_a_logit_minus_infinity():
    architecture = network("switch")
    graph = graph_of(architecture, "pinned")
    with pytest.raises(ValueError, match="leave experts out"):
        plan_gates(graph)
    with pytest.raises(ValueError, match="minus infinity"):
        consumer_masks(graph, architecture.variables, without_experts(graph))
    plan = plan_gates(graph, graph.roles["mlp"])
    assert plan.sizes == {"wi:2": 6}
    assert methods.dsa(graph, fixed={"experts": 1.0}).fixed == {"router:1": 1.0}
    zero = jax.tree.map(jnp.zeros_like, architecture.variables)
    assert live_channels(graph, zero)["router:1"].all()


def test_the_least_important_expert_goes():
    architecture = network("switch")
    graph, variables = graph_of(architecture, "pinned"), dict(architecture.variables)
    variables["wo"] = variables["wo"].at[2].multiply(1e-3)
    variables["wi"] = variables["wi"].at[2].multiply(1e-3)
    scores = filter_norms(graph)(variables)
    counts = channel_counts(graph, {"experts": 0.99})
    mask = important_channels(graph, scores, counts)["router:1"]
    assert np.flatnonzero(~np.asarray(mask)).tolist() == [2]


@pytest.mark.parametrize("name", ["switch", "deepseek"])
def test_compacting_twice_is_compacting_with_both_masks(name):
    _, variables, inputs = network(name)
    graph = graph_of(network(name), "pinned")
    (group,) = graph.roles["experts"]
    first = graph.compact({group: np.arange(6) != 1}, variables)
    again = trace_channels(first.apply_fn, first.trees[0], *inputs)
    (group,) = again.roles["experts"]
    assert (again.groups[group].size, again.groups[group].fewest) == (
        5,
        graph.groups[group].fewest,
    )
    second = again.compact({group: np.arange(5) != 3}, first.trees[0])
    both = graph.compact({group: STAY}, variables)
    got = second.apply_fn(second.trees[0], *inputs)
    assert relative_difference(got, both.apply_fn(both.trees[0], *inputs)) < 1e-6
    masked = again.masked({group: np.arange(5) != 3})(first.trees[0], *inputs)
    assert relative_difference(got, masked) < 1e-6


# Other routers, in plain JAX.

SHAPES = {"router": (4, 6), "wi": (6, 4, 5), "wo": (6, 5, 4)}


def mixed(p, x, combine):
    hidden = jax.nn.silu(jnp.einsum("td,edf->tef", x, p["wi"]))
    return jnp.einsum("tef,efd,te->td", hidden, p["wo"], combine)


def thresholded(p, x):
    """Without numbers: those that are at least the second largest."""
    scores = jax.nn.softmax(x @ p["router"])
    second = jax.lax.top_k(scores, 2)[0][:, -1:]
    return mixed(p, x, jnp.where(scores >= second, scores, 0))


def grouped(p, x):
    """Groups of experts first, then experts of these."""
    scores = jax.nn.sigmoid(x @ p["router"])
    _, groups = jax.lax.top_k(scores.reshape(-1, 3, 2).max(-1), 2)
    open_ = jnp.repeat(jax.nn.one_hot(groups, 3).sum(1), 2, axis=-1)
    weights, chosen = jax.lax.top_k(jnp.where(open_ > 0, scores, 0.0), 2)
    return mixed(p, x, (jax.nn.one_hot(chosen, 6) * weights[..., None]).sum(1))


def watched(p, x):
    """Returns what was chosen: the numbers are those of the dense network."""
    weights, chosen = jax.lax.top_k(jax.nn.softmax(x @ p["router"]), 2)
    hidden = jnp.einsum("td,tkdf->tkf", x, p["wi"][chosen])
    return jnp.einsum("tkf,tkfd,tk->td", hidden, p["wo"][chosen], weights), chosen


@pytest.mark.parametrize("function", [thresholded, grouped, watched])
def test_other_routers_lose_experts(function):
    params, x = drawn(SHAPES), jax.random.normal(jax.random.key(1), (7, 4))
    graph = trace_channels(function, params, x)
    (name,) = graph.roles["experts"]
    group = graph.groups[name]
    assert group.fewest == 2
    masks = {name: np.arange(group.size) != 1}

    def everything(params):
        small = graph.compact(masks, params)
        outs = small.apply_fn(small.trees[0], x), graph.masked(masks)(params, x)
        return *outs, function(params, x)

    got, want, dense = quick_jit(everything)(params)
    assert relative_difference(got, want) < 1e-6
    assert relative_difference(want, dense) > 1e-3


def looped(p, x):
    weights, chosen = jax.lax.top_k(jax.nn.softmax(x @ p["router"]), 2)
    out = 0
    for e in range(6):
        weight = jnp.where(chosen == e, weights, 0).sum(-1, keepdims=True)
        out += weight * (jax.nn.silu(x @ p["wi"][e]) @ p["wo"][e])
    return out


def predicting(p, x):
    """A classifier that returns its classes is no router."""
    logits = jax.nn.silu(x @ p["wi"][0]) @ p["wo"][0] @ p["router"]
    best = jnp.argmax(logits, axis=-1, keepdims=True)
    score = jnp.take_along_axis(jax.nn.softmax(logits), best, axis=-1)
    return best, score, jax.lax.top_k(logits, 3)


@pytest.mark.parametrize("function", [looped, predicting])
def test_choices_without_stacked_weights_keep_all(function):
    params, x = drawn(SHAPES), jnp.ones((7, 4))
    graph = trace_channels(function, params, x)
    assert "experts" not in graph.roles
    (pin,) = [p for p in graph.pinned if p.leaf == "router" and p.axis == 1]
    assert "stack their weights along one axis" in pin.reason
