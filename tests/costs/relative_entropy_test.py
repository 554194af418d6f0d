"""The prior on the densities of layers."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxprune
from jaxprune.costs import relative_entropy

PARAMS = {"a": {"kernel": jnp.ones((20, 30))}, "b": {"kernel": jnp.ones((10, 40))}}


def _log_binomial(n, k):
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def test_differences_are_those_of_the_hypergeometric_distribution():
    cost = relative_entropy(PARAMS)

    def log_probability(k):
        return _log_binomial(600, k) + _log_binomial(400, 100 - k)

    def value(k):
        ratios = {"a/kernel": k / 600, "b/kernel": (100 - k) / 400}
        return float(cost({n: jnp.float32(r) for n, r in ratios.items()}))

    for k in (30, 45, 60, 75, 90):
        want = log_probability(60) - log_probability(k)
        # Stirling's formula leaves the square roots of the variances.
        spread = lambda k: 0.5 * math.log(k * (100 - k) * (600 - k) * (300 + k))
        want -= spread(k) - spread(60)
        assert value(k) == pytest.approx(want, abs=0.02)


def test_it_is_zero_where_all_layers_are_equally_dense():
    for ratio in (0.0, 0.1, 1.0):
        ratios = dict.fromkeys(("a/kernel", "b/kernel"), jnp.float32(ratio))
        assert float(relative_entropy(PARAMS)(ratios)) == pytest.approx(0, abs=1e-4)


def test_the_derivative_is_the_difference_of_log_odds():
    cost = relative_entropy(PARAMS)
    ratios = {"a/kernel": jnp.float32(0.3), "b/kernel": jnp.float32(0.05)}
    slopes = jax.grad(cost)(ratios)
    odds = lambda p: math.log(p / (1 - p))
    for name, size, ratio in (("a/kernel", 600, 0.3), ("b/kernel", 400, 0.05)):
        want = size * (odds(ratio) - odds(0.2))
        assert float(slopes[name]) == pytest.approx(want, rel=1e-4)


@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0), (0.0, 0.5)])
def test_derivatives_are_finite_where_layers_are_empty_or_whole(ends):
    ratios = dict(zip(("a/kernel", "b/kernel"), map(jnp.float32, ends), strict=True))
    assert np.isfinite(float(relative_entropy(PARAMS)(ratios)))
    slopes = jax.grad(relative_entropy(PARAMS))(ratios)
    assert all(np.isfinite(float(x)) for x in slopes.values())


def test_the_derivative_of_an_empty_layer_has_the_logarithm_of_half_a_weight():
    ratios = {"a/kernel": jnp.float32(0), "b/kernel": jnp.float32(0.5)}
    slopes = jax.grad(relative_entropy(PARAMS))(ratios)
    # k_l log(k_l / k) without the derivative of the logarithm, which is held.
    want = 600 * (math.log(0.5 / 600) - math.log(0.2 / 0.8) - 1)
    assert float(slopes["a/kernel"]) == pytest.approx(want, rel=1e-5)
    where = jaxprune.selection(stacked="*")
    params = {"kernel": jnp.ones((3, 20, 10))}
    slopes = jax.grad(relative_entropy(params, where))(
        {"kernel": jnp.array([0.0, 0.2, 0.4])}
    )
    want = 200 * (math.log(0.5 / 200) - math.log(0.2 / 0.8) - 1)
    assert float(slopes["kernel"][0]) == pytest.approx(want, rel=1e-5)


def test_stacked_layers_count_one_by_one():
    where = jaxprune.selection(stacked="blocks/*")
    stacked = relative_entropy({"blocks": {"kernel": jnp.ones((2, 20, 20))}}, where)
    flat = relative_entropy({n: {"kernel": jnp.ones((20, 20))} for n in "ab"})
    got = stacked({"blocks/kernel": jnp.array([0.3, 0.1])})
    want = flat({"a/kernel": jnp.float32(0.3), "b/kernel": jnp.float32(0.1)})
    assert float(got) == pytest.approx(float(want), rel=1e-5)


def test_other_sites_are_refused():
    with pytest.raises(ValueError, match=r"b/kernel.*a/kernel"):
        relative_entropy(PARAMS)({"a/kernel": jnp.float32(1)})


def test_the_weights_of_a_group_of_channels_are_those_that_it_touches():
    def mlp(params, x):
        return jnp.tanh(jnp.tanh(x @ params["a"]) @ params["b"]) @ params["c"]

    params = {"a": jnp.ones((3, 8)), "b": jnp.ones((8, 10)), "c": jnp.ones((10, 2))}
    graph = jaxprune.trace_channels(mlp, params, jnp.ones((1, 3)))
    # Half of the 80 weights between both groups belongs to each.
    sizes = dict(zip(graph.groups, (3 * 8 + 40, 40 + 10 * 2), strict=True))
    ratios = dict(zip(graph.groups, (0.5, 0.9), strict=True))
    common = sum(n * ratios[g] for g, n in sizes.items()) / sum(sizes.values())
    want = sum(
        n * (k * math.log(k / common) + (1 - k) * math.log((1 - k) / (1 - common)))
        for k, n in zip(ratios.values(), sizes.values(), strict=True)
    )
    got = relative_entropy(graph)({n: jnp.float32(k) for n, k in ratios.items()})
    assert float(got) == pytest.approx(want, rel=1e-5)
    with pytest.raises(ValueError, match="keep ratios must be of groups"):
        relative_entropy(graph)({"a": jnp.float32(0.5)})
    # A group that a method leaves whole has no keep ratio, and is left out.
    first = next(iter(graph.groups))
    alone = relative_entropy(graph)({first: jnp.float32(0.5)})
    assert float(alone) == pytest.approx(0, abs=1e-6)
