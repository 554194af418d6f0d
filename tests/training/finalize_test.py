"""The final network: exactly the target, in the order of the method, and warnings."""

import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprune
from jaxprune import costs
from jaxprune.base import PruningWarning
from jaxprune.budgets import Result


def _params():
    draw = np.random.default_rng(0).normal
    kernels = (jnp.asarray(draw(size=n), jnp.float32) for n in ((30, 20), (20, 10)))
    return {
        "a": {"bias": jnp.ones(20), "kernel": next(kernels)},
        "b": {"kernel": next(kernels)},
    }


def _trained(pruning, steps=1):
    """A state whose budget has counted steps, the weights as they were."""
    trainable = pruning.init(_params())
    counts = {"step": jnp.float32(steps), "twice": jnp.float32(2 * steps)}
    return {**trainable, "budget": {**trainable["budget"], **counts}}


def _at_threshold(trainable, value):
    moved = jax.tree.map(lambda v: jnp.full_like(v, value), trainable["variables"])
    return {**trainable, "variables": moved}


def _quietly(function, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PruningWarning)
        return function(*args, **kwargs)


@pytest.mark.parametrize("target", [0.5, 0.1, 0.29, 0.01])
def test_a_target_density_is_met_exactly(target):
    limit = jaxprune.at_most(jaxprune.density, target, ramp=(0, 10))
    pruning = jaxprune.pruning(jaxprune.ltp(min_keep_ratio=0.0), limit)
    final = _quietly(pruning.finalize, _trained(pruning))
    kept = sum(int(jnp.sum(final.params[x]["kernel"] != 0)) for x in "ab")
    assert kept == jaxprune.masks.keep_count(target, 800)
    assert final.report.keep_ratio == pytest.approx(kept / 800)
    chex.assert_trees_all_equal(
        final.params, jaxprune.apply_masks(_params(), final.masks)
    )


def test_soft_thresholds_stay_in_the_final_weights():
    limit = jaxprune.at_most(jaxprune.density, 0.4)
    pruning = jaxprune.pruning(jaxprune.soft_thresholding(), limit)
    trainable = _at_threshold(_trained(pruning), 0.5)
    final = _quietly(pruning.finalize, trainable)
    seen, _ = pruning(trainable)
    kept = np.asarray(final.masks["a"]["kernel"])
    np.testing.assert_allclose(
        np.asarray(final.params["a"]["kernel"])[kept],
        np.asarray(seen["a"]["kernel"])[kept],
        atol=1e-7,
    )


def test_without_a_limit_the_method_decides():
    pruning = jaxprune.pruning(jaxprune.ltp())
    trainable = _at_threshold(_trained(pruning), 1.0)
    final = pruning.finalize(trainable)
    want = pruning.pruner.masks(_params(), trainable["variables"])
    chex.assert_trees_all_equal(final.masks, want)
    assert final.report.own_keep_ratio == pytest.approx(final.report.keep_ratio)


def test_a_limit_on_another_cost_is_met_by_the_largest_network():
    def cost(keep_ratios):
        return 0.9 * keep_ratios["a/kernel"] + 0.1 * keep_ratios["b/kernel"]

    pruning = jaxprune.pruning(jaxprune.ltp(), jaxprune.at_most(cost, 0.3))
    final = _quietly(pruning.finalize, _trained(pruning))
    (value,) = final.report.costs.values()
    assert 0.3 - 2 / 600 <= value <= 0.3


@pytest.mark.parametrize(("limit", "kept"), [(0.5, 200), (0.125, 100)])
@pytest.mark.parametrize(
    "method",
    [jaxprune.magnitude(sparsity=0.75), jaxprune.garrote(sparsity=0.75, steps=1)],
    ids=["magnitude", "garrote"],
)
def test_a_limit_only_lowers_a_size_that_was_stated(method, limit, kept):
    limit = jaxprune.at_most(jaxprune.density, limit)
    pruning = jaxprune.pruning(method, limit)
    final = _quietly(pruning.finalize, _trained(pruning))
    assert jaxprune.summarize(final.params, final.masks).kept == kept


def test_a_cut_far_from_the_training_warns_and_is_reported():
    limit = jaxprune.at_most(jaxprune.density, 0.05)
    pruning = jaxprune.pruning(jaxprune.ltp(), limit)
    trainable = _at_threshold(_trained(pruning), 0.5)  # keeps far more
    with pytest.warns(PruningWarning, match="by its own rule"):
        final = pruning.finalize(
            trainable, evaluate=lambda p: jnp.sum(p["b"]["kernel"])
        )
    assert final.report.own_keep_ratio > 0.5
    assert final.report.score == pytest.approx(float(final.params["b"]["kernel"].sum()))
    text = str(final.report)
    assert "keep ratio by the method" in text
    assert "score, final" in text


def test_the_verdict_is_that_of_the_network_that_is_delivered():
    limit = jaxprune.at_most(jaxprune.density, 0.5)
    pruning = jaxprune.pruning(jaxprune.ltp(), limit)
    trainable = _trained(pruning)  # its budget has seen no cost: NOT_MET
    trainable = _at_threshold(trainable, 0.45)
    report = _quietly(pruning.finalize, trainable).report
    assert report.result is Result.NOT_MET
    assert report.costs["density"] <= report.limits["density"] == 0.5
    assert "budget while training" in str(report)


@pytest.mark.parametrize("minimum", [0.0, 1e-3])
def test_an_emptied_leaf_warns(minimum):
    limit = jaxprune.at_most(jaxprune.density, 0.01)
    pruning = jaxprune.pruning(jaxprune.ltp(min_keep_ratio=minimum), limit)
    trainable = _trained(pruning)
    weights = {**_params(), "b": {"kernel": 1e-3 * _params()["b"]["kernel"]}}
    rough = weights["b"]["kernel"].at[0, 0].set(1.0)  # one weight sets the spread
    trainable["params"] = {**weights, "b": {"kernel": rough}}
    trainable["variables"] = {"a/kernel": jnp.float32(0), "b/kernel": jnp.float32(50)}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PruningWarning)
        _, _, report = pruning.finalize(trainable)
    assert any("nothing is left of b/kernel" in str(w.message) for w in caught)
    assert report.emptied == ("b/kernel",)


def test_groups_of_channels_are_called_emptied_where_none_is_left_only():
    def apply_fn(params, x):
        hidden = jnp.tanh(jnp.tanh(x @ params["a"]) @ params["b"])
        return hidden @ params["c"]

    sizes = {"a": (3, 8), "b": (8, 6), "c": (6, 2)}
    params = {name: jnp.ones(shape) for name, shape in sizes.items()}
    graph = jaxprune.trace_channels(apply_fn, params, jnp.ones((1, 3)))
    whole, cut = graph.groups
    pruner = jaxprune.dsa(graph, fixed={whole: 1.0})
    limit = jaxprune.at_most(costs.macs(graph), 0.6)

    def dropped(params, variables, /, *, counts=None):
        masks = pruner.masks(params, variables, counts=counts)
        return {**masks, cut: np.zeros_like(masks[cut])}

    for one, emptied in ((pruner, ()), (pruner._replace(masks=dropped), (cut,))):
        pruning = jaxprune.pruning(one, limit)
        trainable = pruning.init(params)
        trainable["budget"] |= {"step": jnp.float32(1), "twice": jnp.float32(2)}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", PruningWarning)
            final = pruning.finalize(trainable)
        assert final.masks[whole].all()
        assert final.report.emptied == emptied
        said = [str(w.message) for w in caught if "nothing is left" in str(w.message)]
        assert len(said) == len(emptied)


def test_a_method_that_prunes_once_is_counted():
    pruning = jaxprune.pruning(jaxprune.random_erk(jax.random.key(0)))
    report = pruning.finalize(_trained(pruning), keep_ratio=0.5).report
    assert report.keep_ratio == pytest.approx(0.5)
    assert not report.emptied


METHODS = {
    "ltp": jaxprune.ltp(),
    "soft_thresholding": jaxprune.soft_thresholding(),
    "identity": jaxprune.identity(),
    "magnitude": jaxprune.magnitude(sparsity=0.5),
    "magnitude, a schedule": jaxprune.magnitude(sparsity=lambda step: 0.5),
    "magnitude, one schedule of two": jaxprune.magnitude(
        sparsity={"a/*": 0.5, "*": lambda step: 0.5}
    ),
    "random_erk": jaxprune.random_erk(jax.random.key(0)),
}
WITHOUT_SIZE = {
    "magnitude, a schedule",
    "magnitude, one schedule of two",
    "random_erk",
}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_whether_it_has_a_size_of_its_own(name):
    pruner, params = METHODS[name], _params()
    assert pruner.has_own_size == (name not in WITHOUT_SIZE)
    if pruner.has_own_size:
        pruner.masks(params, pruner.init(params))
    else:
        with pytest.raises(ValueError, match="keep_ratio"):
            pruner.masks(params, pruner.init(params))


def test_a_fault_in_the_rule_of_a_method_is_not_hidden():
    def broken(params, variables, /, *, keep_ratio=None):
        if keep_ratio is None:
            raise ValueError("the rule is broken")
        return jaxprune.ltp().masks(params, variables, keep_ratio=keep_ratio)

    limit = jaxprune.at_most(jaxprune.density, 0.5)
    pruning = jaxprune.pruning(jaxprune.ltp()._replace(masks=broken), limit)
    with pytest.raises(ValueError, match="the rule is broken"):
        pruning.finalize(_trained(pruning))


RAMP = {"ramp": (0, 50)}


@pytest.mark.parametrize("ramp", [{}, RAMP], ids=["number", "ramp"])
@pytest.mark.parametrize(
    "pruner",
    [
        jaxprune.ltp(min_keep_ratio=0.11),
        jaxprune.soft_thresholding(min_keep_ratio=0.11),
        jaxprune.soft_threshold_reparameterization(min_keep_ratio=0.11),
    ],
    ids=["ltp", "soft_thresholding", "str"],
)
def test_a_limit_below_the_minimum_of_the_method_is_refused_before_training(
    pruner, ramp
):
    params = {"kernel": jnp.ones((4, 4))}  # ceil(0.11 * 16) = 2 weights stay

    def init(limit):
        limit = jaxprune.at_most(jaxprune.density, limit, **ramp)
        return jaxprune.pruning(pruner, limit).init(params)

    init(0.125)
    with pytest.raises(ValueError, match=r"`pruning\(density=0\.1\b.*is 0\.1251 of"):
        init(0.1)


def test_a_limit_below_one_channel_of_each_group_is_refused_under_any_solver():
    mlp = lambda params, x: jnp.tanh(x @ params["w1"]) @ params["w2"]
    params = {"w1": jnp.ones((3, 8)), "w2": jnp.ones((8, 2))}
    graph = jaxprune.trace_channels(mlp, params, jnp.ones((1, 3)))
    for solver in (None, jaxprune.dual_ascent, jaxprune.admm_as_published):
        limit = jaxprune.at_most(costs.macs(graph), 0.1, ramp=(0, 50))
        pruning = jaxprune.pruning(jaxprune.dsa(graph), limit, solver=solver)
        with pytest.raises(ValueError, match=r"macs=0\.1 at step.*is 0\.12"):
            pruning.init(params)


def test_a_solver_without_limits_is_used():
    cost = jaxprune.density(_params())
    fixed = jaxprune.pruning(
        jaxprune.ltp(), solver=lambda limits: jaxprune.weighted(cost, 2.0)
    )
    _, penalty = fixed(fixed.init(_params()))
    assert float(penalty) == pytest.approx(2.0, rel=0.2)
    assert hash(fixed) == hash(fixed)


def test_what_diverged_or_was_not_trained_is_refused():
    limit = jaxprune.at_most(jaxprune.density, 0.5)
    pruning = jaxprune.pruning(jaxprune.ltp(), limit)
    with pytest.raises(ValueError, match=r"no step was counted.*penalty"):
        pruning.finalize(pruning.init(_params()))
    trainable = _trained(pruning)
    broken = {**_params(), "b": {"kernel": jnp.full((20, 10), jnp.nan)}}
    with pytest.raises(ValueError, match=r"'b/kernel' is not"):
        pruning.finalize({**trainable, "params": broken})


def test_channels_meet_a_limit_and_compact():
    def apply_fn(params, x):
        hidden = jnp.tanh(jnp.dot(x, params["a"]["kernel"]) + params["a"]["bias"][None])
        return jnp.dot(hidden, params["b"]["kernel"])

    graph = jaxprune.trace_channels(apply_fn, _params(), jnp.ones((4, 30)))
    limit = jaxprune.at_most(costs.macs(graph), 0.5, name="macs")
    pruning = jaxprune.pruning(jaxprune.dsa(graph), limit)
    tx = pruning.optimizer(optax.sgd(1e-2))
    trainable = pruning.init(_params())
    x = jnp.ones((4, 30))

    @jax.jit
    def step(trainable, state):
        def loss(trainable):
            params, penalty = pruning(trainable)
            return jnp.mean(apply_fn(params, x) ** 2) + penalty

        updates, state = tx.update(jax.grad(loss)(trainable), state, trainable)
        return optax.apply_updates(trainable, updates), state

    trainable, _ = step(trainable, tx.init(trainable))
    small, final = _quietly(pruning.compact, trainable)
    assert small.trees[0]["a"]["kernel"].shape == (30, 10)
    assert final.report.costs["macs"] <= 0.5
    score = lambda params: apply_fn(params, x).sum()
    final = _quietly(pruning.finalize, trainable, evaluate=score)
    masked = graph.masked(final.masks)(trainable["params"], x)
    assert final.report.score == pytest.approx(float(masked.sum()), rel=1e-4)
    # The final weights compute without the removed channels, in their dense shapes.
    np.testing.assert_allclose(apply_fn(final.params, x), masked, rtol=1e-5)
    eight, _ = _quietly(pruning.compact, trainable, multiple_of=8)
    assert eight.trees[0]["a"]["kernel"].shape == (30, 8)
    np.testing.assert_allclose(
        np.asarray(small.apply_fn(small.trees[0], x)), np.asarray(masked), rtol=1e-5
    )
    with pytest.raises(ValueError, match="counts single weights"):
        pruning.finalize(trainable, keep_ratio=0.5)
    with pytest.raises(ValueError, match=r"batch_stats=...\)`: must have been traced"):
        pruning.compact(trainable, batch_stats={"mean": jnp.ones(20)})
    weights = jaxprune.pruning(jaxprune.ltp())
    with pytest.raises(TypeError, match="leaves shapes as they are"):
        weights.compact(_trained(weights))


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (optax.adam(1e-2), "the budget must be moved"),
        (optax.lion(1e-2), "the budget must be moved"),
        (optax.sgd(0.1), "no step was counted"),
    ],
)
def test_a_budget_that_another_optimizer_moved_is_refused(optimizer, message):
    """The user forgot `pruning.optimizer`: multipliers and ramp moved wrongly."""
    finalize, trainable = _trained_by(lambda _: optimizer)
    with pytest.raises(ValueError, match=rf"`finalize\(trainable\)`: {message}"):
        finalize(trainable)


@pytest.mark.parametrize(
    "around",
    [
        lambda tx: optax.chain(tx, optax.scale_by_learning_rate(-1.0)),
        lambda tx: optax.MultiSteps(tx, 2),
    ],
)
def test_a_budget_behind_what_keeps_its_updates_is_finalized(around):
    assert _quietly(*_trained_by(around)).report.keep_ratio == 0.5


@pytest.mark.parametrize(
    "around",
    [
        lambda tx: optax.chain(tx, optax.add_decayed_weights(-1e-3)),
        lambda tx: optax.chain(tx, optax.trace(0.9)),
        lambda tx: optax.contrib.schedule_free(tx, 0.1),
        lambda tx: optax.chain(tx, optax.scale(0.3)),
        lambda tx: optax.chain(optax.add_noise(1e-4, 0.5, jax.random.key(0)), tx),
    ],
)
def test_a_budget_that_something_else_moved_too_is_refused(around):
    with pytest.raises(ValueError, match="budget must be moved by"):
        _quietly(*_trained_by(around))


def _trained_by(around):
    """`finalize` and what an optimizer around that of the pruning has trained."""
    limit = jaxprune.at_most(jaxprune.density, 0.5, ramp=(0, 10))
    pruning = jaxprune.pruning(jaxprune.ltp(), limit)
    tx, trainable = around(pruning.optimizer(optax.sgd(0.01))), pruning.init(_params())

    @jax.jit
    def step(carry, _):
        trainable, state = carry
        grads = jax.grad(lambda t: pruning(t)[1])(trainable)
        updates, state = tx.update(grads, state, trainable)
        return (optax.apply_updates(trainable, updates), state), None

    carry, _ = jax.lax.scan(step, (trainable, tx.init(trainable)), length=100)
    return pruning.finalize, carry[0]


def test_averages_of_what_was_trained_may_be_finalized():
    """Whatever scales the gradients, as clipping does, and averages the states."""
    pruning = jaxprune.pruning(
        jaxprune.ltp(), jaxprune.at_most(jaxprune.density, 0.5, ramp=(0, 10))
    )
    inner = pruning.optimizer(optax.adam(1e-2))
    tx = optax.chain(optax.scale(1 / 3), optax.clip_by_global_norm(1e-3), inner)
    trainable = average = pruning.init(_params())
    state = tx.init(trainable)

    @jax.jit
    def step(carry, _):
        trainable, average, state = carry
        grads = jax.grad(lambda t: pruning(t)[1])(trainable)
        updates, state = tx.update(grads, state, trainable)
        trainable = optax.apply_updates(trainable, updates)
        average = optax.incremental_update(trainable, average, 0.1)
        return (trainable, average, state), None

    carry, _ = jax.lax.scan(step, (trainable, average, state), length=50)
    for one in carry[:2]:
        assert _quietly(pruning.finalize, one).report.keep_ratio == 0.5


def test_collections_that_were_traced_beside_the_parameters_must_be_given():
    def apply_fn(variables, x):
        hidden = jnp.tanh(x @ variables["params"]["a"]) * variables["stats"][None]
        return hidden @ variables["params"]["b"]

    params, stats = {"a": jnp.ones((3, 8)), "b": jnp.ones((8, 2))}, jnp.ones(8)
    variables = {"params": params, "stats": stats}
    graph = jaxprune.trace_channels(apply_fn, variables, jnp.ones((1, 3)))
    limit = jaxprune.at_most(costs.macs(graph), 0.5)
    pruning = jaxprune.pruning(jaxprune.dsa(graph), limit)
    trainable = pruning.init(params)
    trainable["budget"] |= {"step": jnp.float32(1), "twice": jnp.float32(2)}
    with pytest.raises(ValueError, match=r"`compact\(trainable\)`: stats was traced"):
        pruning.compact(trainable)
    small, _ = _quietly(pruning.compact, trainable, stats=stats)
    assert small.trees[0]["stats"].shape == (4,)


def test_a_folder_of_parameters_alone_is_compacted_as_it_was_traced():
    def apply_fn(variables, x):
        return jnp.tanh(x @ variables["params"]["a"]) @ variables["params"]["b"]

    params, x = {"a": jnp.ones((3, 8)), "b": jnp.ones((8, 2))}, jnp.ones((1, 3))
    graph = jaxprune.trace_channels(apply_fn, {"params": params}, x)
    limit = jaxprune.at_most(costs.macs(graph), 0.5)
    pruning = jaxprune.pruning(jaxprune.dsa(graph), limit)
    trainable = pruning.init(params)
    trainable["budget"] |= {"step": jnp.float32(1), "twice": jnp.float32(2)}
    small, _ = _quietly(pruning.compact, trainable, batch_stats={})
    assert small.trees[0]["batch_stats"] == {}
    assert small.trees[0]["params"]["a"].shape == (3, 4)
    assert small.apply_fn(small.trees[0], x).shape == (1, 2)
