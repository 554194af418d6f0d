"""Pruned weights stay zero, whatever comes before and whatever the dtypes are."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprune

SIZE = 16 * 6 + 3 * 3 * 8 * 4


def _params(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
    return {
        "conv": {"kernel": draw(3, 3, 8, 4)},
        "dense": {"bias": draw(6), "kernel": draw(16, 6)},
    }


def _kept(dtype=jnp.float32):
    params = _params(dtype)
    return jaxprune.magnitude(sparsity=0.6).masks(params, {})


TRANSFORMS = {
    "freeze_pruned": jaxprune.freeze_pruned,
    "freeze_pruned-sgd": lambda masks: optax.chain(
        optax.add_decayed_weights(0.1),
        optax.sgd(0.05, momentum=0.9, nesterov=True),
        jaxprune.freeze_pruned(masks),
    ),
    "freeze_pruned-adamw": lambda masks: optax.chain(
        optax.adamw(0.05, weight_decay=0.1), jaxprune.freeze_pruned(masks)
    ),
    "freeze_pruned-nested": lambda masks: optax.chain(
        optax.chain(optax.clip_by_global_norm(1.0), optax.rmsprop(0.01)),
        optax.chain(jaxprune.freeze_pruned(masks)),
    ),
}


@pytest.fixture(params=TRANSFORMS)
def transform(request):
    return TRANSFORMS[request.param]


def _outside(params, masks):
    """The largest size of a weight that is not kept."""
    sizes = jax.tree.map(
        lambda w, m: jnp.max(jnp.where(m, 0, jnp.abs(w))).astype(jnp.float32),
        params,
        masks,
    )
    return jnp.max(jnp.stack(jax.tree.leaves(sizes)))


def _train(tx, params, masks, steps):
    """Follows a constant pull away from zero; returns what came back at each step."""

    def step(carry, _):
        params, state = carry
        grads = jax.tree.map(lambda w: w - 3.0, params)
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), _outside(params, masks)

    return jax.lax.scan(step, (params, tx.init(params)), length=steps)


def test_new_masks_of_the_same_shapes_do_not_trace_again():
    params, tx = _params(), jaxprune.freeze_pruned(_kept())
    update = jax.jit(chex.assert_max_traces(tx.update, n=1))
    for sparsity in (0.2, 0.8):
        masks = jaxprune.magnitude(sparsity=sparsity).masks(params, {})
        state = jaxprune.freeze_pruned(masks).init(params)
        updates, _ = update(params, state, params)
        moved = optax.apply_updates(params, updates)
        want = jax.tree.map(lambda w, m: jnp.where(m, 2 * w, 0), params, masks)
        chex.assert_trees_all_equal(moved, want)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_pruned_weights_stay_zero_for_fifty_steps(transform, dtype):
    params, masks = _params(dtype), _kept(dtype)
    if transform is jaxprune.freeze_pruned and dtype != jnp.float32:
        params = jaxprune.apply_masks(params, masks)
    (trained, _), outside = _train(transform(masks), params, masks, 50)
    np.testing.assert_array_equal(np.asarray(outside), np.zeros(50))
    kernel, kept = trained["dense"]["kernel"], masks["dense"]["kernel"]
    assert (np.asarray(kernel != params["dense"]["kernel"])[kept]).all()


def test_without_freezing_pruned_weights_do_come_back():
    params = jaxprune.apply_masks(_params(), _kept())
    _, back = _train(optax.adamw(0.05, weight_decay=0.1), params, _kept(), 5)
    assert float(back[-1]) > 0


@pytest.mark.parametrize("size", [1e-30, 0.01])
def test_one_small_weight_that_came_back_is_noticed(size):
    masks = _kept()
    tx = optax.chain(optax.sgd(0.1), jaxprune.freeze_pruned(masks))
    params = jaxprune.apply_masks(_params(), masks)
    updates, state = tx.update(params, tx.init(params), params)
    params = optax.apply_updates(params, updates)
    _, same = tx.update(params, state, params)
    jaxprune.check(same)
    kernel = np.array(params["dense"]["kernel"])
    kernel[tuple(i[0] for i in np.nonzero(kernel == 0))] = size
    params["dense"]["kernel"] = jnp.asarray(kernel)
    _, other = tx.update(params, state, params)
    with pytest.raises(ValueError, match="freeze_pruned"):
        jaxprune.check(other)


def test_momentum_gathered_before_pruning_brings_nothing_back():
    params, masks = _params(), _kept()
    dense = optax.sgd(0.05, momentum=0.99)
    (params, momentum), _ = _train(dense, params, masks, 5)
    frozen = optax.chain(dense, jaxprune.freeze_pruned(masks))
    _, freeze_state = frozen.init(params)
    params, state = jaxprune.apply_masks(params, masks), (momentum, freeze_state)
    update = jax.jit(frozen.update)
    for _ in range(10):
        zero = jax.tree.map(jnp.zeros_like, params)
        updates, state = update(zero, state, params)
        params = optax.apply_updates(params, updates)
        assert float(_outside(params, masks)) == 0


def test_masks_survive_the_donation_of_the_state(transform):
    params, masks = _params(), _kept()
    tx = transform(masks)
    step = jax.jit(tx.update, donate_argnums=1)
    state = tx.init(params)
    old = state
    for _ in range(2):
        updates, state = step(params, state, params)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(old))
    kept = sum(jaxprune.masks.kept_counts(params, masks).values())
    others = sum(m.ndim == 0 for m in jax.tree.leaves(masks))
    assert all(not m.is_deleted() for m in jax.tree.leaves(masks))
    assert kept > others
    again, _ = tx.update(params, tx.init(params), params)
    chex.assert_trees_all_equal_shapes_and_dtypes(again, updates)


def test_multi_steps_holds_pruned_weights_at_zero(transform):
    params = jaxprune.apply_masks(_params(), _kept())
    tx = optax.MultiSteps(transform(_kept()), every_k_schedule=2)
    state = tx.init(params)
    update = jax.jit(tx.update)
    for i in range(6):
        grads = jax.tree.map(lambda w: w - 3.0, params)
        updates, state = update(grads, state, params)
        moved = optax.apply_updates(params, updates)
        assert float(_outside(moved, _kept())) == 0
        still = bool((moved["dense"]["bias"] == params["dense"]["bias"]).all())
        assert still == (i % 2 == 0)
        params = moved
    assert int(state.gradient_step) == 3


def test_masks_that_do_not_fit_are_refused_by_init(transform):
    params = _params()
    wrong = {**_kept(), "dense": {"bias": jnp.ones(6, bool), "kernel": jnp.ones(6)}}
    with pytest.raises(TypeError, match="'dense/kernel' must be boolean"):
        transform(wrong).init(params)
    wrong["dense"]["kernel"] = jnp.ones((1, 6), bool)
    with pytest.raises(ValueError, match=r"'dense/kernel'.*\(16, 6\).*\(1, 6\)"):
        transform(wrong).init(params)
    del wrong["dense"]["kernel"]
    with pytest.raises(ValueError, match=r"Only in the\s+parameters: \['dense/kernel"):
        transform(wrong).init(params)


@pytest.mark.parametrize(
    ("of_updates", "of_params", "size"),
    [
        ("bfloat16", "float32", 1.0),
        ("float16", "float32", 1e6),
        ("bfloat16", "float16", 3.0),
        ("float32", "bfloat16", 1.0),
    ],
)
def test_updates_of_another_type_take_pruned_weights_to_zero(
    of_updates, of_params, size
):
    """Also parameters that were not masked before, and a zero with a sign."""
    params = jax.tree.map(lambda w: size * w, _params(of_params))
    params["dense"]["kernel"] = params["dense"]["kernel"].at[0, 0].set(-0.0)
    masks = jax.tree.map(jnp.copy, _kept())
    masks["dense"]["kernel"] = masks["dense"]["kernel"].at[0, 0].set(False)
    tx = jaxprune.freeze_pruned(masks)
    grads = jax.tree.map(lambda w: jnp.ones(w.shape, of_updates), params)
    updates, _ = jax.jit(tx.update)(grads, tx.init(params), params)
    moved = optax.apply_updates(params, updates)
    assert float(_outside(moved, masks)) == 0
    assert not np.signbit(np.asarray(moved["dense"]["kernel"][0, 0], np.float32))
    want = optax.apply_updates(params, grads)["dense"]["bias"]
    np.testing.assert_array_equal(moved["dense"]["bias"], want)


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf, -jnp.inf])
def test_a_pruned_weight_that_no_update_takes_to_zero_is_refused(value):
    masks, params = _kept(), jax.tree.map(jnp.copy, _params())
    where = tuple(int(i[0]) for i in np.nonzero(~np.asarray(masks["dense"]["kernel"])))
    params["dense"]["kernel"] = params["dense"]["kernel"].at[where].set(value)
    tx = jaxprune.freeze_pruned(masks)
    with pytest.raises(ValueError, match=r"`freeze_pruned.*'dense/kernel'.*apply_mask"):
        tx.init(params)
    jaxprune.check(tx.init(jaxprune.apply_masks(params, masks)))
    # A kept one is the business of whoever looks at the loss.
    where = tuple(int(i[0]) for i in np.nonzero(masks["dense"]["kernel"]))
    params = jax.tree.map(jnp.copy, _params())
    params["dense"]["kernel"] = params["dense"]["kernel"].at[where].set(value)
    tx.init(params)


def test_masks_of_all_leaves_serve_inside_masked_and_partition():
    """Leaves that optax hides keep their masks unused."""
    params, masks = _params(), _kept()
    labels = {"conv": "frozen", "dense": "free"}
    frozen = optax.chain(optax.adamw(0.1), jaxprune.freeze_pruned(masks))
    parts = optax.partition({"frozen": frozen, "free": optax.sgd(0.1)}, labels)
    masked = optax.masked(frozen, {"conv": True, "dense": False})
    for tx in (parts, masked):
        state = tx.init(params)
        updates, state = jax.jit(tx.update)(params, state, params)
        moved = optax.apply_updates(params, updates)
        conv = {"conv": moved["conv"]}, {"conv": masks["conv"]}
        assert float(_outside(*conv)) == 0
        assert bool(jnp.all(moved["dense"]["kernel"] != 0))
        jaxprune.check(state)


def test_a_leaf_without_a_mask_is_refused_inside_masked():
    masks = {"conv": {"kernel": _kept()["conv"]["kernel"]}}
    tx = optax.masked(
        jaxprune.freeze_pruned(masks), {"conv": True, "dense": {"bias": 1, "kernel": 0}}
    )
    with pytest.raises(ValueError, match=r"every leaf must have a mask.*dense/bias"):
        tx.init(_params())


@pytest.mark.parametrize("dtype", ["int8", "int32", "bool"])
def test_a_mask_of_integers_is_refused_unless_it_keeps_all(dtype):
    params = {"w": jnp.ones((2, 2), dtype)}
    pruned = {"w": jnp.array([[True, False], [True, True]])}
    for masks in (pruned, {"w": jnp.array(False)}):
        with pytest.raises(TypeError, match=r"`freeze_pruned\(masks\)`.*'w' has dtype"):
            jaxprune.freeze_pruned(masks).init(params)
    jaxprune.check(jaxprune.freeze_pruned({"w": jnp.array(True)}).init(params))
