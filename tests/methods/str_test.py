"""STR: a trainable soft threshold for every layer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprune
from tests.support import soft_reference


@pytest.fixture
def params(rng):
    return {
        "a": {"kernel": jnp.asarray(rng.normal(size=(10, 6)), jnp.float32)},
        "b": {"kernel": jnp.asarray(0.3 * rng.normal(size=(4, 10)), jnp.float32)},
        "bias": jnp.full(3, 0.1),
    }


def _sigmoid(s):
    return 1 / (1 + np.exp(-s))


PUBLISHED = jaxprune.soft_threshold_reparameterization_as_published


def test_the_published_threshold_is_the_sigmoid_itself(params):
    pruner = PUBLISHED(init_value=-1.2)
    seen, ratios = jax.jit(pruner.apply)(params, pruner.init(params))
    for name in "ab":
        want = soft_reference.soft(params[name]["kernel"], _sigmoid(-1.2))
        np.testing.assert_allclose(seen[name]["kernel"], want, atol=1e-6)
        assert float(ratios[f"{name}/kernel"]) == pytest.approx(np.mean(want != 0))
    np.testing.assert_array_equal(seen["bias"], params["bias"])


def test_derivatives_are_those_of_finite_differences(params):
    pruner = PUBLISHED()

    @jax.jit
    def loss(params, variables):
        seen = pruner.apply(params, variables).params
        return sum(jnp.sum(jnp.sin(2 * x)) for x in jax.tree.leaves(seen))

    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: x.astype(jnp.float64), params)
        variables = {"a/kernel": jnp.float64(-1.2), "b/kernel": jnp.float64(-1.7)}
        grads, slopes = jax.jit(jax.grad(loss, (0, 1)))(wide, variables)
        # The library computes in float32: wide steps, and second differences.
        for name in variables:
            moved = [variables | {name: variables[name] + h} for h in (0.02, -0.02)]
            up, down = (float(loss(wide, v)) for v in moved)
            assert float(slopes[name]) == pytest.approx((up - down) / 0.04, abs=0.05)
    for name, s in (("a", -1.2), ("b", -1.7)):
        w = np.asarray(params[name]["kernel"], float)
        seen = soft_reference.soft(w, _sigmoid(s))
        outer = 2 * np.cos(2 * seen) * (seen != 0)
        np.testing.assert_allclose(grads[name]["kernel"], outer, atol=1e-5)
        slope = _sigmoid(s) * (1 - _sigmoid(s))
        by_hand = -np.sum(outer * np.sign(w)) * slope
        assert float(slopes[f"{name}/kernel"]) == pytest.approx(by_hand, rel=1e-4)


def test_the_price_moves_thresholds_up_and_weights_not_at_all(params):
    pruner = PUBLISHED(init_value=-1.0)
    cost = jaxprune.density(params)
    price = lambda p, v: cost(pruner.apply(p, v).keep_ratios)
    weights, slopes = jax.grad(price, (0, 1))(params, pruner.init(params))
    assert not any(np.any(g) for g in jax.tree.leaves(weights))
    assert all(float(s) < 0 for s in slopes.values())


def test_weight_decay_alone_drives_the_threshold(params):
    pruner = PUBLISHED(init_value=-20.0)
    both = {"params": params, "variables": pruner.init(params)}
    optimizer = optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1))
    state = optimizer.init(both)
    zeros, ratios = jax.tree.map(jnp.zeros_like, both), []
    for _ in range(300):
        updates, state = optimizer.update(zeros, state, both)
        both = optax.apply_updates(both, updates)
        ratios.append(float(pruner.apply(*both.values()).keep_ratios["b/kernel"]))
    assert ratios[0] == 1.0
    assert ratios[-1] < 0.5
    assert float(both["variables"]["a/kernel"]) == pytest.approx(-20 * 0.99**300, 1e-4)


def test_a_budget_asks_for_a_size(params):
    pruner = jaxprune.soft_threshold_reparameterization()
    cost = jaxprune.density(params)
    budget = jaxprune.dual_ascent(
        jaxprune.at_most(cost, optax.linear_schedule(1.0, 0.2, 150))
    )
    optimizer = optax.adam(0.05)

    def step(carry, _):
        variables, state, prices = carry

        def objective(v):
            seen, ratios = pruner.apply(params, v)
            away = jax.tree.map(lambda a, b: jnp.sum((a - b) ** 2), seen, params)
            return sum(jax.tree.leaves(away)) + budget.penalty(ratios, prices), ratios

        grads, ratios = jax.grad(objective, has_aux=True)(variables)
        updates, state = optimizer.update(grads, state)
        variables = optax.apply_updates(variables, updates)
        return (variables, state, budget.update(ratios, prices)), None

    variables = pruner.init(params)
    start = budget.init(pruner.apply(params, variables).keep_ratios)
    carry = variables, optimizer.init(variables), start
    (variables, *_), _ = jax.jit(lambda c: jax.lax.scan(step, c, length=800))(carry)
    kept = float(cost(pruner.apply(params, variables).keep_ratios))
    assert kept == pytest.approx(0.2, abs=0.04)
    masks = pruner.masks(params, variables, keep_ratio=0.2)
    assert jaxprune.summarize(jaxprune.apply_masks(params, masks)).kept == 20


def test_a_weight_at_its_threshold_is_pruned_and_has_no_derivative():
    pruner = PUBLISHED(init_value=0.0)  # whose threshold is 1/2 exactly
    params = {"kernel": jnp.array([[0.5, 0.75, -0.5, -0.25]])}
    variables = pruner.init(params)
    weights = jnp.array([[3.0, 5.0, 7.0, 9.0]])
    loss = lambda p, v: jnp.sum(weights * pruner.apply(p, v).params["kernel"])
    slopes, slope = jax.grad(loss, (0, 1))(params, variables)
    assert pruner.apply(params, variables).params["kernel"].tolist() == [
        [0.0, 0.25, 0.0, 0.0]
    ]
    assert slopes["kernel"].tolist() == [[0.0, 5.0, 0.0, 0.0]]
    assert float(slope["kernel"]) == pytest.approx(-5 * 0.25)  # g' = g (1 - g)


@pytest.mark.parametrize(
    "make", [jaxprune.soft_threshold_reparameterization, PUBLISHED]
)
def test_variables_are_trained_by_adam_at_a_twentieth(make):
    """Bias-corrected moments of 0.9 and 0.999, as in the paper of Adam."""
    optimizer, values = make().optimizer, {"kernel": jnp.float32(-7.0)}
    state, first, second = optimizer.init(values), 0.0, 0.0
    for t, slope in enumerate([2.0, -1.0, 0.5], 1):
        updates, state = optimizer.update({"kernel": jnp.float32(slope)}, state, values)
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        step = first / (1 - 0.9**t) / np.sqrt(second / (1 - 0.999**t))
        assert float(updates["kernel"]) == pytest.approx(-0.05 * step, rel=1e-4)


def test_it_hardens_to_what_the_network_saw(params):
    pruner = jaxprune.soft_threshold_reparameterization(init_value=-1.0)
    variables = pruner.init(params)
    hard = pruner.final_weights(params, variables, pruner.masks(params, variables))
    seen = pruner.apply(params, variables).params
    np.testing.assert_array_equal(hard["a"]["kernel"], seen["a"]["kernel"])


def test_the_threshold_is_ten_sigmoids_in_units_of_the_spread(params):
    pruner = jaxprune.soft_threshold_reparameterization(init_value=-2.0)
    seen = pruner.apply(params, pruner.init(params)).params
    for name in "ab":
        w = np.asarray(params[name]["kernel"], float)
        want = soft_reference.soft(w, 10 * w.std() * _sigmoid(-2.0))
        np.testing.assert_allclose(seen[name]["kernel"], want, atol=1e-6)
    loss = lambda p: jnp.sum(pruner.apply(p, pruner.init(p)).params["a"]["kernel"])
    slope = jax.grad(loss)(params)["a"]["kernel"]
    # The spread is a constant: what is kept has the derivative 1, the rest none.
    np.testing.assert_array_equal(slope, np.asarray(seen["a"]["kernel"] != 0, float))


@pytest.mark.parametrize("scale", [1e-8, 0.1, 3.0, 1e20])
def test_the_scale_of_a_layer_does_not_matter(params, scale):
    pruner = jaxprune.soft_threshold_reparameterization(init_value=-1.0)
    scaled = jax.tree.map(lambda w: w * scale, params)
    want = pruner.apply(params, pruner.init(params))
    got = pruner.apply(scaled, pruner.init(scaled))
    for name, ratio in want.keep_ratios.items():
        assert float(got.keep_ratios[name]) == pytest.approx(float(ratio), abs=0.02)
    emptied = pruner.apply(scaled, {n: jnp.float32(5.0) for n in want.keep_ratios})
    assert not any(emptied.params[name]["kernel"].any() for name in "ab")


@pytest.mark.parametrize("scale", [1e-8, 1e20])
def test_nor_does_it_where_all_weights_are_below_zero(params, scale):
    pruner = jaxprune.soft_threshold_reparameterization(init_value=-1.5)
    ratios = []
    for factor in (1.0, scale):
        scaled = jax.tree.map(lambda w, c=factor: -c * jnp.abs(w), params)
        ratios.append(pruner.apply(scaled, pruner.init(scaled)).keep_ratios)
    for name, ratio in ratios[0].items():
        assert 0.05 < float(ratio) < 0.95
        assert float(ratios[1][name]) == pytest.approx(float(ratio), abs=0.02)


def test_little_is_pruned_at_the_start(rng):
    params = {"kernel": jnp.asarray(rng.normal(size=(100, 100)), jnp.float32)}
    pruner = jaxprune.soft_threshold_reparameterization()
    assert float(pruner.apply(params, pruner.init(params)).keep_ratios["kernel"]) > 0.99


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init_value": float("nan")}, "init_value=nan"),
        ({"init_value": np.array([-7.0, np.inf])}, r"init_value=\[-7\. +inf\]"),
        ({"temperature": 0.0}, r"temperature=0\.0"),
        ({"min_keep_ratio": 1.5}, r"min_keep_ratio=1\.5"),
    ],
)
def test_bad_configuration_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        jaxprune.soft_threshold_reparameterization(**changes)
