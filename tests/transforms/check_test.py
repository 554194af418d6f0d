"""Transformations that are not in their place are noticed, and finalize acts on it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprune
from jaxprune import schedules, transforms
from jaxprune.base import PruningWarning

ISTA = transforms.ista(3.0, 0.1)


@pytest.fixture
def params(rng):
    return {
        "a": {"kernel": jnp.asarray(rng.normal(size=(20, 15)), jnp.float32)},
        "b": {"bias": jnp.ones(4), "kernel": jnp.asarray(rng.normal(size=(15, 4)))},
    }


def _lats(rate=0.1):
    return jaxprune.lats(optax.sgd(rate), threshold=0.2)


def _frozen(params):
    masks = jaxprune.global_magnitude(sparsity=0.5).masks(params, {})
    return jaxprune.freeze_pruned(masks)


def _run(tx, params, steps=2, edit=lambda params: params):
    state, update = tx.init(params), jax.jit(tx.update)
    for i in range(steps):
        grads = jax.tree.map(lambda w, i=i: w - 0.1 * i, params)
        updates, state = update(grads, state, params)
        params = edit(optax.apply_updates(params, updates))
    return params, state


WRONG = {
    "lats, scale": lambda _: optax.chain(_lats(), optax.scale(0.5)),
    "lats, clip": lambda _: optax.chain(_lats(), optax.clip(1e-3)),
    "lats, lats": lambda _: optax.chain(
        _lats(), jaxprune.lats(optax.sgd(1.0), threshold=0.1)
    ),
    "lats, ema": lambda _: optax.chain(_lats(), optax.ema(0.9)),
    "schedule_free": lambda _: optax.contrib.schedule_free(_lats(), 0.1),
    "ista, sgd": lambda _: optax.chain(ISTA, optax.sgd(0.1)),
    "sgd, ista, clip": lambda _: optax.chain(optax.sgd(0.1), ISTA, optax.clip(0.01)),
    "fista, scale": lambda _: optax.chain(
        optax.sgd(0.1), transforms.fista(1.0, 0.1), optax.scale(0.9)
    ),
    "adam_ista, scale": lambda _: optax.chain(
        transforms.adam_ista(5.0, 0.1), optax.scale(0.5)
    ),
    "gradual_magnitude, scale": lambda _: optax.chain(
        jaxprune.gradual_magnitude(optax.sgd(0.1), sparsity=0.5, steps=2),
        optax.scale(0.5),
    ),
    "freeze, adam": lambda p: optax.chain(_frozen(p), optax.adam(0.1)),
    "freeze, decay": lambda p: optax.chain(_frozen(p), optax.scale(0.5)),
    "ista behind MultiSteps": lambda _: optax.chain(
        optax.MultiSteps(optax.sgd(0.1), 4), ISTA
    ),
    "lats around MultiSteps": lambda _: jaxprune.lats(
        optax.MultiSteps(optax.sgd(0.1), 4), threshold=0.2
    ),
    "ista behind apply_every": lambda _: optax.chain(
        optax.sgd(0.1), optax.apply_every(4), ISTA
    ),
    "inside partition": lambda _: optax.partition(
        {"all": optax.chain(_lats(), optax.scale(0.5))},
        lambda p: jax.tree.map(lambda _: "all", p),
    ),
}


# In their first step, averages are what they average.
LATER = ("lats, ema", "schedule_free")


@pytest.mark.parametrize("name", WRONG)
def test_a_transformation_in_the_wrong_place_is_noticed_at_the_next_update(
    name, params
):
    trained, state = _run(WRONG[name](params), params, steps=2 + (name in LATER))
    with pytest.raises(ValueError, match=r"`check\(opt_state\)`"):
        jaxprune.check(state)
    with pytest.raises(ValueError, match=r"`check\(opt_state\)`"):
        jaxprune.finalize(trained, state)


def test_a_synchronised_lookahead_is_noticed(params):
    tx = optax.lookahead(_lats(), sync_period=1, slow_step_size=0.5)
    both = optax.LookaheadParams.init_synced(params)
    state = tx.init(both)
    for _ in range(2):
        grads = both.fast
        updates, state = tx.update(grads, state, both)
        both = optax.apply_updates(both, updates)
    with pytest.raises(ValueError, match=r"optax\.lookahead"):
        jaxprune.check(state)


RIGHT = {
    "lats": lambda _: _lats(),
    "clip, lats": lambda _: optax.chain(optax.clip_by_global_norm(1.0), _lats()),
    "MultiSteps around": lambda _: optax.MultiSteps(
        optax.chain(optax.sgd(0.1), ISTA), 2
    ),
    "adam, freeze": lambda p: optax.chain(optax.adam(0.1), _frozen(p)),
    "MultiSteps, freeze": lambda p: optax.chain(
        optax.MultiSteps(optax.adam(0.1), 2), _frozen(p)
    ),
    "nothing of ours": lambda _: optax.adam(0.1),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_transformation_in_its_place_is_not(name, params):
    jaxprune.check(_run(RIGHT[name](params), params, 5)[1])


EDITS = {
    "masks": lambda p: jax.tree.map(lambda w: jnp.where(jnp.abs(w) > 1, w, 0), p),
    "one weight": lambda p: {
        **p,
        "a": {"kernel": p["a"]["kernel"].at[2, 3].add(1e-3)},
    },
    "precision": lambda p: jax.tree.map(
        lambda w: w.astype("bfloat16").astype(w.dtype), p
    ),
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("sized", [False, True])
def test_parameters_edited_under_lats_are_noticed(edit, sized, params):
    tx = jaxprune.lats(optax.sgd(0.1), sparsity=0.9, steps=9) if sized else _lats()
    _, state = _run(tx, params, 3, EDITS[edit])
    with pytest.raises(ValueError, match=r"`lats`.*do not edit the parameters"):
        jaxprune.check(state)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_rounding_is_no_edit_and_one_lost_zero_is(dtype, rng):
    """Of 10^6 weights, each a unit in the last place off, in either direction."""
    tx = jaxprune.lats(optax.sgd(0.1), threshold=0.2)
    params = {"kernel": jnp.asarray(rng.normal(size=(1000, 1000)), dtype)}
    update, grads = jax.jit(tx.update), jax.tree.map(lambda w: 20 * w, params)
    updates, state = update(grads, tx.init(params), params)
    weights = np.asarray(optax.apply_updates(params, updates)["kernel"])
    unsigned = f"uint{8 * weights.itemsize}"
    off = weights.view(unsigned) + rng.choice([-1, 0, 1], weights.shape)
    rounded = np.where(weights == 0, weights, off.astype(unsigned).view(weights.dtype))
    assert not update(grads, state, {"kernel": jnp.asarray(rounded)})[1].watch.misplaced
    lost = weights.copy()
    lost.flat[np.flatnonzero(weights == 0)[0]] = 1e-3
    assert update(grads, state, {"kernel": jnp.asarray(lost)})[1].watch.misplaced


def test_parameters_that_are_replaced_without_a_new_state_are_noticed(params):
    trained, state = _run(_lats(), params)
    _, state = _lats().update(params, state, params)
    with pytest.raises(ValueError, match="new state with `init`"):
        jaxprune.check(state)
    jaxprune.check(_run(_lats(), trained)[1])


def test_leaves_that_are_not_selected_may_be_edited(params):
    edit = lambda p: {**p, "b": {**p["b"], "bias": jnp.zeros(4)}}
    jaxprune.check(_run(_lats(), params, 3, edit)[1])


def test_zeros_of_either_sign_and_nan_are_no_edits(params):
    zero = jax.tree.map(lambda w: w.at[0].set(-0.0), params)
    jaxprune.check(_run(optax.MultiSteps(_lats(), 3), zero, 5)[1])
    broken = jax.tree.map(lambda w: w.at[0].set(jnp.nan), params)
    jaxprune.check(_run(_lats(), broken, 3)[1])


# --- finalize --------------------------------------------------------------------


SIZED = {
    "lats": lambda: jaxprune.lats(optax.adam(0.1), sparsity=0.9, steps=4),
    "ista": lambda: optax.chain(optax.sgd(0.1), transforms.ista(sparsity=0.9, steps=4)),
    "adam_ista": lambda: transforms.adam_ista(learning_rate=0.1, sparsity=0.9, steps=4),
    "gradual_magnitude": lambda: jaxprune.gradual_magnitude(
        optax.adam(0.1), sparsity=0.9, steps=4
    ),
}


@pytest.mark.parametrize("name", SIZED)
def test_finalize_gives_the_exact_size_and_dense_biases(name, params):
    trained, state = _run(SIZED[name](), params, 5)
    final = jaxprune.finalize(trained, state)
    assert jaxprune.summarize(final.params, final.masks).kept == 36
    assert final.masks["b"]["bias"].shape == ()
    assert bool(final.masks["b"]["bias"])


@pytest.mark.parametrize("name", SIZED)
def test_finalize_warns_where_training_ended_early(name, params):
    trained, state = _run(SIZED[name](), params, 2)
    with pytest.warns(PruningWarning, match="of 360 selected weights.*keeps 36"):
        jaxprune.finalize(trained, state)


def test_finalize_of_an_average_says_how_it_gets_its_zeros(params):
    trained, state = _run(SIZED["lats"](), params, 5)
    average = optax.incremental_update(trained, params, 0.5)
    with pytest.warns(PruningWarning, match=r"an average of them.*`jaxprune.apply_ma"):
        jaxprune.finalize(average, state)
    masks = jaxprune.finalize(trained, state).masks
    assert jaxprune.summarize(jaxprune.apply_masks(average, masks), masks).kept == 36


@pytest.mark.parametrize(("lost", "warns"), [(1, False), (2, True)])
def test_finalize_allows_a_size_one_weight_of_rounding(lost, warns, params, recwarn):
    trained, state = _run(SIZED["lats"](), params, 5)
    kernel = np.array(trained["a"]["kernel"])
    kernel[tuple(i[:lost] for i in np.nonzero(kernel))] = 0
    jaxprune.finalize({**trained, "a": {"kernel": jnp.asarray(kernel)}}, state)
    assert [str(w.message)[:12] for w in recwarn] == ["`finalize(pa"] * warns


def test_finalize_returns_the_sparse_sequence_of_fista(params):
    tx = optax.chain(optax.sgd(0.1), transforms.fista(2.0, 0.1))
    trained, state = _run(tx, params, 4)
    final = jaxprune.finalize(trained, state)
    iterate = optax.tree.get(state, "iterate")
    np.testing.assert_array_equal(final.params["a"]["kernel"], iterate["a"]["kernel"])
    np.testing.assert_array_equal(final.params["b"]["bias"], trained["b"]["bias"])
    assert not bool(jnp.all(final.masks["a"]["kernel"]))


CHOSEN = {
    "one leaf": lambda where: jaxprune.lats(
        optax.sgd(0.1), sparsity=0.9, steps=4, where=where
    ),
    "in a partition": lambda where: optax.partition(
        {
            True: optax.chain(
                optax.sgd(0.1), transforms.ista(sparsity=0.9, steps=4, where=True)
            ),
            False: optax.sgd(0.1),
        },
        where,
    ),
    "around Adam": lambda where: transforms.adam_ista(
        learning_rate=0.1, sparsity=0.9, steps=4, where=where
    ),
    "accumulated": lambda where: optax.MultiSteps(
        jaxprune.gradual_magnitude(optax.sgd(0.1), sparsity=0.9, steps=4, where=where),
        1,
    ),
}


@pytest.mark.parametrize("name", CHOSEN)
def test_finalize_takes_the_leaves_that_the_state_prunes(name, params):
    where = lambda p: {"a": {"kernel": True}, "b": {"bias": False, "kernel": False}}
    trained, state = _run(CHOSEN[name](where), params, 5)
    final = jaxprune.finalize(trained, state)
    assert int(final.masks["a"]["kernel"].sum()) == 30
    assert final.masks["b"]["kernel"].shape == ()
    assert final.report.keep_ratio == pytest.approx(0.1)
    assert final.report.limits["density"] == pytest.approx(0.1)


def test_the_report_of_finalize_names_what_is_emptied(params):
    params["b"]["kernel"] = params["b"]["kernel"] * 1e-3
    tx = jaxprune.lats(optax.sgd(0.0), sparsity=0.9, steps=4)
    with pytest.warns(PruningWarning, match=r"nothing is left of b/kernel\. Leave it"):
        report = jaxprune.finalize(*_run(tx, params, 5)).report
    assert report.emptied == ("b/kernel",)
    assert report.costs == {"density": 0.1}
    assert "emptied" in str(report)


@pytest.mark.parametrize("number", [0, 1])
def test_finalize_of_no_weight_and_of_one(number):
    params = {"kernel": jnp.ones((1, 1))} if number else {}
    report = jaxprune.finalize(*_run(_lats(), params, 2)).report
    assert report.keep_ratio == number
    assert report.emptied == ()


def test_finalize_refuses_the_state_of_other_parameters(params):
    trained, state = _run(_lats(), params)
    with pytest.raises(ValueError, match=r"`finalize.*'b/kernel', which the param"):
        jaxprune.finalize({"a": trained["a"]}, state)


def test_finalize_refuses_nan_and_states_without_a_pruning_transformation(params):
    trained, state = _run(_lats(), params)
    trained["a"]["kernel"] = trained["a"]["kernel"].at[0, 0].set(jnp.nan)
    with pytest.raises(ValueError, match=r"`finalize.*'a/kernel' must be finite"):
        jaxprune.finalize(trained, state)
    for tx in (optax.adam(0.1), optax.chain(optax.sgd(0.1), _frozen(params))):
        with pytest.raises(ValueError, match=r"`finalize.*that prunes"):
            jaxprune.finalize(params, tx.init(params))


def test_biases_that_start_at_zero_learn_in_fine_tuning(params):
    params["b"]["bias"] = jnp.zeros(4)
    trained, state = _run(optax.chain(_lats(0.0)), params)
    final = jaxprune.finalize(trained, state)
    rate = schedules.fine_tuning(0.3, 10)
    tx = optax.chain(optax.sgd(rate), jaxprune.freeze_pruned(final.masks))
    tuned, state = _run(tx, final.params, 2)
    assert bool(jnp.all(tuned["b"]["bias"] != 0))
    np.testing.assert_array_equal(
        tuned["a"]["kernel"] == 0, ~final.masks["a"]["kernel"]
    )
    jaxprune.check(state)


def test_finalize_refuses_a_state_without_an_update(params):
    tx = transforms.lats(optax.sgd(0.1), threshold=0.5)
    trained, state = _run(tx, params)
    batch = jax.tree.map(lambda *pair: jnp.stack(pair), state, tx.init(params))
    for other in (tx.init(params), (state, tx.init(params)), batch):
        with pytest.raises(ValueError, match="at least one update"):
            transforms.finalize(trained, other)


def test_decisions_on_the_host_are_refused_under_a_trace(params):
    state = transforms.lats(optax.sgd(0.1), threshold=0.5).init(params)
    pruning = jaxprune.pruning(jaxprune.ltp(), jaxprune.at_most(jaxprune.density, 0.5))
    for name, call, given in (
        ("check", transforms.check, (state,)),
        ("finalize", transforms.finalize, (params, state)),
        ("summarize", jaxprune.summarize, (params,)),
        ("finalize", pruning.finalize, (pruning.init(params),)),
    ):
        with pytest.raises(TypeError, match=rf"^`{name}\(.*outside of `jax.jit`"):
            jax.jit(lambda *given, call=call: call(*given) and None)(*given)


@pytest.mark.parametrize("batch", [1, 3])
def test_finalize_takes_a_batch_of_networks(batch):
    tx = transforms.lats(optax.sgd(0.1), sparsity=0.5, steps=2)

    def train(key):
        params = {"kernel": jax.random.normal(key, (8, 8))}
        state = tx.init(params)
        for _ in range(3):
            updates, state = tx.update(params, state, params)
            params = optax.apply_updates(params, updates)
        return params, state

    params, state = jax.vmap(train)(jax.random.split(jax.random.key(0), batch))
    final = jaxprune.finalize(params, state)
    kept = np.sum(final.masks["kernel"], (1, 2))
    np.testing.assert_array_equal(kept, np.full(batch, 32))
    # One of them is of other parameters than the state of all.
    if batch > 1:
        one = jax.tree.map(lambda x: x[0], params)
        with pytest.raises(ValueError, match="64 entries are selected; it is of 192"):
            jaxprune.finalize(one, state)
