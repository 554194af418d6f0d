"""LTP: the paper's equations, scale freedom, budgets, collapse, precision."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprune
from tests.support import reference
from tests.support.rows import rows


@pytest.fixture
def params(rng):
    return {
        "conv": {"kernel": jnp.asarray(rng.normal(size=(3, 3, 2, 4)), jnp.float32)},
        "dense": {
            "kernel": jnp.asarray(0.01 * rng.normal(size=(8, 5)), jnp.float32),
            "bias": jnp.ones(5),
        },
    }


def test_as_published_equals_the_equations(params):
    pruner = jaxprune.ltp_as_published(temperature=0.3, init_threshold=1e-4)
    variables = pruner.init(params)
    pruned, keep_ratios = pruner.apply(params, variables)
    for layer in ("conv", "dense"):
        w, name = params[layer]["kernel"], f"{layer}/kernel"
        temperature = 0.3 * reference.variance_of_magnitudes(w)
        v, count = reference.ltp_soft_prune(w, 1e-4, temperature)
        np.testing.assert_allclose(pruned[layer]["kernel"], v, rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(keep_ratios[name] * w.size, count, rtol=1e-5)
    np.testing.assert_array_equal(pruned["dense"]["bias"], params["dense"]["bias"])


def test_one_published_step_equals_equations_10_and_14(params, rng):
    """Plain SGD on the weights, price lambda on the count: the paper's update rules."""
    price, eta, t0, tau = 1e-2, 0.1, 0.3, 1e-4
    pruner = jaxprune.ltp_as_published(temperature=t0, init_threshold=tau)
    sizes = jaxprune.tree.sizes(params)
    cost = jaxprune.density(params)
    budget = jaxprune.weighted(cost, price * sum(sizes.values()))
    cotangent = jax.tree.map(lambda p: rng.normal(size=p.shape), params)

    def loss(params, variables):
        pruned, keep_ratios = pruner.apply(params, variables)
        task = sum(
            jnp.sum(v * c)
            for v, c in zip(
                jax.tree.leaves(pruned), jax.tree.leaves(cotangent), strict=True
            )
        )
        return task + budget.penalty(keep_ratios, budget.init(keep_ratios))

    grads, tau_grads = jax.grad(loss, (0, 1))(params, pruner.init(params))
    for layer in ("conv", "dense"):
        w, bar = params[layer]["kernel"], cotangent[layer]["kernel"]
        temperature = t0 * reference.variance_of_magnitudes(w)
        want_w, want_tau = reference.ltp_gradients(w, tau, temperature, bar, price)
        got_w = params[layer]["kernel"] - eta * grads[layer]["kernel"]
        np.testing.assert_allclose(got_w, w - eta * want_w, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(tau_grads[f"{layer}/kernel"], want_tau, rtol=1e-3)


def test_each_form_brings_the_optimizer_that_it_documents():
    grads = {"kernel": jnp.float32(-4.0)}
    for make, step in ((jaxprune.ltp, 0.05), (jaxprune.ltp_as_published, 4e-5)):
        optimizer = make().optimizer
        updates, _ = optimizer.update(grads, optimizer.init(grads), grads)
        # The first step of Adam is its learning rate whatever the gradient.
        assert float(updates["kernel"]) == pytest.approx(step, rel=1e-5)


@pytest.mark.parametrize("scale", [1e-4, 1e3])
def test_scaling_a_layer_changes_neither_gates_nor_threshold_gradients(params, scale):
    pruner = jaxprune.ltp(init_threshold=0.7)
    variables = pruner.init(params)
    scaled = jax.tree.map(lambda w: scale * w, params)
    first, ratios = pruner.apply(params, variables)
    second, scaled_ratios = pruner.apply(scaled, variables)
    chex.assert_trees_all_close(ratios, scaled_ratios, rtol=1e-4)
    chex.assert_trees_all_close(
        jax.tree.map(lambda w: scale * w, first), second, rtol=1e-3, atol=1e-4 * scale
    )
    count = lambda p: jax.grad(lambda v: sum(pruner.apply(p, v)[1].values()))(variables)
    chex.assert_trees_all_close(count(params), count(scaled), rtol=1e-3)


def test_masks_are_the_hard_gate(params):
    pruner = jaxprune.ltp(init_threshold=1.0, min_keep_ratio=0)
    kept = pruner.masks(params, pruner.init(params))
    for layer in ("conv", "dense"):
        w = np.asarray(params[layer]["kernel"], np.float64)
        want = w**2 > reference.variance_of_magnitudes(w)
        np.testing.assert_array_equal(kept[layer]["kernel"], want)
    assert kept["dense"]["bias"].shape == ()


def test_a_weight_at_its_threshold_is_pruned():
    params = {"kernel": jnp.array([[1.0, 0.0, -1.0, 0.0]])}  # of spread 1/2 exactly
    pruner = jaxprune.ltp_as_published(min_keep_ratio=0)
    kept = pruner.masks(params, {"kernel": jnp.float32(1.0)})["kernel"]
    assert kept.tolist() == [[False] * 4]
    kept = pruner.masks(params, {"kernel": jnp.float32(0.999)})["kernel"]
    assert kept.tolist() == [[True, False, True, False]]


def test_an_asked_keep_ratio_takes_what_is_farthest_above_its_threshold(params):
    """In spreads of the layer; a threshold below zero counts as zero."""
    pruner = jaxprune.ltp_as_published(min_keep_ratio=0)
    squares = {"conv": 0.25, "dense": -1.0}
    variables = {f"{layer}/kernel": jnp.float32(x) for layer, x in squares.items()}
    kept, above = pruner.masks(params, variables, keep_ratio=0.25), {}
    for layer, square in squares.items():
        w = np.asarray(params[layer]["kernel"], np.float64)
        size = np.abs(w) - np.sqrt(max(square, 0))
        above[layer] = size / np.sqrt(reference.variance_of_magnitudes(w))
    least = np.sort(np.concatenate([x.ravel() for x in above.values()]))[-28]
    for layer, scores in above.items():
        np.testing.assert_array_equal(kept[layer]["kernel"], scores >= least)


def test_keep_ratios_count_the_gates_of_weights_that_are_not_yet_pruned(rng):
    w = rng.normal(size=(8, 6))
    held = rng.permutation(48).reshape(8, 6) < 12
    where = jaxprune.selection(masks={"kernel": jnp.asarray(held)})
    pruner = jaxprune.ltp_as_published(
        temperature=0.1, init_threshold=0.3, min_keep_ratio=0, where=where
    )
    params = {"kernel": jnp.asarray(w, jnp.float32)}
    ratio = pruner.apply(params, pruner.init(params)).keep_ratios["kernel"]
    temperature = 0.1 * reference.variance_of_magnitudes(w[held])
    _, count = reference.ltp_soft_prune(w[held], 0.3, temperature)
    assert float(ratio) == pytest.approx(count / 48, rel=1e-4)


@pytest.mark.parametrize("keep_ratio", [1.0, 0.5, 0.1, 0.05])
@pytest.mark.parametrize("constant", [False, True])
def test_asked_keep_ratio_is_met_exactly_ties_included(params, keep_ratio, constant):
    if constant:
        params = jax.tree.map(jnp.ones_like, params)
    pruner = jaxprune.ltp()
    kept = pruner.masks(params, pruner.init(params), keep_ratio=keep_ratio)
    counts = jaxprune.summarize(jaxprune.apply_masks(params, kept), kept)
    assert counts.kept == jaxprune.masks.keep_count(keep_ratio, 72 + 40)


def test_every_layer_keeps_its_floor_even_under_a_huge_threshold(params):
    pruner = jaxprune.ltp(init_threshold=1e4, min_keep_ratio=0.05)
    variables = pruner.init(params)
    kept = pruner.masks(params, variables)
    own = jaxprune.summarize(jaxprune.apply_masks(params, kept), kept)
    assert [leaf.kept for leaf in own.leaves] == [4, 2]
    _, keep_ratios = pruner.apply(params, variables)
    assert min(float(r) for r in keep_ratios.values()) >= 0.05


def test_the_price_stops_pressing_at_the_floor(params):
    pruner = jaxprune.ltp(init_threshold=1e4, min_keep_ratio=0.05)
    total = lambda v: sum(pruner.apply(params, v)[1].values())
    grads = jax.grad(total)(pruner.init(params))
    assert all(float(g) == 0 for g in grads.values())


def test_stacked_layers_have_a_threshold_each(rng):
    layers = jnp.asarray(rng.normal(size=(3, 6, 5)), jnp.float32)
    layers *= jnp.array([1.0, 10.0, 0.1]).reshape(3, 1, 1)
    stacked = jaxprune.ltp(
        init_threshold=0.7, where=jaxprune.selection(stacked="layers")
    )
    variables = stacked.init({"layers": layers})
    assert variables["layers"].shape == (3,)
    pruned, keep_ratios = stacked.apply({"layers": layers}, variables)
    kept = stacked.masks({"layers": layers}, variables)
    single = jaxprune.ltp(init_threshold=0.7)
    for i in range(3):
        one = {"layer": layers[i]}
        want, ratios = single.apply(one, single.init(one))
        np.testing.assert_allclose(pruned["layers"][i], want["layer"], rtol=1e-5)
        np.testing.assert_allclose(keep_ratios["layers"][i], ratios["layer"], rtol=1e-5)
        np.testing.assert_array_equal(
            kept["layers"][i], single.masks(one, single.init(one))["layer"]
        )


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_constant_layer_has_finite_values_and_derivatives(value):
    params = {"kernel": jnp.full((4, 4), value)}
    pruner = jaxprune.ltp()

    def loss(params, variables):
        pruned, keep_ratios = pruner.apply(params, variables)
        return pruned["kernel"].sum() + sum(keep_ratios.values())

    out = jax.value_and_grad(loss, (0, 1))(params, pruner.init(params))
    chex.assert_tree_all_finite(out)


def test_bfloat16_weights_are_pruned_as_their_float32_values(params):
    low = jax.tree.map(lambda w: w.astype(jnp.bfloat16), params)
    high = jax.tree.map(lambda w: w.astype(jnp.float32), low)
    pruner = jaxprune.ltp(init_threshold=0.8)
    variables = pruner.init(low)
    kept, same = pruner.masks(low, variables), pruner.masks(high, variables)
    chex.assert_trees_all_equal(kept, same)
    pruned, keep_ratios = pruner.apply(low, variables)
    want, want_ratios = pruner.apply(high, variables)
    chex.assert_trees_all_equal_dtypes(pruned, low)
    chex.assert_trees_all_close(keep_ratios, want_ratios, rtol=1e-6)
    chex.assert_trees_all_close(
        jax.tree.map(lambda w: w.astype(jnp.float32), pruned), want, rtol=1e-2
    )


def _regression(rng, sizes):
    """A regression whose layers differ in size by a thousand."""
    x = rng.normal(size=(256, sizes[0])).astype(np.float32)
    y = np.tanh(x[:, :4].sum(1, keepdims=True)).astype(np.float32)
    keys = jax.random.split(jax.random.key(0), len(sizes) - 1)
    params = {
        f"dense{i}": {"kernel": jax.random.normal(k, (a, b)) / a**0.5}
        for i, (k, a, b) in enumerate(zip(keys, sizes[:-1], sizes[1:], strict=True))
    }

    def loss(params):
        h = x
        for i in range(len(params)):
            h = h @ params[f"dense{i}"]["kernel"]
            h = jnp.tanh(h) if i < len(params) - 1 else h
        return jnp.mean((h - y) ** 2)

    return params, loss


def _train(loss, params, pruner, budget, thresholds, steps):
    optimizer = optax.partition(
        {"w": optax.sgd(0.05, momentum=0.9), "t": thresholds},
        {"params": "w", "variables": "t"},
    )
    trainable = {"params": params, "variables": pruner.init(params)}

    @jax.jit
    def step(carry, _):
        trainable, opt_state, budget_state = carry

        def objective(trainable):
            pruned = pruner.apply(trainable["params"], trainable["variables"])
            price = budget.penalty(pruned.keep_ratios, budget_state)
            return loss(pruned.params) + price, pruned.keep_ratios

        grads, keep_ratios = jax.grad(objective, has_aux=True)(trainable)
        updates, opt_state = optimizer.update(grads, opt_state, trainable)
        trainable = optax.apply_updates(trainable, updates)
        carry = trainable, opt_state, budget.update(keep_ratios, budget_state)
        return carry, keep_ratios

    ratios = pruner.apply(params, trainable["variables"]).keep_ratios
    carry = trainable, optimizer.init(trainable), budget.init(ratios)
    (trainable, _, state), history = jax.lax.scan(step, carry, length=steps)
    return trainable, state, history


@pytest.mark.parametrize("keep_ratio", rows([0.3, 0.1], [0.1]))
def test_one_set_of_defaults_reaches_the_budget_without_a_layer_collapsing(
    rng, keep_ratio
):
    params, loss = _regression(rng, (20, 300, 40, 1))
    pruner = jaxprune.ltp()
    limit = jaxprune.at_most(jaxprune.density(params), keep_ratio, ramp=(0, 300))
    budget = jaxprune.dual_ascent(limit)
    trained, state, history = _train(
        loss, params, pruner, budget, optax.adam(0.05), 400
    )
    assert float(state.cost[0]) == pytest.approx(keep_ratio, rel=0.3)
    assert min(float(h[:20].min()) for h in history.values()) > 0.5
    kept = pruner.masks(trained["params"], trained["variables"], keep_ratio=keep_ratio)
    counts = jaxprune.summarize(jaxprune.apply_masks(params, kept), kept)
    assert counts.kept == jaxprune.masks.keep_count(keep_ratio, counts.size)
    assert min(leaf.keep_ratio for leaf in counts.leaves) >= 1e-3
    pruned = jaxprune.apply_masks(trained["params"], kept)
    assert float(loss(pruned)) < 0.5 * float(loss(jax.tree.map(jnp.zeros_like, params)))


def test_a_naive_rate_empties_a_layer_in_one_step_and_the_default_does_not(rng):
    """The failure that scale-free thresholds are for: summed gradients over T."""
    params, loss = _regression(rng, (20, 300, 40, 1))
    cost = jaxprune.density(params)
    priced = jaxprune.weighted(cost, 0.1)
    naive = jaxprune.ltp_as_published(init_threshold=1e-8)
    _, _, history = _train(loss, params, naive, priced, optax.sgd(1e-2), 3)
    assert min(float(h.min()) for h in history.values()) < 0.01
    _, _, history = _train(loss, params, jaxprune.ltp(), priced, optax.adam(0.05), 3)
    assert min(float(h.min()) for h in history.values()) > 0.8


def test_a_higher_price_keeps_less(rng):
    params, loss = _regression(rng, (20, 60, 1))
    cost = jaxprune.density(params)
    kept = []
    for price in (0.0, 0.1, 1.0):
        budget = jaxprune.weighted(cost, price)
        _, _, history = _train(
            loss, params, jaxprune.ltp(), budget, optax.adam(0.05), 200
        )
        kept.append(float(cost({name: h[-1] for name, h in history.items()})))
    assert kept[0] > kept[1] > kept[2]


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("temperature", 0.0),
        ("temperature", float("nan")),
        ("init_threshold", -1.0),
        ("init_threshold", float("inf")),
        ("min_keep_ratio", 1.5),
    ],
)
@pytest.mark.parametrize("method", [jaxprune.ltp, jaxprune.ltp_as_published])
def test_arguments_out_of_range_are_refused(method, argument, value):
    with pytest.raises(ValueError, match=f"{argument}={value}"):
        method(**{argument: value})


def test_a_budget_below_the_floors_is_refused(params):
    pruner = jaxprune.ltp(min_keep_ratio=0.5)
    with pytest.raises(ValueError, match=r"at least 56\. Ask for .* 0\.5"):
        pruner.masks(params, pruner.init(params), keep_ratio=0.1)


def test_what_is_kept_below_the_threshold_keeps_the_value_of_the_training():
    pruner = jaxprune.ltp(init_threshold=1.0, temperature=0.1, min_keep_ratio=0.5)
    kernel = jnp.array([[0.1, 3.0, 0.4], [0.3, -0.2, 0.5]])
    params = {"low": {"kernel": 1.0 + 0.01 * kernel}, "some": {"kernel": kernel}}
    variables = {"low/kernel": jnp.float32(400.0), "some/kernel": jnp.float32(1.0)}
    masks = pruner.masks(params, variables)
    final = pruner.final_weights(params, variables, masks)
    trained = pruner.apply(params, variables).params
    assert int(masks["low"]["kernel"].sum()) == 3
    np.testing.assert_array_equal(
        final["low"]["kernel"], trained["low"]["kernel"] * masks["low"]["kernel"]
    )
    assert float(jnp.abs(final["low"]["kernel"]).max()) < 1e-6
    assert float(final["some"]["kernel"][0, 1]) == 3.0
    assert float(final["some"]["kernel"][1, 2]) == float(
        trained["some"]["kernel"][1, 2]
    )
