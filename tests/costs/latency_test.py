"""Measured latency: the fit, with times that the tests choose."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprune import at_most, costs, dual_ascent
from jaxprune.channels import trace_channels


def network(params, x):
    y = jnp.tanh(x @ params["a"])
    return jnp.tanh(y @ params["b"]) @ params["c"]


def draw():
    shapes = {"a": (5, 16), "b": (16, 32), "c": (32, 3)}
    params = {
        name: jax.random.normal(jax.random.key(i), shape)
        for i, (name, shape) in enumerate(shapes.items())
    }
    x = jnp.ones((4, 5))
    return params, x, trace_channels(network, params, x)


def seconds_of(graph, ratios, constant=1e-5, per_mac=2e-9, per_byte=3e-9):
    macs, moved = costs.macs(graph), costs.bytes_moved(graph)
    return (
        constant
        + per_mac * macs.dense * float(macs(ratios))
        + per_byte * moved.dense * float(moved(ratios))
    )


def measured(graph, number=12, **prices):
    drawn = costs.random_keep_ratios(jax.random.key(0), graph, number)
    return [costs.Measurement(r, seconds_of(graph, r, **prices)) for r in drawn]


def test_the_fit_finds_the_prices_that_made_the_times():
    _, _, graph = draw()
    cost = costs.fit(graph, measured(graph))
    found = cost.constant, cost.per_mac, cost.per_byte
    np.testing.assert_allclose(found, (1e-5, 2e-9, 3e-9), rtol=1e-3)
    ones = dict.fromkeys(graph.groups, jnp.float32(1))
    np.testing.assert_allclose(cost(ones), 1, rtol=1e-6)
    np.testing.assert_allclose(cost.dense, seconds_of(graph, {}), rtol=1e-5)


@pytest.mark.parametrize("price", ["constant", "per_mac", "per_byte"])
def test_prices_are_never_negative(price):
    _, _, graph = draw()
    cost = costs.fit(graph, measured(graph, **{price: -1e-10}))
    assert min(cost.constant, cost.per_mac, cost.per_byte) == 0
    assert cost.dense > 0


def test_the_cost_is_monotone_and_a_budget_takes_it():
    _, _, graph = draw()
    cost = costs.fit(graph, measured(graph))
    ratios = dict.fromkeys(graph.groups, jnp.float32(0.5))
    assert all(grad > 0 for grad in jax.grad(cost)(ratios).values())
    budget = dual_ascent(at_most(cost, 0.4))
    state = budget.update(ratios, budget.init(ratios))
    assert budget.penalty(ratios, state) > 0


def test_compact_networks_of_the_asked_widths_are_timed():
    params, x, graph = draw()
    widths = []

    def timer(functions):
        widths.extend(function().shape for function in functions)
        return [1.0 + i for i in range(len(functions))]

    asked = [{}, {"a:1": 0.5, "b:1": 0.4}]
    found = costs.measure(
        graph, params, x, keep_ratios=asked, multiple_of=8, timer=timer
    )
    assert widths == [(4, 3), (4, 3)]
    assert found == [({"a:1": 1.0, "b:1": 1.0}, 1.0), ({"a:1": 0.5, "b:1": 0.25}, 2.0)]


def test_the_first_widths_drawn_are_those_of_the_dense_network():
    _, _, graph = draw()
    first, *others = costs.random_keep_ratios(
        jax.random.key(0), graph, 5, min_keep_ratio=0.3
    )
    assert set(first.values()) == {1.0}
    assert len(others) == 4
    assert all(0.3 <= ratio < 1 for one in others for ratio in one.values())


def test_functions_are_timed_in_turn():
    order = []
    seconds = costs.interleaved(
        [lambda: order.append("a"), lambda: order.append("b")], repeats=2
    )
    assert order == list("ababab")
    assert all(0 < s < 1 for s in seconds)


def test_times_that_do_not_fall_with_the_work_are_refused():
    _, _, graph = draw()
    for seconds in ([1.0] * 12, np.linspace(2, 1, 12)[::-1]):
        drawn = costs.random_keep_ratios(jax.random.key(0), graph, 12)
        drawn = sorted(drawn, key=lambda r: -costs.macs(graph)(r))
        pairs = zip(drawn, np.array(seconds).tolist(), strict=True)
        given = [costs.Measurement(*pair) for pair in pairs]
        with pytest.raises(ValueError, match="do not fall with the work"):
            costs.fit(graph, given)


def test_a_fit_says_how_good_it_is():
    _, _, graph = draw()
    assert costs.fit(graph, measured(graph)).r2 == pytest.approx(1)


@pytest.mark.parametrize("seconds", [[1.0, 2.0], [1.0, 2.0, 0.0], [1.0, np.nan, 2.0]])
def test_too_few_or_impossible_times_are_refused(seconds):
    _, _, graph = draw()
    few = [costs.Measurement({}, s) for s in seconds]
    with pytest.raises(ValueError, match="at least three measurements"):
        costs.fit(graph, few)
