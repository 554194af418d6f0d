"""How many channels stay, and which."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxprune
from jaxprune import costs
from jaxprune.base import Limit
from jaxprune.channels import (
    channel_counts,
    important_channels,
    largest_channels,
    random_channel_masks,
    round_to_limits,
    trace_channels,
    uniform_ratio,
)

SIZES = {"a": 40, "b": 6, "c": 300}


def chain(params, x):
    for name in SIZES:
        x = jnp.tanh(x @ params[name])
    return x @ params["out"]


def draw():
    sizes, params, before = SIZES | {"out": 2}, {}, 3
    for i, (name, size) in enumerate(sizes.items()):
        params[name] = jax.random.normal(jax.random.key(i), (before, size))
        before = size
    return params, trace_channels(chain, params, jnp.ones((1, 3)))


def counts(keep_ratio, **options):
    _, graph = draw()
    found = channel_counts(graph, keep_ratio, **options)
    return [found[f"{name}:1"] for name in SIZES]


@pytest.mark.parametrize(
    ("ratio", "multiple_of", "expected"),
    [
        (0.5, 1, [20, 3, 150]),
        (0.5, 8, [16, 6, 144]),  # Six channels are less than one multiple.
        (0.5, 16, [16, 6, 144]),
        (0.5, 128, [40, 6, 128]),
        (0.99, 8, [32, 6, 296]),
        (0.01, 8, [8, 6, 8]),
        (0.001, 1, [1, 1, 1]),
        (1.0, 16, [40, 6, 300]),
    ],
)
def test_counts_are_rounded_down_to_multiples(ratio, multiple_of, expected):
    assert counts(ratio, multiple_of=multiple_of) == expected


def test_groups_without_a_ratio_stay_whole():
    assert counts({"a:1": 0.5, "c:1": np.float32(0.29)}) == [20, 6, 87]


def test_masks_have_these_counts_and_hold_the_budget():
    params, graph = draw()
    ratios = {"a:1": 0.7, "b:1": 1.0, "c:1": 0.33}
    expected = channel_counts(graph, ratios, multiple_of=8)
    cost = costs.macs(graph)
    for masks in (
        largest_channels(graph, params, ratios, multiple_of=8),
        random_channel_masks(jax.random.key(0), graph, ratios, multiple_of=8),
    ):
        assert {name: int(mask.sum()) for name, mask in masks.items()} == expected
        kept = {name: jnp.float32(mask.mean()) for name, mask in masks.items()}
        assert cost(kept) <= cost({n: jnp.float32(r) for n, r in ratios.items()})


def test_the_largest_channels_stay():
    params, graph = draw()
    mask = largest_channels(graph, params, 0.25, multiple_of=8)["a:1"]
    norms = np.square(params["a"]).sum(0)
    assert norms[mask].min() > norms[~mask].max()
    assert mask.sum() == 8


@pytest.mark.parametrize("multiple_of", [0, -8, 1.5, True])
def test_multiples_are_whole_numbers(multiple_of):
    with pytest.raises(ValueError, match=r"multiple_of=.*\)`: must be a whole"):
        counts(0.5, multiple_of=multiple_of)


def test_ratios_of_unknown_groups_are_refused():
    with pytest.raises(ValueError, match=r"'x' must be the name of a group.*'a:1'"):
        counts({"x": 0.5})


@pytest.mark.parametrize("ratio", [0.0, 1.5])
def test_ratios_are_fractions(ratio):
    with pytest.raises(ValueError, match="must be in"):
        counts({"a:1": ratio})


def test_a_ratio_of_whole_channels_gives_them_back():
    params = {"w1": jnp.ones((3, 51)), "w2": jnp.ones((51, 2))}
    mlp = lambda params, x: jnp.tanh(x @ params["w1"]) @ params["w2"]
    graph = trace_channels(mlp, params, jnp.ones((1, 3)))
    for count in range(1, 52):
        found = channel_counts(graph, count / 51)
        assert found == {"w1:1": count}


# Multiples are those of rows.


def attention(fused):
    """Four heads of 16 features, projected by kernels of two axes or of three."""

    def function(p, x):
        heads = lambda name: (
            (x @ p[name]).reshape(*x.shape[:2], 4, 16)
            if fused
            else jnp.einsum("btd,dhf->bthf", x, p[name])
        )
        scores = jnp.einsum("bqhf,bkhf->bhqk", heads("q"), heads("k"))
        mixed = jnp.einsum("bhqk,bkhf->bqhf", jax.nn.softmax(scores), heads("v"))
        if fused:
            return mixed.reshape(*x.shape[:2], 64) @ p["out"]
        return jnp.einsum("bqhf,hfd->bqd", mixed, p["out"])

    shape, back = ((5, 64), (64, 5)) if fused else ((5, 4, 16), (4, 16, 5))
    params = {name: jnp.ones(shape) for name in "qkv"} | {"out": jnp.ones(back)}
    return trace_channels(function, params, jnp.ones((1, 3, 5)))


@pytest.mark.parametrize("fused", [True, False])
def test_a_head_counts_as_the_rows_of_its_features(fused):
    graph = attention(fused)
    sizes = {name: group.size for name, group in graph.groups.items()}
    heads = [name for name, size in sizes.items() if size == 4]
    assert len(heads) == 1
    found = channel_counts(graph, 0.5, multiple_of=8)
    assert found[heads[0]] == 2
    assert {found[name] for name in sizes if name not in heads} == {8}
    wide = channel_counts(graph, 0.5, multiple_of=32)
    assert wide[heads[0]] == 2
    assert {wide[name] for name in sizes if name not in heads} == {16}


def test_a_block_of_a_group_normalisation_counts_as_its_channels():
    def function(p, x):
        h = (x @ p["w1"]).reshape(-1, 4, 8)
        h = h / jnp.sqrt(jnp.mean(h**2, axis=2, keepdims=True))
        return jax.nn.relu(h.reshape(-1, 32)) @ p["w2"]

    params = {"w1": jnp.ones((3, 32)), "w2": jnp.ones((32, 2))}
    graph = trace_channels(function, params, jnp.ones((2, 3)))
    (name,) = graph.groups
    assert graph.groups[name].size == 4
    assert channel_counts(graph, 0.5, multiple_of=8) == {name: 2}
    assert channel_counts(graph, 0.5, multiple_of=16) == {name: 2}
    assert channel_counts(graph, 0.9, multiple_of=16) == {name: 2}
    limit = Limit(costs.macs(graph), 0.8)
    assert round_to_limits(graph, {}, limit, multiple_of=8) == {name: 3}
    assert round_to_limits(graph, {}, limit, multiple_of=16) == {name: 2}


def _beside(*more):
    """Four blocks of eight rows, read by one weight beside six other channels.

    Args:
      *more: functions of the blocks, shape (1, 4, 8), whose results of shape (1, n)
        the weight reads as well.
    """

    def function(p, x):
        blocks = (x @ p["w1"]).reshape(-1, 4, 8)
        blocks = blocks / jnp.sqrt(jnp.mean(blocks**2, axis=2, keepdims=True))
        others = jax.nn.relu(x @ p["w2"])
        beside = [jax.nn.relu(blocks.reshape(-1, 32)), *(f(blocks) for f in more)]
        return jnp.concatenate([*beside, others], axis=1) @ p["out"]

    width = 38 + sum(f(jnp.ones((1, 4, 8))).shape[1] for f in more)
    shapes = {"w1": (3, 32), "w2": (3, 6), "out": (width, 2)}
    params = {name: jnp.ones(shape) for name, shape in shapes.items()}
    return trace_channels(function, params, jnp.ones((1, 3)))


def test_rows_of_other_groups_beside_a_block_are_none_of_its_rows():
    graph = _beside()
    sizes = {name: group.size for name, group in graph.groups.items()}
    assert sorted(sizes.values()) == [4, 6]
    found = channel_counts(graph, 0.5, multiple_of=16)
    # Two blocks are 16 rows; six channels are less than 16.
    assert {sizes[name]: count for name, count in found.items()} == {4: 2, 6: 6}


def test_of_several_runs_of_rows_of_a_channel_the_shortest_counts():
    graph = _beside(lambda blocks: jnp.max(blocks, axis=2))
    sizes = {name: group.size for name, group in graph.groups.items()}
    found = channel_counts(graph, 0.5, multiple_of=4)
    # Of eight rows any number of blocks is right, of one row four blocks are.
    assert {sizes[name]: count for name, count in found.items()} == {4: 4, 6: 4}


# Ratios of single groups.


def test_groups_are_excluded_by_pattern_everywhere():
    params, graph = draw()
    fixed = {"a*": 1.0, "b:1": 0.5}
    assert channel_counts(graph, 0.1, fixed=fixed) == {"a:1": 40, "b:1": 3, "c:1": 30}
    for masks in (
        largest_channels(graph, params, 0.1, fixed=fixed),
        random_channel_masks(jax.random.key(0), graph, 0.1, fixed=fixed),
    ):
        assert [int(m.sum()) for m in masks.values()] == [40, 3, 30]
    macs = costs.macs(graph)
    ratio = uniform_ratio(graph, Limit(macs, 0.5), fixed=fixed)
    full = {"a:1": 1.0, "b:1": 0.5, "c:1": ratio}
    assert macs(full) <= 0.5 < macs({**full, "c:1": ratio + 0.01})
    counts = round_to_limits(graph, {}, Limit(macs, 0.5), fixed=fixed)
    assert (counts["a:1"], counts["b:1"]) == (40, 3)
    at = lambda counts: macs({n: c / graph.groups[n].size for n, c in counts.items()})
    assert at(counts) <= 0.5 < at({**counts, "c:1": counts["c:1"] + 1})
    # The first pattern that matches counts.
    assert channel_counts(graph, 1.0, fixed={"c:1": 0.1, "*": 0.5})["c:1"] == 30


@pytest.mark.parametrize("ratio", [0.0, 1.5, "half", float("nan")])
def test_a_fixed_ratio_is_a_fraction(ratio):
    _, graph = draw()
    with pytest.raises(ValueError, match=r"uniform_ratio\(fixed=\{'a:1': .*\(0, 1\]"):
        uniform_ratio(graph, Limit(costs.macs(graph), 0.5), fixed={"a:1": ratio})
    with pytest.raises(ValueError, match=r"largest_channels\(fixed=.*'d\*'.*no"):
        largest_channels(graph, {}, 0.5, fixed={"d*": 0.5})


def test_what_still_fits_is_added_where_most_is_missing_of_the_target():
    sizes = {"a": 8, "b": 5, "c": 6}
    params, before = {}, 3
    for name, size in (sizes | {"out": 2}).items():
        params[name], before = jnp.ones((before, size)), size

    def function(params, x):
        for name in sizes:
            x = jnp.tanh(x @ params[name])
        return x @ params["out"]

    graph = trace_channels(function, params, jnp.ones((1, 3)))
    # A channel of `a` costs ten, others one. Rounded down by the factor 0.6 four, three
    # and three stay, and the next to come is a fifth of `a`: too much by nine.
    cost = lambda k: (80 * k["a:1"] + 5 * k["b:1"] + 6 * k["c:1"]) / 91
    limit = Limit(cost, (10 * 4 + 3 + 3 + 1) / 91)
    # There is room for one: half of `c` is kept, and three fifths of `b`.
    assert round_to_limits(graph, {}, limit) == {"a:1": 4, "b:1": 3, "c:1": 4}
    # With a target of three of `c` five, three and two stay, by a factor below 3/4: of
    # `c` a third of all, but two thirds of its target.
    wanted, limit = {"c:1": 0.5}, Limit(cost, (10 * 5 + 3 + 2 + 1) / 91)
    assert round_to_limits(graph, wanted, limit) == {"a:1": 5, "b:1": 4, "c:1": 2}
    # Targets may be exceeded by one factor, here 3/4 of 8, 5 and 3 rounded down.
    limit = Limit(cost, (10 * 6 + 3 + 2) / 91)
    assert round_to_limits(graph, wanted, limit) == {"a:1": 6, "b:1": 3, "c:1": 2}


def test_a_group_with_a_target_of_zero_gets_what_the_others_leave():
    _, graph = draw()
    cost = lambda k: (40 * k["a:1"] + 6 * k["b:1"] + 300 * k["c:1"]) / 346
    for room, want in ((1 + 3 + 150, (1, 3, 150)), (5 + 6 + 300, (5, 6, 300))):
        found = round_to_limits(graph, {"a:1": 0.0}, Limit(cost, room / 346))
        assert tuple(found.values()) == want
    nothing = dict.fromkeys(graph.groups, 0.0)
    assert round_to_limits(graph, nothing, Limit(cost, 1.0)) == {
        "a:1": 40,
        "b:1": 6,
        "c:1": 300,
    }


def test_a_limit_must_be_a_number_that_can_be_met():
    _, graph = draw()
    macs = costs.macs(graph)
    limits = {
        "between": (ValueError, Limit(macs, 1e-9)),
        "schedule": (TypeError, Limit(macs, lambda step: 0.5)),
        "must be a `Limit`": (TypeError, [(macs, 0.5)]),
    }
    for message, (kind, limit) in limits.items():
        for call in (round_to_limits, uniform_ratio):
            options = (graph, {}, limit) if call is round_to_limits else (graph, limit)
            with pytest.raises(kind, match=f"{call.__name__}.*{message}"):
                call(*options)
    array = Limit(macs, jnp.float32(0.5))
    assert uniform_ratio(graph, array) == uniform_ratio(graph, Limit(macs, 0.5))


# Counts and importances to masks.


def test_the_most_important_channels_stay_ties_by_position():
    _, graph = draw()
    scores = {"b:1": jnp.array([1, 3, 2, 3, 0, 3]), "c:1": np.arange(300)}
    masks = important_channels(graph, scores, {"b:1": 2, "c:1": np.int64(1)})
    assert masks["b:1"].tolist() == [False, True, False, True, False, False]
    assert np.flatnonzero(masks["c:1"]).tolist() == [299]
    assert "a:1" not in masks
    traced = jax.jit(lambda s, n: important_channels(graph, s, n))
    both = traced({"b:1": scores["b:1"]}, {"b:1": jnp.int32(2)})
    np.testing.assert_array_equal(both["b:1"], masks["b:1"])


@pytest.mark.parametrize(
    ("scores", "counts", "message"),
    [
        ({"b:1": np.ones(6)}, {"x": 1}, "'x' must be the name of a group"),
        ({"x": np.ones(6)}, {}, "'x' must be the name of a group"),
        ({}, {"b:1": 1}, r"'b:1' must have shape \(6,\).*None"),
        ({"b:1": np.ones(5)}, {"b:1": 1}, r"shape \(6,\).*\(5,\)"),
        ({"b:1": np.full(6, np.nan)}, {"b:1": 1}, r"'b:1' are NaN at channels \[0"),
        ({"b:1": np.ones(6)}, {"b:1": 0}, "from 1 to 6, got 0"),
        ({"b:1": np.ones(6)}, {"b:1": 7}, "from 1 to 6, got 7"),
        ({"b:1": np.ones(6)}, {"b:1": 2.5}, "whole number from 1 to 6, got 2.5"),
    ],
)
def test_scores_and_counts_that_do_not_fit_are_refused(scores, counts, message):
    _, graph = draw()
    with pytest.raises(ValueError, match=rf"`important_channels.*{message}"):
        important_channels(graph, scores, counts)


def test_a_weight_that_is_not_a_number_is_refused():
    params, graph = draw()
    params["b"] = params["b"].at[0, 3].set(jnp.nan)
    with pytest.raises(ValueError, match=r"largest_channels.*'b:1' are NaN.*\[3\]"):
        largest_channels(graph, params, 0.5)


def test_a_graph_without_groups_is_refused_by_every_choice():
    def function(p, x):
        h = jax.nn.relu(x @ p["a"])
        return h @ p["b"], {"features": h}

    params = {"a": jnp.ones((4, 16)), "b": jnp.ones((16, 2))}
    graph = trace_channels(function, params, jnp.ones((1, 4)))
    limit = Limit(costs.parameters(graph), 0.5)
    calls = {
        "channel_counts": lambda: channel_counts(graph, 0.5),
        "largest_channels": lambda: largest_channels(graph, params, 0.5),
        "random_channel_masks": lambda: random_channel_masks(
            jax.random.key(0), graph, 0.5
        ),
        "important_channels": lambda: important_channels(graph, {}, {}),
        "round_to_limits": lambda: round_to_limits(graph, {}, limit),
        "uniform_ratio": lambda: uniform_ratio(graph, limit),
        "dsa": lambda: jaxprune.dsa(graph),
        "compact": lambda: graph.compact(jaxprune.nonzero_masks(params), params),
        "masked": lambda: graph.masked(jaxprune.nonzero_masks(params)),
    }
    for name, call in calls.items():
        with pytest.raises(ValueError, match=rf"`{name}\(graph\)`.*`print\(graph\)`"):
            call()


@pytest.mark.parametrize("ratio", [0.0, 1.5, float("nan"), True, "x", None])
def test_a_ratio_is_refused_with_the_name_of_the_function(ratio):
    _, graph = draw()
    with pytest.raises(ValueError, match=r"^`channel_counts\(keep_ratio=.*in \(0, 1\]"):
        channel_counts(graph, dict.fromkeys(graph.groups, ratio))


def test_limits_and_ratios_that_are_traced_are_refused_with_advice():
    _, graph = draw()

    def ratio(bound):
        return uniform_ratio(graph, Limit(costs.macs(graph), bound))

    def counts(ratio):
        limit = Limit(costs.macs(graph), 0.5)
        return round_to_limits(graph, dict.fromkeys(graph.groups, ratio), limit)["a"]

    for function in (ratio, counts):
        with pytest.raises(TypeError, match=r"outside of `jax\.jit`"):
            jax.vmap(function)(jnp.array([0.5, 0.6]))
