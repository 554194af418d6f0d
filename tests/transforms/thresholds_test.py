"""Thresholds moved beside the weights: given, or found for an asked size."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprune
from jaxprune import schedules
from jaxprune.masks import keep_count
from tests.support.rows import rows

STEPS = 60
PRUNER = jaxprune.soft_thresholding()
RATE = optax.warmup_cosine_decay_schedule(0.0, 0.1, 6, STEPS, 0.01)
SHAPES = {
    "any learning rate": schedules.from_learning_rate(RATE, 1.0, STEPS),
    "s_lats": schedules.s_lats(1.0, STEPS),
    "lats": schedules.lats(1.0, 6, 10),
    "pgh": schedules.pgh(1.0, STEPS, beta=0.01),
    "linear": schedules.linear(1.0, STEPS),
    "sine": schedules.sine(1.0, STEPS),
}


@pytest.fixture
def params(rng):
    draw = lambda scale, *shape: jnp.asarray(scale * rng.normal(size=shape), "float32")
    return {
        "a": {"kernel": draw(1.0, 30, 40), "bias": draw(1.0, 40)},
        "b": {"kernel": draw(0.3, 40, 10)},
    }


def _train(params, optimizer, steps, noise=0.0):
    """Returns what is trained after every step, from gradients of noise."""
    pruner = jaxprune.soft_thresholding()
    both = {"params": params, "variables": pruner.init(params)}

    def step(carry, key):
        both, state = carry
        keys = jax.random.split(key, len(jax.tree.leaves(params)))
        keys = jax.tree.unflatten(jax.tree.structure(params), list(keys))
        grads = jax.tree.map(
            lambda w, k: noise * jax.random.normal(k, w.shape), params, keys
        )
        grads = {
            "params": grads,
            "variables": jax.tree.map(jnp.zeros_like, both["variables"]),
        }
        updates, state = optimizer.update(grads, state, both)
        both = optax.apply_updates(both, updates)
        seen, ratios = pruner.apply(*both.values())
        kept = jaxprune.density(params)(ratios)
        return (both, state), (both["variables"], kept, seen["a"]["kernel"] != 0)

    keys = jax.random.split(jax.random.key(0), steps)
    start = both, optimizer.init(both)
    (both, _), path = jax.jit(lambda c: jax.lax.scan(step, c, keys))(start)
    return both, *jax.tree.map(np.asarray, path)


def _all(params, threshold):
    return jax.tree.map(lambda _: jnp.float32(threshold), PRUNER.init(params))


def _final(params, keep_ratio):
    """The threshold that keeps this fraction of the kernels, by sorting."""
    flat = np.sort(np.abs(np.concatenate([params[x]["kernel"].ravel() for x in "ab"])))
    return flat[::-1][keep_count(keep_ratio, flat.size)]


@pytest.mark.parametrize("shape", rows(SHAPES, ["any learning rate", "pgh"]))
def test_weights_that_stand_still_are_thresholded_along_the_shape(shape, params):
    optimizer = jaxprune.reach_keep_ratio(
        optax.set_to_zero(), PRUNER, keep_ratio=0.1, shape=SHAPES[shape]
    )
    _, thresholds, kept, _ = _train(params, optimizer, STEPS + 5)
    due = np.asarray(jax.vmap(SHAPES[shape])(jnp.arange(1, STEPS + 6)))
    for path in thresholds.values():
        np.testing.assert_allclose(path, due * _final(params, 0.1), rtol=1e-4)
    np.testing.assert_allclose(kept[STEPS - 1 :], 0.1, atol=1e-6)


def test_increments_are_proportional_to_the_learning_rate(params):
    optimizer = jaxprune.reach_keep_ratio(
        optax.sgd(RATE, 0.9), PRUNER, keep_ratio=0.05, shape=SHAPES["any learning rate"]
    )
    _, thresholds, *_ = _train(params, optimizer, STEPS, noise=0.0)
    path = np.concatenate([[0], thresholds["a/kernel"]]).astype(float)
    coefficient = schedules.l1_coefficient(lambda t: jnp.asarray(path)[t], RATE, STEPS)
    np.testing.assert_allclose(coefficient[1:], coefficient[1], rtol=2e-4)


@pytest.mark.parametrize(
    ("shape", "keep_ratio"),
    [("any learning rate", 0.5), ("any learning rate", 0.01), ("pgh", 0.05)],
)
def test_the_asked_fraction_is_met_though_weights_grow_back(shape, keep_ratio, params):
    optimizer = jaxprune.reach_keep_ratio(
        optax.sgd(0.05), PRUNER, keep_ratio=keep_ratio, shape=SHAPES[shape]
    )
    both, _, kept, there = _train(params, optimizer, STEPS + 10, noise=1.0)
    # One weight may be lost or won where the threshold is rounded.
    one = 1 / (30 * 40 + 40 * 10)
    np.testing.assert_allclose(
        kept[STEPS - 1 :], np.floor(keep_ratio / one + 1e-6) * one, atol=1.01 * one
    )
    assert np.any(there[1:] & ~there[:-1])
    assert _final(both["params"], keep_ratio) > 1.05 * _final(params, keep_ratio)
    masks = jaxprune.soft_thresholding(min_keep_ratio=0).masks(
        *both.values(), keep_ratio=keep_ratio
    )
    counts = jaxprune.masks.kept_counts(both["params"], masks)
    weights = sum(n for name, n in counts.items() if name.endswith("kernel"))
    assert weights == keep_count(keep_ratio, 1600)


def test_a_threshold_that_is_too_high_comes_down_again(params):
    optimizer = jaxprune.reach_keep_ratio(
        optax.set_to_zero(), PRUNER, keep_ratio=0.5, shape=SHAPES["linear"]
    )
    both = {"params": params, "variables": _all(params, 9.0)}
    state, update = optimizer.init(both), jax.jit(optimizer.update)
    for _ in range(STEPS):
        updates, state = update(both, state, both)
        both = optax.apply_updates(both, updates)
    np.testing.assert_allclose(
        both["variables"]["a/kernel"], _final(params, 0.5), rtol=1e-5
    )


def test_a_given_schedule_is_followed_to_a_rounding(params):
    schedule = schedules.s_lats(0.7, STEPS)
    optimizer = jaxprune.follow_threshold(optax.sgd(0.1), PRUNER, threshold=schedule)
    _, thresholds, *_ = _train(params, optimizer, STEPS, noise=1.0)
    want = jax.vmap(schedule)(jnp.arange(1, STEPS + 1))
    np.testing.assert_allclose(thresholds["b/kernel"], want, atol=1e-7)


OPTIMIZERS = {
    "follow": lambda: jaxprune.follow_threshold(optax.adam(0.1), PRUNER, threshold=0.5),
    "reach": lambda: jaxprune.reach_keep_ratio(
        optax.adam(0.1), PRUNER, keep_ratio=0.1, shape=SHAPES["linear"]
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_step_traces_once_keeps_dtypes_and_takes_abstract_arrays(name, params):
    optimizer = OPTIMIZERS[name]()
    both = {"params": params, "variables": jaxprune.soft_thresholding().init(params)}
    state = optimizer.init(both)
    abstract = jax.eval_shape(lambda x: x, both)
    assert jax.eval_shape(optimizer.init, abstract) == jax.eval_shape(lambda: state)
    # Also where a traced function holds the parameters.
    chex.assert_trees_all_equal(jax.jit(lambda: optimizer.init(both))(), state)
    update = jax.jit(chex.assert_max_traces(optimizer.update, 1))
    for _ in range(3):
        updates, state = update(both, state, both)
        both = optax.apply_updates(both, updates)
    assert int(state.count) == 3
    assert jax.tree.map(jnp.result_type, updates) == jax.tree.map(jnp.result_type, both)


def test_under_multi_steps_thresholds_move_with_the_weights(params):
    optimizer = optax.MultiSteps(OPTIMIZERS["reach"](), every_k_schedule=2)
    both = {"params": params, "variables": jaxprune.soft_thresholding().init(params)}
    state, path, update = optimizer.init(both), [], jax.jit(optimizer.update)
    for _ in range(4):
        updates, state = update(both, state, both)
        both = optax.apply_updates(both, updates)
        path.append(float(both["variables"]["a/kernel"]))
    assert path[0] == 0 < path[1] == path[2] < path[3]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_update_needs_the_parameters(name, params):
    optimizer = OPTIMIZERS[name]()
    both = {"params": params, "variables": PRUNER.init(params)}
    with pytest.raises(ValueError, match="params=None"):
        optimizer.update(both, optimizer.init(both))


def test_bad_input_is_refused():
    sgd, shape = optax.sgd(0.1), SHAPES["linear"]
    for keep_ratio in (0.0, 1.5, -0.1):
        with pytest.raises(ValueError, match=f"keep_ratio={keep_ratio}"):
            jaxprune.reach_keep_ratio(sgd, PRUNER, keep_ratio=keep_ratio, shape=shape)
    with pytest.raises(TypeError, match=r"shape=0\.5.*schedule"):
        jaxprune.reach_keep_ratio(sgd, PRUNER, keep_ratio=0.5, shape=0.5)
    with pytest.raises(TypeError, match=r"`reach_keep_ratio\(optimizer.*optax\.sgd"):
        jaxprune.reach_keep_ratio(0.1, PRUNER, keep_ratio=0.5, shape=shape)
    with pytest.raises(ValueError, match=r"threshold=-1"):
        jaxprune.follow_threshold(sgd, PRUNER, threshold=-1.0)
    with pytest.raises(TypeError, match=r"`follow_threshold\(pruner=.*Pruner"):
        jaxprune.follow_threshold(sgd, {}, threshold=1.0)


@pytest.mark.parametrize(
    "other",
    [
        jaxprune.ltp(),
        jaxprune.ltp_as_published(temperature=0.01, init_threshold=0.2),
        jaxprune.soft_threshold_reparameterization(),
    ],
    ids=["ltp", "ltp_as_published", "str"],
)
@pytest.mark.parametrize("sign", [None, -1])
def test_variables_of_another_method_are_refused(other, sign, params):
    """Also where the mean of the weights themselves is below zero."""
    if sign is not None:
        params = jax.tree.map(lambda w: sign * jnp.abs(w), params)
    optimizer = jaxprune.reach_keep_ratio(
        optax.sgd(0.1), other, keep_ratio=0.2, shape=SHAPES["linear"]
    )
    with pytest.raises(ValueError, match=r"`reach_keep_ratio.*dual_ascent"):
        optimizer.init({"params": params, "variables": other.init(params)})


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_tree_of_pruning_is_refused_with_what_to_do(name, params):
    trainable = jaxprune.pruning(PRUNER).init(params)
    with pytest.raises(ValueError, match=rf"`{name}.*`pruning\.optimizer\(...\)`"):
        OPTIMIZERS[name]().init(trainable)


def test_the_leaves_that_count_are_those_of_the_pruner(params):
    """Another selection than the kernels meets the keep ratio in its own leaves."""
    pruner = jaxprune.soft_thresholding(where=jaxprune.by_name("a/kernel"))
    optimizer = jaxprune.reach_keep_ratio(
        optax.set_to_zero(), pruner, keep_ratio=0.2, shape=schedules.linear(1.0, 2)
    )
    both = {"params": params, "variables": pruner.init(params)}
    state, zero = optimizer.init(both), jax.tree.map(jnp.zeros_like, both)
    for _ in range(2):
        updates, state = optimizer.update(zero, state, both)
        both = optax.apply_updates(both, updates)
    seen = pruner.apply(*both.values()).params
    assert int(jnp.sum(seen["a"]["kernel"] != 0)) == keep_count(0.2, 1200)
    with pytest.raises(ValueError, match="must be those of"):
        optimizer.init({**both, "variables": PRUNER.init(params)})


def test_variables_that_get_gradients_are_noticed(params):
    """A penalty on thresholds that follow a schedule would be without effect."""
    optimizer = jaxprune.follow_threshold(optax.sgd(0.1), PRUNER, threshold=0.5)
    both = {"params": params, "variables": PRUNER.init(params)}
    zero = jax.tree.map(jnp.zeros_like, both)
    _, state = optimizer.update(zero, optimizer.init(both), both)
    jaxprune.check(state)
    grads = {**zero, "variables": _all(params, 0.1)}
    _, state = optimizer.update(grads, optimizer.init(both), both)
    with pytest.raises(ValueError, match=r"`reach_keep_ratio`.*without a penalty"):
        jaxprune.check(state)
