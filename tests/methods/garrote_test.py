"""The garrote over latent weights: an exact size, with learned shares of the layers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprune
from jaxprune.costs import relative_entropy

NAMES = ("a/kernel", "b/kernel")
SHARES = {"a/kernel": 0.3, "b/kernel": -0.2}


@pytest.fixture
def params(rng):
    return {
        "a": {"kernel": jnp.asarray(rng.normal(size=(40, 30)), jnp.float32)},
        "b": {"kernel": jnp.asarray(0.3 * rng.normal(size=(30, 20)), jnp.float32)},
        "bias": jnp.full(3, 0.1),
    }


def _variables():
    return {name: jnp.float32(value) for name, value in SHARES.items()}


def _weights(params):
    return {n: np.asarray(params[n[0]]["kernel"], np.float64) for n in NAMES}


def _reference(weights, shares, keep, power):
    """Thresholds and weights of the network in double precision, by sorting."""
    unit = {n: np.std(w) * np.exp(shares[n]) for n, w in weights.items()}
    scores = np.concatenate([np.ravel(np.abs(w) / unit[n]) for n, w in weights.items()])
    common = np.sort(scores)[::-1][keep]
    thresholds = {n: common * u for n, u in unit.items()}
    seen = {}
    for n, w in weights.items():
        size = np.abs(w)
        shrunk = w * (1 - (thresholds[n] / size) ** power)
        seen[n] = np.where(size > thresholds[n], shrunk, 0)
    return thresholds, seen


@pytest.mark.parametrize("power", [1.0, 2.0, 4.0, 2.5])
@pytest.mark.parametrize("sparsity", [0.5, 0.9])
def test_the_network_is_that_of_the_formula(params, power, sparsity):
    pruner = jaxprune.garrote(sparsity=sparsity, steps=4, power=power)
    pruned = pruner.apply(params, _variables(), step=4)
    keep = round((1 - sparsity) * 1800)
    _, want = _reference(_weights(params), SHARES, keep, power)
    for name in NAMES:
        seen = pruned.params[name[0]]["kernel"]
        np.testing.assert_allclose(seen, want[name], atol=2e-6)
        mean = np.mean(want[name] != 0)
        assert float(pruned.keep_ratios[name]) == pytest.approx(mean, abs=1e-6)
    np.testing.assert_array_equal(pruned.params["bias"], params["bias"])


@pytest.mark.parametrize("step", [0, 1, 3, 5, 9, 10, 50])
def test_the_size_is_exact_at_every_step(params, step):
    pruner = jaxprune.garrote(sparsity=0.95, steps=10)
    seen = pruner.apply(params, _variables(), step=step).params
    kept = sum(np.count_nonzero(seen[n[0]]["kernel"]) for n in NAMES)
    ratio = 1 - float(jaxprune.schedules.geometric_ramp(0.95, 10)(step))
    assert kept == int(ratio * 1800 + 1e-3)
    assert step < 10 or kept == 90


def test_a_ramp_can_be_given(params):
    half = jaxprune.garrote(sparsity=0.9, steps=10, ramp=lambda step: 0.5)
    seen = half.apply(params, _variables(), step=10).params
    assert sum(np.count_nonzero(seen[n[0]]["kernel"]) for n in NAMES) == 900
    assert _count(half.masks(params, _variables())) == 180


def _count(masks):
    return sum(int(np.sum(masks[n[0]]["kernel"])) for n in NAMES)


def test_before_the_ramp_the_network_is_dense(params):
    seen = jaxprune.garrote(sparsity=0.9, steps=10).apply(params, _variables(), step=0)
    for name in NAMES:
        np.testing.assert_array_equal(
            seen.params[name[0]]["kernel"], params[name[0]]["kernel"]
        )


def test_pruned_weights_learn_as_kept_ones_do(params):
    pruner = jaxprune.garrote(sparsity=0.9, steps=1)
    outer = jax.tree.map(lambda x: jnp.cos(jnp.arange(x.size)).reshape(x.shape), params)

    def loss(params):
        seen = pruner.apply(params, _variables(), step=1).params
        return sum(
            jnp.vdot(a, b)
            for a, b in zip(jax.tree.leaves(seen), jax.tree.leaves(outer), strict=True)
        )

    got = jax.grad(loss)(params)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(outer), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_the_derivative_of_shares_is_that_along_equal_sizes(params):
    """Finite differences of the formula, with the count held by its own thresholds."""
    power, keep = 2.0, 180
    pruner = jaxprune.garrote(sparsity=0.9, steps=1, power=power)
    weights = _weights(params)
    thresholds, seen = _reference(weights, SHARES, keep, power)

    def loss(variables):
        seen = pruner.apply(params, variables, step=1).params
        return sum(jnp.sum(jnp.sin(2 * seen[n[0]]["kernel"])) for n in NAMES)

    got = jax.grad(loss)(_variables())
    # What one unit of log t_l does to the loss, and to the count between t/e^h, t e^h.
    slope, mass = {}, {}
    for n, w in weights.items():
        t, h = thresholds[n], 0.25
        size, on = np.abs(w), seen[n] != 0
        move = -power * w * (t / np.where(on, size, 1)) ** power
        slope[n] = np.sum(np.where(on, 2 * np.cos(2 * seen[n]) * move, 0))
        near = (size > t * np.exp(-h)) & (size <= t * np.exp(h))
        mass[n] = np.sum(near) / (2 * h)
    for n in NAMES:
        want = slope[n] - sum(slope.values()) * mass[n] / sum(mass.values())
        assert float(got[n]) == pytest.approx(want, rel=2e-3, abs=1e-3)
    assert sum(float(x) for x in got.values()) == pytest.approx(0, abs=1e-4)


def test_the_implicit_derivative_is_what_holds_the_count():
    """Against the count at moved shares, of so many weights that it is smooth."""
    rng = np.random.default_rng(1)
    params = {
        "a": {"kernel": jnp.asarray(rng.normal(size=(400, 300)), jnp.float32)},
        "b": {"kernel": jnp.asarray(rng.standard_t(5, size=(300, 200)), jnp.float32)},
    }
    pruner = jaxprune.garrote(sparsity=0.8, steps=1)

    def ratio(x):
        variables = {"a/kernel": jnp.float32(x), "b/kernel": jnp.float32(0)}
        return pruner.apply(params, variables, step=1).keep_ratios["a/kernel"]

    want = (float(ratio(0.1)) - float(ratio(-0.1))) / 0.2
    # The density at the threshold is a mean over half a unit of its logarithm.
    assert float(jax.grad(ratio)(0.0)) == pytest.approx(want, rel=0.05)


def test_keep_ratios_sum_to_the_size_and_so_do_their_derivatives(params):
    pruner = jaxprune.garrote(sparsity=0.9, steps=1)
    density = jaxprune.density(params)
    size = lambda v: density(pruner.apply(params, v, step=1).keep_ratios)
    value, slopes = jax.value_and_grad(size)(_variables())
    assert float(value) == pytest.approx(0.1)
    assert all(abs(float(x)) < 1e-6 for x in slopes.values())


def test_shares_are_trained_by_adam_at_a_hundredth():
    optimizer = jaxprune.garrote(sparsity=0.9, steps=1).optimizer
    grads = {"kernel": jnp.float32(-4.0)}
    updates, _ = optimizer.update(grads, optimizer.init(grads), grads)
    # The first step of Adam is its learning rate whatever the gradient.
    assert float(updates["kernel"]) == pytest.approx(0.01, rel=1e-5)


def test_shares_do_not_depend_on_the_scale_of_a_layer(params):
    pruner = jaxprune.garrote(sparsity=0.9, steps=1)
    scaled = params | {"b": {"kernel": 100 * params["b"]["kernel"]}}
    a, b = (pruner.masks(p, _variables()) for p in (params, scaled))
    for name in NAMES:
        np.testing.assert_array_equal(a[name[0]]["kernel"], b[name[0]]["kernel"])


def test_a_layer_at_its_minimum_keeps_its_largest_and_has_no_derivative(params):
    pruner = jaxprune.garrote(
        sparsity=0.9, steps=1, min_keep_ratio={"b/*": 0.1, "*": 0}
    )
    variables = {"a/kernel": jnp.float32(-2.0), "b/kernel": jnp.float32(2.0)}

    def loss(variables):
        pruned = pruner.apply(params, variables, step=1)
        total = sum(jnp.sum(jnp.sin(pruned.params[n[0]]["kernel"])) for n in NAMES)
        return total, pruned

    slopes, pruned = jax.grad(loss, has_aux=True)(variables)
    assert _count(pruner.masks(params, variables)) == 180
    kept = np.asarray(pruned.params["b"]["kernel"]) != 0
    size = np.abs(np.asarray(params["b"]["kernel"]))
    assert kept.sum() == 60
    assert size[kept].min() > size[~kept].max()
    # The threshold is the largest weight that the layer does not keep.
    want = size[kept] * (1 - (size[~kept].max() / size[kept]) ** 4)
    got = np.abs(np.asarray(pruned.params["b"]["kernel"])[kept])
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert float(slopes["b/kernel"]) == 0
    # The one layer that is free holds the size by itself.
    assert float(slopes["a/kernel"]) == pytest.approx(0, abs=1e-5)


def test_a_minimum_that_is_just_met_changes_nothing(params):
    """The layer is cut where the others are, and its share keeps its derivative."""
    free = jaxprune.garrote(sparsity=0.9, steps=1, min_keep_ratio=0)
    kept = np.count_nonzero(
        free.apply(params, _variables(), step=1).params["b"]["kernel"]
    )
    held = jaxprune.garrote(
        sparsity=0.9, steps=1, min_keep_ratio={"b/*": kept / 600, "*": 0}
    )

    def loss(variables, pruner):
        seen = pruner.apply(params, variables, step=1).params
        return jnp.sum(jnp.sin(seen["b"]["kernel"])), seen

    want_slopes, want = jax.grad(loss, has_aux=True)(_variables(), free)
    slopes, seen = jax.grad(loss, has_aux=True)(_variables(), held)
    for name in NAMES:
        np.testing.assert_array_equal(seen[name[0]]["kernel"], want[name[0]]["kernel"])
        assert float(slopes[name]) == float(want_slopes[name]) != 0


def test_stacked_layers_are_pruned_as_unrolled_ones(rng):
    layers = [jnp.asarray(s * rng.normal(size=(12, 9)), jnp.float32) for s in (1, 2, 5)]
    flat = {str(i): {"kernel": x} for i, x in enumerate(layers)}
    stack = {"blocks": {"kernel": jnp.stack(layers)}}
    shares = jnp.array([0.4, -0.3, 0.1])
    one = jaxprune.garrote(sparsity=0.8, steps=1)
    other = jaxprune.garrote(
        sparsity=0.8, steps=1, where=jaxprune.selection(stacked="blocks/*")
    )

    def loss(pruner, params, variables):
        pruned = pruner.apply(params, variables, step=1)
        total = sum(jnp.sum(jnp.sin(3 * x)) for x in jax.tree.leaves(pruned.params))
        return total, pruned

    grad = jax.grad(loss, argnums=2, has_aux=True)
    unrolled = {f"{i}/kernel": shares[i] for i in range(3)}
    slopes, pruned = grad(one, flat, unrolled)
    stacked_slopes, stacked = grad(other, stack, {"blocks/kernel": shares})
    for i in range(3):
        np.testing.assert_array_equal(
            stacked.params["blocks"]["kernel"][i], pruned.params[str(i)]["kernel"]
        )
        assert float(stacked_slopes["blocks/kernel"][i]) == pytest.approx(
            float(slopes[f"{i}/kernel"]), abs=1e-5
        )
        assert float(stacked.keep_ratios["blocks/kernel"][i]) == float(
            pruned.keep_ratios[f"{i}/kernel"]
        )


def test_the_final_weights_are_those_of_the_last_step(params):
    pruner = jaxprune.garrote(sparsity=0.9, steps=5)
    variables = _variables()
    masks = pruner.masks(params, variables)
    assert _count(masks) == 180
    final = pruner.final_weights(params, variables, masks)
    seen = pruner.apply(params, variables, step=5).params
    for a, b in zip(jax.tree.leaves(final), jax.tree.leaves(seen), strict=True):
        np.testing.assert_array_equal(a, b)
    assert _count(pruner.masks(params, variables, keep_ratio=0.25)) == 450


def test_layers_without_a_weight_left_come_back(params):
    """Of a layer that was just emptied the share moves, and latent weights learn."""
    pruner = jaxprune.garrote(sparsity=0.95, steps=1, min_keep_ratio=0)
    units = {n: np.abs(w) / np.std(w) for n, w in _weights(params).items()}
    cut = np.sort(units["a/kernel"], axis=None)[-91]
    share = np.log(np.max(units["b/kernel"]) / cut) + 0.05
    variables = {"a/kernel": jnp.float32(0), "b/kernel": jnp.float32(share)}

    def loss(variables, params):
        seen = pruner.apply(params, variables, step=1).params
        square = jnp.sum(seen["a"]["kernel"] ** 2)  # all of it is the fault of layer a
        return square + jnp.sum(seen["b"]["kernel"])

    assert float(pruner.apply(params, variables, step=1).keep_ratios["b/kernel"]) == 0
    slopes, weights = jax.grad(loss, (0, 1))(variables, params)
    np.testing.assert_array_equal(weights["b"]["kernel"], 1)
    relative = np.minimum(cut / units["a/kernel"], 1)
    theta = np.where(relative < 1, _weights(params)["a/kernel"], 0)
    slope = np.sum(-8 * theta**2 * (1 - relative**4) * relative**4)
    near = {
        n: np.sum((u > x * np.exp(-0.25)) & (u <= x * np.exp(0.25)))
        for (n, u), x in zip(units.items(), (cut, cut * np.exp(share)), strict=True)
    }
    want = slope * near["b/kernel"] / sum(near.values())
    assert want < 0
    assert float(slopes["b/kernel"]) == pytest.approx(-want, rel=1e-4)
    assert float(slopes["a/kernel"]) == pytest.approx(want, rel=1e-4)


def test_layers_far_below_the_threshold_have_no_derivative(params):
    pruner = jaxprune.garrote(sparsity=0.95, steps=1, min_keep_ratio=0)
    variables = {"a/kernel": jnp.float32(0), "b/kernel": jnp.float32(1.5)}
    ratio = lambda v: pruner.apply(params, v, step=1).keep_ratios["b/kernel"]
    value, slopes = jax.value_and_grad(ratio)(variables)
    assert float(value) == 0
    assert all(float(x) == 0 for x in slopes.values())


def test_a_prior_pulls_uneven_layers_together(params):
    pruner = jaxprune.garrote(sparsity=0.9, steps=1)
    budget = jaxprune.weighted(relative_entropy(params), 1 / 1000)
    variables, optimizer = _variables(), optax.sgd(1.0)
    state = optimizer.init(variables)

    @jax.jit
    def step(variables, state):
        def penalty(variables):
            ratios = pruner.apply(params, variables, step=1).keep_ratios
            return budget.penalty(ratios, ()), ratios

        slopes, ratios = jax.grad(penalty, has_aux=True)(variables)
        updates, state = optimizer.update(slopes, state)
        return optax.apply_updates(variables, updates), state, ratios

    ratios = {}
    for _ in range(200):
        variables, state, ratios = step(variables, state)
    for ratio in ratios.values():
        assert float(ratio) == pytest.approx(0.1, abs=0.01)


def _trained(pruning, params, steps):
    target = jax.tree.map(lambda x: 0.5 * x, params)
    trainable = pruning.init(params)
    optimizer = pruning.optimizer(optax.adam(0.01))
    state = optimizer.init(trainable)

    @jax.jit
    def step(trainable, state):
        def objective(trainable):
            seen, penalty = pruning(trainable)
            gaps = jax.tree.map(lambda a, b: jnp.sum((a - b) ** 2), seen, target)
            return sum(jax.tree.leaves(gaps)) + penalty

        updates, new = optimizer.update(
            jax.grad(objective)(trainable), state, trainable
        )
        return optax.apply_updates(trainable, updates), new

    for _ in range(steps):
        trainable, state = step(trainable, state)
    return trainable


def test_the_adapter_prunes_in_three_lines(params):
    pruning = jaxprune.pruning(jaxprune.garrote(sparsity=0.9, steps=20))
    final = pruning.finalize(_trained(pruning, params, 25))
    assert _count(final.masks) == 180
    assert sum(np.count_nonzero(final.params[n[0]]["kernel"]) for n in NAMES) == 180


def test_a_network_that_is_finalized_before_its_ramp_ends_is_warned_of(params):
    pruning = jaxprune.pruning(jaxprune.garrote(sparsity=0.9, steps=20))
    trainable = _trained(pruning, params, 3)
    with pytest.warns(jaxprune.base.PruningWarning, match="train longer"):
        final = pruning.finalize(trainable)
    assert _count(final.masks) == 180


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"sparsity": 1.0, "steps": 5}, r"sparsity=1\.0.*\[0, 1\)"),
        ({"sparsity": 0.5, "steps": 0}, "steps"),
        ({"sparsity": 0.5, "steps": 5, "power": 0.0}, "power"),
        ({"sparsity": 0.5, "steps": 5, "ramp": 0.5}, "ramp"),
        ({"sparsity": 0.5, "steps": 5, "min_keep_ratio": 2}, "min_keep_ratio"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, words):
    with pytest.raises((ValueError, TypeError), match=words):
        jaxprune.garrote(**arguments)


def test_a_step_is_needed(params):
    pruner = jaxprune.garrote(sparsity=0.5, steps=5)
    with pytest.raises(ValueError, match="needs the step"):
        pruner.apply(params, pruner.init(params))


def test_a_sparsity_that_minima_do_not_allow_is_refused_before_training(params):
    pruner = jaxprune.garrote(sparsity=0.9, steps=5, min_keep_ratio=0.2)
    with pytest.raises(ValueError, match=r"garrote\(sparsity=0\.9\)\.init.*at least"):
        pruner.init(params)
    abstract = jax.eval_shape(lambda p: p, params)
    with pytest.raises(ValueError, match=r"garrote\(sparsity=0\.9\)\.init"):
        pruner.init(abstract)


def test_a_scalar_mask_keeps_all_weights(params):
    pruner = jaxprune.garrote(sparsity=0.9, steps=5)
    every = jax.tree.map(lambda x: jnp.ones((), bool), params)
    final = pruner.final_weights(params, _variables(), every)
    for name in NAMES:
        np.testing.assert_array_equal(
            final[name[0]]["kernel"], params[name[0]]["kernel"]
        )
    del every["b"]
    with pytest.raises((ValueError, TypeError), match="masks"):
        pruner.final_weights(params, _variables(), every)


def test_what_is_nan_stays_nan(params):
    pruner = jaxprune.garrote(sparsity=0.9, steps=1)
    broken = _variables() | {"a/kernel": jnp.float32(jnp.nan)}
    seen = pruner.apply(params, broken, step=1).params
    assert np.isnan(np.asarray(seen["a"]["kernel"])).all()
    weight = params["b"]["kernel"].at[3, 4].set(jnp.nan)
    seen = pruner.apply(params | {"b": {"kernel": weight}}, _variables(), step=1).params
    assert np.isnan(seen["b"]["kernel"][3, 4])
    with pytest.raises(ValueError, match="b/kernel"):
        pruner.masks(params | {"b": {"kernel": weight}}, _variables())


def test_shares_of_any_size_leave_the_size_exact(params):
    pruner = jaxprune.garrote(sparsity=0.9, steps=1, min_keep_ratio=0)
    params = params | {"b": {"kernel": params["b"]["kernel"].at[0].set(0)}}
    for share in (-1e4, -90.0, 90.0, 1e4):
        variables = {"a/kernel": jnp.float32(0), "b/kernel": jnp.float32(share)}
        seen = pruner.apply(params, variables, step=1).params
        kept = {n: np.count_nonzero(seen[n]["kernel"]) for n in "ab"}
        assert sum(kept.values()) == 180
        assert kept["b"] == (180 if share < 0 else 0)


def test_of_equal_magnitudes_masks_are_exact_and_weights_continuous():
    params = {"kernel": jnp.round(2 * jax.random.normal(jax.random.key(0), (40, 45)))}
    pruner = jaxprune.garrote(sparsity=0.9, steps=1)
    variables = pruner.init(params)
    assert int(np.sum(pruner.masks(params, variables)["kernel"])) == 180
    seen = np.asarray(pruner.apply(params, variables, step=1).params["kernel"])
    size = np.abs(np.asarray(params["kernel"]))
    threshold = np.sort(size, axis=None)[-181]
    np.testing.assert_array_equal(seen != 0, size > threshold)


def test_masks_that_hold_are_kept_and_the_size_counts_all_weights(params):
    held = jaxprune.global_magnitude(sparsity=0.5).masks(params, {})
    pruner = jaxprune.garrote(
        sparsity=0.9, steps=1, where=jaxprune.selection(masks=held)
    )
    variables = _variables()
    assert _count(pruner.masks(params, variables)) == 180
    seen = pruner.apply(params, variables, step=1).params
    assert sum(np.count_nonzero(seen[n[0]]["kernel"]) for n in NAMES) == 180
    for name in NAMES:
        inside = np.asarray(held[name[0]]["kernel"])
        assert not np.any(np.asarray(seen[name[0]]["kernel"])[~inside])


def test_networks_of_two_to_the_31_weights_and_more_are_accepted():
    leaf = jax.ShapeDtypeStruct((50_000, 50_000), jnp.float32)
    params = {n: {"kernel": leaf} for n in "ab"}
    pruner = jaxprune.garrote(sparsity=0.9, steps=3)
    variables = jax.eval_shape(pruner.init, params)
    seen = jax.eval_shape(lambda p, v: pruner.apply(p, v, step=1), params, variables)
    assert seen.params["a"]["kernel"].shape == leaf.shape
    jax.eval_shape(relative_entropy(params), seen.keep_ratios)


@pytest.mark.parametrize("power", [1.0, 2.5])
def test_the_loss_changes_with_shares_as_its_derivative_says(power):
    rng = np.random.default_rng(3)
    params = {
        "a": {"kernel": jnp.asarray(rng.normal(size=(300, 400)), jnp.float32)},
        "b": {"kernel": jnp.asarray(rng.uniform(-1, 1, (300, 200)), jnp.float32)},
    }
    pruner = jaxprune.garrote(sparsity=0.8, steps=1, power=power)

    @jax.jit
    def loss(x):
        variables = {"a/kernel": x, "b/kernel": jnp.float32(0)}
        seen = pruner.apply(params, variables, step=1).params
        sizes = {n: jnp.abs(seen[n]["kernel"]) for n in "ab"}
        return jnp.sum(sizes["a"] ** 2) - jnp.sum(sizes["b"])

    want = (float(loss(0.05)) - float(loss(-0.05))) / 0.1
    assert float(jax.grad(loss)(0.0)) == pytest.approx(want, rel=0.06)


def test_double_precision_is_kept_where_nothing_is_pruned():
    with jax.enable_x64(True):
        params = {"kernel": jnp.asarray(np.random.default_rng(0).normal(size=(9, 8)))}
        pruner = jaxprune.garrote(sparsity=0.5, steps=4)
        seen = pruner.apply(params, pruner.init(params), step=0).params
        np.testing.assert_array_equal(seen["kernel"], params["kernel"])
