"""LATS as an optimizer and in the forward pass: the authors' numbers, twice."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprune
from jaxprune import schedules
from jaxprune.methods import straight_through_soft_threshold
from jaxprune.prox import inverse_soft_threshold, soft_threshold
from jaxprune.transforms import lats

GOLDEN = json.loads(
    (pathlib.Path(__file__).parent.parent / "golden" / "lats.json").read_text()
)


class Golden:
    """A trajectory of one convolution, its inputs drawn again from the seed."""

    def __init__(self, name):
        golden = GOLDEN[name]
        rng = np.random.default_rng(golden["seed"])
        drawn = {}
        for key, scale in (("theta0", 0.2), ("x", 1.0), ("y", 1.0)):
            drawn[key] = scale * rng.standard_normal(golden[key]["shape"])
            assert drawn[key].ravel()[0] == golden[key]["first"]
            assert drawn[key].ravel()[-1] == golden[key]["last"]
            assert drawn[key].sum() == pytest.approx(golden[key]["sum"], abs=1e-10)
        self.theta0, self.x, self.y = (jnp.asarray(v) for v in drawn.values())
        self.steps = golden["N"]
        self.thresholds = np.array(golden["thresholds"])
        self.zeros = np.array(golden["zeros"])
        self.final_theta = np.array(golden["final_theta"])
        self.final_sparse = np.array(golden["final_sparse"])
        self.threshold = schedules.s_lats(golden["D"], self.steps)
        self.optimizer = optax.chain(
            optax.add_decayed_weights(golden["weight_decay"]),
            optax.sgd(
                optax.cosine_decay_schedule(golden["lr"], self.steps),
                golden["momentum"] or None,
            ),
        )


def loss(kernel, x, y):
    out = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NCHW", "OIHW", "NCHW")
    )
    return jnp.mean(jnp.square(out - y))


def train_with_optimizer(optimizer, threshold, w, batches):
    """Return the network's weights after every step, and the last latent ones."""
    wrapped = lats(optimizer, threshold=threshold)

    def step(carry, batch):
        w, state = carry
        updates, state = wrapped.update(jax.grad(loss)(w, *batch), state, w)
        w = optax.apply_updates(w, updates)
        return (w, state), w

    carry = (w, wrapped.init(w))
    (_, state), path = jax.jit(lambda c: jax.lax.scan(step, c, batches))(carry)
    return np.asarray(path), np.asarray(state.latent)


def train_with_forward_pass(optimizer, threshold, theta, batches):
    """The same from the form that thresholds theta inside the loss."""

    def step(carry, batch):
        theta, state, t = carry

        def objective(theta):
            w = straight_through_soft_threshold(theta, threshold(t))
            return loss(w, *batch)

        updates, state = optimizer.update(jax.grad(objective)(theta), state, theta)
        theta = optax.apply_updates(theta, updates)
        w = soft_threshold(theta, threshold(t + 1))
        return (theta, state, t + 1), w

    carry = (theta, optimizer.init(theta), jnp.zeros([], jnp.int32))
    (theta, *_), path = jax.jit(lambda c: jax.lax.scan(step, c, batches))(carry)
    return np.asarray(path), np.asarray(theta)


def train_with_pruner(optimizer, threshold, theta, batches):
    """The same through the step that serves all methods: pruner, optimizer, budget."""
    pruner = jaxprune.soft_thresholding()
    wrapped = jaxprune.follow_threshold(optimizer, pruner, threshold=threshold)

    def step(carry, batch):
        both, state = carry

        def objective(both):
            seen, _ = pruner.apply({"w": both["params"]["w"]}, both["variables"])
            return loss(seen["w"], *batch)

        updates, state = wrapped.update(jax.grad(objective)(both), state, both)
        both = optax.apply_updates(both, updates)
        return (both, state), pruner.apply(*both.values()).params["w"]

    both = {"params": {"w": theta}, "variables": {"w": jnp.zeros((), theta.dtype)}}
    carry = (both, wrapped.init(both))
    (both, _), path = jax.jit(lambda c: jax.lax.scan(step, c, batches))(carry)
    return np.asarray(path), np.asarray(both["params"]["w"])


FORMS = {
    "optimizer": train_with_optimizer,
    "forward pass": train_with_forward_pass,
    "pruner": train_with_pruner,
}
OPTIMIZERS = {
    "sgd": optax.sgd(0.3),
    "momentum": optax.sgd(0.1, 0.9),
    "adam": optax.adam(0.02),
    "adamw": optax.adamw(0.02, weight_decay=0.05),
    "sgd with weight decay": optax.chain(
        optax.add_decayed_weights(0.05), optax.sgd(0.3, 0.5)
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["trajectory", "trajectory_momentum"])
def test_every_form_reproduces_the_authors_trajectory(name, form):
    with jax.enable_x64(True):
        golden = Golden(name)
        thresholds = [float(golden.threshold(t + 1)) for t in range(golden.steps)]
        path, theta = FORMS[form](
            golden.optimizer, golden.threshold, golden.theta0, (golden.x, golden.y)
        )
    np.testing.assert_allclose(thresholds, golden.thresholds, atol=1e-12)
    np.testing.assert_array_equal(np.sum(path == 0, axis=(1, 2, 3, 4)), golden.zeros)
    np.testing.assert_allclose(theta, golden.final_theta, rtol=0, atol=1e-10)
    np.testing.assert_allclose(path[-1], golden.final_sparse, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, "float64") for name in OPTIMIZERS]
    + [("momentum", "float32"), ("adamw", "float32")],
)
def test_all_forms_take_the_same_trajectory(name, dtype):
    with jax.enable_x64(dtype == "float64"):
        golden = Golden("trajectory")
        batches = tuple(a.astype(dtype) for a in (golden.x, golden.y))
        start = golden.theta0.astype(dtype)
        args = OPTIMIZERS[name], golden.threshold, start, batches
        (ours, latent), *others = (form(*args) for form in FORMS.values())
    tolerance = 1e-14 if dtype == "float64" else 2e-7  # one rounding per step
    for theirs, theta in others:
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)
        np.testing.assert_allclose(latent, theta, rtol=0, atol=tolerance)
        np.testing.assert_array_equal(ours == 0, theirs == 0)
    assert 0 < np.mean(ours[-1] == 0) < 1


def test_a_constant_threshold_starts_from_the_inverse_map_in_both_forms():
    with jax.enable_x64(True):
        golden = Golden("trajectory")
        batches, threshold = (golden.x, golden.y), optax.constant_schedule(0.05)
        latent0 = inverse_soft_threshold(golden.theta0, 0.05)
        ours, latent = train_with_optimizer(
            golden.optimizer, threshold, golden.theta0, batches
        )
        theirs, theta = train_with_forward_pass(
            golden.optimizer, threshold, latent0, batches
        )
        first = np.asarray(soft_threshold(latent0, 0.05))
    np.testing.assert_allclose(first, golden.theta0, atol=1e-15)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
    np.testing.assert_allclose(latent, theta, rtol=0, atol=1e-12)


def test_pruned_weights_come_back_as_the_authors_say():
    zeros = GOLDEN["trajectory_momentum"]["zeros"]
    assert np.any(np.diff(zeros) < 0)  # while the threshold rises
    with jax.enable_x64(True):
        golden = Golden("trajectory_momentum")
        path, _ = train_with_optimizer(
            golden.optimizer, golden.threshold, golden.theta0, (golden.x, golden.y)
        )
    assert np.any((path[:-1] == 0) & (path[1:] != 0))


def test_the_derivative_is_the_authors_except_at_zero():
    golden = GOLDEN["schedules"]["soft_threshold"]
    with jax.enable_x64(True):
        x, cotangent = (jnp.asarray(golden[key]) for key in ("x", "cotangent"))
        y, pull_back = jax.vjp(straight_through_soft_threshold, x, golden["d"])
        grad_x, grad_d = map(np.asarray, pull_back(cotangent))
    np.testing.assert_allclose(y, golden["y"], rtol=0, atol=1e-15)
    zero = np.abs(np.array(golden["x"])) < 1e-12
    assert np.sum(zero) == 1
    np.testing.assert_array_equal(grad_x[~zero], np.array(golden["grad_x"])[~zero])
    np.testing.assert_array_equal(grad_x[zero], cotangent[zero])
    assert grad_d == 0.0


def test_the_straight_through_function_takes_trees_and_keeps_dtypes():
    tree = {"a": jnp.ones(3, jnp.bfloat16), "b": (jnp.full((2, 2), -0.1),)}
    y, pull_back = jax.vjp(straight_through_soft_threshold, tree, 0.5)
    grads, _ = pull_back(jax.tree.map(jnp.ones_like, tree))
    assert jax.tree.structure(y) == jax.tree.structure(tree)
    assert y["a"].dtype == grads["a"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(y["b"][0], 0.0)
    np.testing.assert_array_equal(grads["b"][0], 1.0)


def test_a_weight_that_starts_at_zero_learns():
    optimizer = lats(optax.sgd(1.0), threshold=0.25, where=True)
    w = jnp.zeros(2)
    updates, _ = optimizer.update(jnp.array([-1.0, 0.1]), optimizer.init(w), w)
    np.testing.assert_array_equal(optax.apply_updates(w, updates), [0.75, 0.0])


def test_thresholds_are_trained_by_sgd_at_a_tenth_and_stay_above_zero():
    optimizer = jaxprune.soft_thresholding().optimizer
    values = {"a": jnp.float32(0.5), "b": jnp.float32(0.125)}
    grads = {"a": jnp.float32(2.0), "b": jnp.float32(2.0)}
    updates, _ = optimizer.update(grads, optimizer.init(values), values)
    moved = optax.apply_updates(values, updates)
    assert float(moved["a"]) == pytest.approx(0.5 - 0.1 * 2)
    assert float(moved["b"]) == 0


def test_a_negative_threshold_is_refused():
    with pytest.raises(ValueError, match=r"`lats\(threshold=-0.1\)`: .*at least 0"):
        lats(optax.sgd(0.1), threshold=-0.1)


# As a pruner -------------------------------------------------------------------------


@pytest.fixture
def params(rng):
    return {
        "a": {"kernel": jnp.asarray(rng.normal(size=(20, 6)), jnp.float32)},
        "b": {"kernel": jnp.asarray(0.3 * rng.normal(size=(4, 20)), jnp.float32)},
        "bias": jnp.full(3, 0.1),
    }


def at(threshold):
    return {name: jnp.float32(threshold) for name in ("a/kernel", "b/kernel")}


def test_keep_ratios_count_what_is_not_zero_and_masks_are_what_is_not_zero(params):
    pruner = jaxprune.soft_thresholding(min_keep_ratio=0)
    seen, ratios = jax.jit(pruner.apply)(params, at(0.5))
    kept = pruner.masks(params, at(0.5))
    for name in "ab":
        want = np.abs(params[name]["kernel"]) > 0.5
        np.testing.assert_array_equal(seen[name]["kernel"] != 0, want)
        np.testing.assert_array_equal(kept[name]["kernel"], want)
        assert float(ratios[f"{name}/kernel"]) == pytest.approx(want.mean())
    np.testing.assert_array_equal(seen["bias"], params["bias"])


def test_it_hardens_to_what_the_network_saw(params):
    pruner = jaxprune.soft_thresholding()
    kept = pruner.masks(params, at(0.5), keep_ratio=0.1)
    hard, seen = (
        pruner.final_weights(params, at(0.5), kept),
        pruner.apply(params, at(0.5))[0],
    )
    for name in "ab":
        mask = np.asarray(kept[name]["kernel"])
        np.testing.assert_array_equal(
            hard[name]["kernel"], np.where(mask, seen[name]["kernel"], 0)
        )
    assert jaxprune.summarize(jaxprune.apply_masks(params, kept)).kept == 20
    # Others finalize to their weights.
    plain = jaxprune.magnitude(sparsity=0.5).final_weights(params, {}, kept)
    np.testing.assert_array_equal(
        plain["a"]["kernel"], np.where(kept["a"]["kernel"], params["a"]["kernel"], 0)
    )


def test_a_keep_ratio_keeps_what_is_furthest_above_its_threshold_of_either_sign(params):
    """The largest |theta| - D, with the thresholds of the leaves apart."""
    pruner, thresholds = (
        jaxprune.soft_thresholding(min_keep_ratio=0),
        {"a": 0.9, "b": 0.1},
    )
    variables = {f"{x}/kernel": jnp.float32(d) for x, d in thresholds.items()}
    kept = pruner.masks(params, variables, keep_ratio=0.3)
    excess = [np.abs(params[x]["kernel"]).ravel() - thresholds[x] for x in "ab"]
    want = np.zeros(200, bool)
    want[np.argsort(-np.concatenate(excess))[:60]] = True
    found = np.concatenate([np.ravel(kept[x]["kernel"]) for x in "ab"])
    np.testing.assert_array_equal(found, want)
    signs = np.concatenate([np.ravel(params[x]["kernel"]) for x in "ab"])[want] > 0
    assert signs.any()
    assert not signs.all()


@pytest.mark.parametrize("keep_ratio", [None, 0.2])
def test_every_leaf_keeps_its_floor(keep_ratio, params):
    pruner = jaxprune.soft_thresholding(min_keep_ratio=0.15)
    kept = pruner.masks(params, at(1.5), keep_ratio=keep_ratio)
    assert int(kept["b"]["kernel"].sum()) == 12


def test_the_price_of_a_budget_is_the_l1_coefficient(params):
    rate, steps = optax.warmup_cosine_decay_schedule(0.0, 0.2, 5, 40), 40
    pruner, price = jaxprune.soft_thresholding(), 0.3
    budget = jaxprune.weighted(jaxprune.density(params), price)
    final = schedules.final_threshold(price, rate, steps)
    want = schedules.from_learning_rate(rate, final, steps)
    optimizer, variables = optax.sgd(rate), pruner.init(params)
    state = optimizer.init(variables)

    @jax.jit
    def step(variables, state):
        cost = lambda v: budget.penalty(pruner.apply(params, v).keep_ratios, ())
        updates, state = optimizer.update(jax.grad(cost)(variables), state)
        return optax.apply_updates(variables, updates), state

    for t in range(steps):
        for threshold in variables.values():
            assert float(threshold) == pytest.approx(float(want(t)), abs=1e-6)
        variables, state = step(variables, state)


def test_dearer_weights_feel_a_stronger_coefficient(params):
    pruner = jaxprune.soft_thresholding()
    # A weight of b costs three times as much as one of a.
    total = 120 + 3 * 80
    cost = lambda k: (120 * k["a/kernel"] + 3 * 80 * k["b/kernel"]) / total
    slope = jax.grad(lambda v: cost(pruner.apply(params, v).keep_ratios))(at(0.1))
    assert float(slope["b/kernel"] / slope["a/kernel"]) == pytest.approx(3)


def test_dual_ascent_holds_soft_thresholds_to_a_cost(params):
    pruner = jaxprune.soft_thresholding()
    budget = jaxprune.dual_ascent(
        jaxprune.at_most(jaxprune.density(params), optax.linear_schedule(1.0, 0.1, 150))
    )

    def step(carry, _):
        variables, state = carry

        def price(v):
            ratios = pruner.apply(params, v).keep_ratios
            return budget.penalty(ratios, state), ratios

        grads, ratios = jax.grad(price, has_aux=True)(variables)
        variables = jax.tree.map(lambda v, g: v - 0.1 * g, variables, grads)
        return (variables, budget.update(ratios, state)), None

    variables = pruner.init(params)
    carry = variables, budget.init(pruner.apply(params, variables).keep_ratios)
    (variables, _), _ = jax.jit(lambda c: jax.lax.scan(step, c, length=250))(carry)
    ratios = pruner.apply(params, variables).keep_ratios
    kept = float(jaxprune.density(params)(ratios))
    # These weights stand still: what the threshold passes over does not grow back.
    assert 0.04 < kept <= 0.1 + 1e-6


def test_bad_configuration_of_the_pruner_is_refused():
    with pytest.raises(ValueError, match=r"init_threshold=-0\.1.*at least 0"):
        jaxprune.soft_thresholding(init_threshold=-0.1)
    with pytest.raises(ValueError, match="min_keep_ratio=2"):
        jaxprune.soft_thresholding(min_keep_ratio=2)
