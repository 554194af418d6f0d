"""The adapter equals the loop written by hand, in every kind of training loop."""

import functools
import warnings

import chex
import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training import train_state
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxprune
from jaxprune import training

STEPS = 12
RAMP = (2, 8)
TARGET = jaxprune.at_most(jaxprune.density, 0.3, ramp=RAMP)
PRUNING = jaxprune.pruning(jaxprune.ltp(init_threshold=0.5), TARGET)


def _normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _params():
    return {
        "in": {"bias": jnp.zeros(8), "kernel": _normal(0, 6, 8)},
        "out": {"kernel": _normal(1, 8, 3)},
    }


def _data():
    x = _normal(2, STEPS, 16, 6)
    return x, jnp.tanh(x[..., :3])


def _loss(params, x, y):
    hidden = jax.nn.relu(
        jnp.dot(x, params["in"]["kernel"]) + params["in"]["bias"][None]
    )
    return jnp.mean((jnp.dot(hidden, params["out"]["kernel"]) - y) ** 2)


def _weights():
    return optax.adamw(1e-2)


def _optimizer(weights=None):
    # Plain SGD for the thresholds: it does not magnify the rounding of sums.
    return PRUNING.optimizer(weights or _weights(), variables=optax.sgd(0.05))


def _objective(trainable, x, y, pruning=PRUNING):
    params, penalty = pruning(trainable)
    return _loss(params, x, y) + penalty


def _by_hand(steps=STEPS):
    """The loop with every part written out: thresholds, penalty, budget state."""
    pruner = PRUNING.pruner
    bound = TARGET._replace(cost=jaxprune.density(_params()))
    budget = jaxprune.dual_ascent(bound)
    tx = optax.partition(
        {"w": _weights(), "t": optax.sgd(0.05)}, {"params": "w", "variables": "t"}
    )
    both = {"params": _params(), "variables": pruner.init(_params())}
    ratios = pruner.apply(both["params"], both["variables"]).keep_ratios

    @jax.jit
    def run(both, x, y):
        def step(carry, batch):
            both, opt_state, state = carry

            def objective(both):
                pruned = pruner.apply(both["params"], both["variables"])
                penalty = budget.penalty(pruned.keep_ratios, state)
                return _loss(pruned.params, *batch) + penalty, pruned.keep_ratios

            grads, keep_ratios = jax.grad(objective, has_aux=True)(both)
            updates, opt_state = tx.update(grads, opt_state, both)
            both = optax.apply_updates(both, updates)
            return (both, opt_state, budget.update(keep_ratios, state)), None

        start = both, tx.init(both), budget.init(ratios)
        return jax.lax.scan(step, start, (x, y))[0]

    x, y = _data()
    both, _, state = run(both, x[:steps], y[:steps])
    return both, state


@functools.cache
def _wanted():
    return jax.tree.map(np.asarray, _by_hand())


def _check(trainable, pruning=PRUNING):
    both, state = _wanted()
    got = {name: trainable[name] for name in both}
    chex.assert_trees_all_close(got, both, rtol=1e-6, atol=1e-6)
    chex.assert_trees_all_close(
        pruning.budget_state(trainable), state, rtol=1e-6, atol=1e-6
    )
    assert int(pruning.step(trainable)) == STEPS


def _step(tx):
    def step(trainable, opt_state, x, y):
        grads = jax.grad(_objective)(trainable, x, y)
        updates, opt_state = tx.update(grads, opt_state, trainable)
        return optax.apply_updates(trainable, updates), opt_state

    return step


def _loop(step, trainable, opt_state):
    for x, y in zip(*_data(), strict=True):
        trainable, opt_state = step(trainable, opt_state, x, y)
    return trainable


def _start(tx):
    trainable = PRUNING.init(jax.tree.map(jnp.copy, _params()))
    return trainable, tx.init(trainable)


def test_a_jitted_step_compiles_once_and_may_donate_its_state():
    tx = _optimizer()
    step = jax.jit(chex.assert_max_traces(_step(tx), 1), donate_argnums=(0, 1))
    _check(_loop(step, *_start(tx)))


def test_a_scan():
    tx = _optimizer()

    def body(carry, batch):
        return _step(tx)(*carry, *batch), None

    (trainable, _), _ = jax.jit(lambda c: jax.lax.scan(body, c, _data()))(_start(tx))
    _check(trainable)


def test_a_train_state():
    state = train_state.TrainState.create(
        apply_fn=None,
        params=flax.core.freeze(PRUNING.init(_params())),
        tx=_optimizer(),
    )

    @jax.jit
    def step(state, x, y):
        return state.apply_gradients(grads=jax.grad(_objective)(state.params, x, y))

    for x, y in zip(*_data(), strict=True):
        state = step(state, x, y)
    _check(flax.core.unfreeze(state.params))


def test_multi_steps_count_optimizer_steps():
    """Two halves of a batch with the mean of their gradients are the batch."""
    tx = optax.MultiSteps(_optimizer(), 2)
    step = jax.jit(_step(tx))
    trainable, opt_state = _start(tx)
    for x, y in zip(*_data(), strict=True):
        for half in (slice(0, 8), slice(8, 16)):
            trainable, opt_state = step(trainable, opt_state, x[half], y[half])
    _check(trainable)


@pytest.mark.parametrize("factor", [2.0**12, 3.0, 1e-3])
def test_a_scaled_loss_changes_the_budget_in_no_way(factor):
    tx = optax.chain(optax.scale(1 / factor), _optimizer())

    @jax.jit
    def step(trainable, opt_state, x, y):
        grads = jax.grad(lambda t: factor * _objective(t, x, y))(trainable)
        updates, opt_state = tx.update(grads, opt_state, trainable)
        return optax.apply_updates(trainable, updates), opt_state

    _check(_loop(step, *_start(tx)))


def test_clipping_sees_the_gradients_of_weights_and_variables_alone():
    trainable = PRUNING.init(_params())
    grads = jax.grad(_objective)(trainable, *(z[0] for z in _data()))
    parts = optax.tree.norm({n: grads[n] for n in ("params", "variables")})
    chex.assert_trees_all_close(optax.tree.norm(grads), parts, rtol=1e-6)


def test_more_weights_than_32_bits_count():
    shape = jax.ShapeDtypeStruct((1_000, 3_000_000), jnp.float32)
    params = {"a": {"kernel": shape}, "b": {"kernel": shape}}
    for method in (jaxprune.ltp(), jaxprune.garrote(sparsity=0.5, steps=9)):
        pruning = jaxprune.pruning(method)
        trainable = jax.eval_shape(pruning.init, params)
        pruned, _ = jax.eval_shape(pruning, trainable)
        assert pruned["a"]["kernel"].shape == shape.shape


def test_pmap_and_shard_map():
    tx = _optimizer()

    def mean_step(trainable, opt_state, x, y):
        grads = jax.lax.pmean(jax.grad(_objective)(trainable, x, y), "data")
        updates, opt_state = tx.update(grads, opt_state, trainable)
        return optax.apply_updates(trainable, updates), opt_state

    def summed_step(trainable, opt_state, x, y):
        # Replicated parameters: `grad` sums over devices.
        grads = jax.grad(lambda t: _objective(t, x, y) / 8)(trainable)
        updates, opt_state = tx.update(grads, opt_state, trainable)
        return optax.apply_updates(trainable, updates), opt_state

    split = lambda z: z.reshape(8, 2, *z.shape[1:])
    mapped = jax.pmap(mean_step, axis_name="data", in_axes=(None, None, 0, 0))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharded = jax.jit(
        jax.shard_map(
            summed_step,
            mesh=mesh,
            in_specs=(P(), P(), P("data"), P("data")),
            out_specs=P(),
        )
    )

    def pmapped(trainable, opt_state, x, y):
        return jax.tree.map(
            lambda z: z[0], mapped(trainable, opt_state, split(x), split(y))
        )

    for step in (pmapped, sharded):
        _check(_loop(step, *_start(tx)))


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_a_sharded_batch(axis_type):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(axis_type,))
    tx = _optimizer()
    step = jax.jit(_step(tx))
    with jax.set_mesh(mesh):
        trainable, opt_state = jax.device_put(_start(tx), NamedSharding(mesh, P()))
        for x, y in zip(*_data(), strict=True):
            x, y = jax.device_put((x, y), NamedSharding(mesh, P("data")))
            trainable, opt_state = step(trainable, opt_state, x, y)
    _check(trainable)


def test_vmap_over_seeds():
    tx = _optimizer()

    def run(scale):
        params = jax.tree.map(lambda w: scale * w, _params())
        trainable = PRUNING.init(params)

        def body(carry, batch):
            return _step(tx)(*carry, *batch), None

        return jax.lax.scan(body, (trainable, tx.init(trainable)), _data())[0][0]

    both = jax.jit(jax.vmap(run))(jnp.array([1.0, 0.5]))
    _check(jax.tree.map(lambda z: z[0], both))


@pytest.mark.parametrize(
    "solver", [jaxprune.dual_ascent, lambda _: jaxprune.unlimited()]
)
@pytest.mark.parametrize(
    "pruner", [jaxprune.ltp(), jaxprune.global_magnitude(sparsity=0.75)]
)
def test_a_module_holds_a_method_without_variables_and_a_budget_without_state(
    pruner, solver
):
    """`nnx.State` drops what holds no arrays."""
    limit = jaxprune.at_most(jaxprune.density, 0.25)
    pruning = jaxprune.pruning(pruner, limit, solver=solver)
    module = training.nnx_module(pruning, nnx.Linear(4, 5, rngs=nnx.Rngs(0)))
    optimizer = nnx.Optimizer(module, pruning.optimizer(optax.sgd(0.1)), wrt=nnx.Param)
    grads = nnx.grad(lambda module: module.pruned()[1])(module)
    optimizer.update(module, grads)
    pruning.budget_state(nnx.state(module, nnx.Param))
    with warnings.catch_warnings(action="ignore"):
        model, _ = module.finalize()
    assert int(jnp.sum(model.kernel[...] != 0)) == 5


def test_nnx_optimizer():
    class Model(nnx.Module):
        def __init__(self):
            arrays = jax.tree.map(jnp.copy, _params())
            self.layers = nnx.data(jax.tree.map(nnx.Param, arrays))

        def __call__(self):
            return jax.tree.map(lambda leaf: leaf, nnx.state(self)["layers"])

    class Plain(nnx.Module):
        def __init__(self):
            for name, layer in jax.tree.map(nnx.Param, _params()).items():
                setattr(self, name + "_", nnx.data(layer))

    module = training.nnx_module(PRUNING, Plain())
    optimizer = nnx.Optimizer(module, _optimizer(), wrt=nnx.Param)

    @nnx.jit
    def step(module, optimizer, x, y):
        def objective(module):
            network, penalty = module.pruned()
            params = {
                "in": {n: v[...] for n, v in network.in_.items()},
                "out": {n: v[...] for n, v in network.out_.items()},
            }
            return _loss(params, x, y) + penalty

        optimizer.update(module, nnx.grad(objective)(module))

    for x, y in zip(*_data(), strict=True):
        step(module, optimizer, x, y)
    state = nnx.state(module, nnx.Param)
    both, budget = _wanted()
    kernel = state["params"]["in_"]["kernel"][...]
    chex.assert_trees_all_close(
        kernel, both["params"]["in"]["kernel"], rtol=1e-6, atol=1e-6
    )
    chex.assert_trees_all_close(
        PRUNING.budget_state(state), budget, rtol=1e-6, atol=1e-6
    )


def test_a_module_is_called_like_the_model_before_and_after_finalize():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(4, 8, rngs=rngs)
            self.norm = nnx.BatchNorm(8, rngs=rngs)
            self.dropout = nnx.Dropout(0.5)
            self.last = nnx.Linear(8, 3, rngs=rngs)

        def __call__(self, x, rngs=None):
            return self.last(self.dropout(self.norm(self.first(x)), rngs=rngs))

    module = training.nnx_module(PRUNING, Net(nnx.Rngs(0)))
    optimizer = nnx.Optimizer(module, _optimizer(), wrt=nnx.Param)
    train = nnx.view(module, deterministic=False, use_running_average=False)
    evaluate = nnx.view(module, deterministic=True, use_running_average=True)
    x = _normal(0, 5, 4)

    @nnx.jit
    def step(module, optimizer, rngs):
        def objective(module, rngs):
            network, penalty = module.pruned()
            return jnp.mean(network(x, rngs) ** 2) + penalty

        optimizer.update(module, nnx.grad(objective)(module, rngs))

    step(train, optimizer, nnx.Rngs(1))
    network, penalty = evaluate.pruned()
    chex.assert_trees_all_equal(evaluate(x), network(x))
    assert np.any(evaluate.params.norm.mean[...] != 0)
    assert penalty != 0
    # One step does not reach the target.
    with pytest.warns(jaxprune.base.PruningWarning):
        model, final = module.finalize()
    # The view was made before: it computes with the final weights, not pruned again.
    view = nnx.view(model, deterministic=True, use_running_average=True)
    chex.assert_trees_all_equal(evaluate(x), view(x))
    network, penalty = evaluate.pruned()
    chex.assert_trees_all_equal(nnx.state(network, nnx.Param), final.params)
    assert penalty == 0


def test_a_restart_from_an_orbax_checkpoint_goes_on_with_the_same_bits(tmp_path):
    import orbax.checkpoint as ocp

    tx = _optimizer()
    step = jax.jit(_step(tx))
    state = _start(tx)
    x, y = _data()
    for i in range(5):
        state = step(*state, x[i], y[i])
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "state", state)
    for i in range(5, STEPS):
        state, restored = step(*state, x[i], y[i]), step(*restored, x[i], y[i])
    chex.assert_trees_all_equal(state, restored)
    _check(restored[0])


@pytest.mark.usefixtures("compiles_as_users_do")
def test_the_step_costs_what_the_loop_by_hand_costs():
    tx = _optimizer()
    trainable, opt_state = _start(tx)
    x, y = (jnp.tile(z[0], (64, 1)) for z in _data())
    pruner, budget = (
        PRUNING.pruner,
        jaxprune.dual_ascent(TARGET._replace(cost=jaxprune.density(_params()))),
    )
    by_hand = optax.partition(
        {"w": _weights(), "t": optax.sgd(0.05)}, {"params": "w", "variables": "t"}
    )
    both = {"params": trainable["params"], "variables": trainable["variables"]}
    state = PRUNING.budget_state(trainable)

    def plain(both, opt_state, state, x, y):
        def objective(both):
            pruned = pruner.apply(both["params"], both["variables"])
            penalty = budget.penalty(pruned.keep_ratios, state)
            return _loss(pruned.params, x, y) + penalty, pruned.keep_ratios

        grads, keep_ratios = jax.grad(objective, has_aux=True)(both)
        updates, opt_state = by_hand.update(grads, opt_state, both)
        new = budget.update(keep_ratios, state)
        return optax.apply_updates(both, updates), opt_state, new

    flops = []
    for function, args in (
        (_step(tx), (trainable, opt_state)),
        (plain, (both, by_hand.init(both), state)),
    ):
        compiled = jax.jit(function).lower(*args, x, y).compile()
        flops.append(compiled.cost_analysis()["flops"])
    assert flops[0] <= 1.001 * flops[1]


def test_optax_finds_the_parameters_in_the_state():
    tx = _optimizer()
    trainable, opt_state = _start(tx)
    doubled = optax.tree.map_params(tx, lambda leaf: leaf + 1, opt_state)
    assert float(doubled.params[0].mu["in"]["bias"][0]) == 1.0
    del trainable


def test_masks_of_weight_decay_see_the_parameters_alone():
    seen = []

    def mask(params):
        seen.append(set(params))
        return jax.tree.map(lambda leaf: leaf.ndim > 1, params)

    tx = _optimizer(optax.adamw(1e-2, mask=mask))
    step = jax.jit(_step(tx))
    step(*_start(tx), *(z[0] for z in _data()))
    assert all(names == {"in", "out"} for names in seen)


def test_weights_and_variables_train_on_streams_of_their_own():
    trainable = PRUNING.init(_params())
    x, y = _data()

    def objective(trainable):
        weights, ratios = PRUNING.split(trainable)
        params, _ = PRUNING(weights)
        held_out, penalty = PRUNING(ratios)
        return _loss(params, x[0], y[0]) + _loss(held_out, x[1], y[1]) + penalty

    grads = jax.grad(objective)(trainable)
    first = jax.grad(_objective)(trainable, x[0], y[0])
    second = jax.grad(_objective)(trainable, x[1], y[1])
    chex.assert_trees_all_close(grads["params"], first["params"], rtol=1e-6)
    for part in ("variables", "budget"):
        chex.assert_trees_all_close(grads[part], second[part], rtol=1e-6)


def test_arguments_of_another_kind_are_refused():
    with pytest.raises(TypeError, match=r"`pruning\(pruner=.*ltp\("):
        jaxprune.pruning(jaxprune.ltp, TARGET)
    with pytest.raises(TypeError, match=r"at_most"):
        jaxprune.pruning(jaxprune.ltp(), 0.05)
    with pytest.raises(ValueError, match=r"params, variables, budget"):
        PRUNING(_params())
    with pytest.raises(ValueError, match=r"params, variables, budget"):
        _optimizer().update(_params(), PRUNING, _params())


def test_collections_beside_the_weights_are_refused():
    variables = {"params": _params(), "batch_stats": {"mean": jnp.ones(3)}}
    with pytest.raises(ValueError, match=r"Pass `variables\['params'\]`"):
        PRUNING.init(variables)


def test_a_limit_on_a_method_that_prunes_once_is_refused_for_what_it_is():
    for pruner in (jaxprune.random_erk(jax.random.key(0)), jaxprune.identity()):
        with pytest.raises(ValueError, match=r"the method prunes once.*Leave the limi"):
            jaxprune.pruning(pruner, TARGET).init(_params())


def test_a_gradient_that_misses_the_penalty_moves_no_budget():
    tx = _optimizer()
    trainable, opt_state = _start(tx)
    x, y = (z[0] for z in _data())
    grads = jax.grad(lambda t: _loss(PRUNING(t)[0], x, y))(trainable)
    updates, _ = tx.update(grads, opt_state, trainable)
    chex.assert_tree_all_finite(updates)
    trainable = optax.apply_updates(trainable, updates)
    with pytest.raises(ValueError, match="no step was counted"):
        PRUNING.finalize(trainable)


def test_abstract_parameters():
    trainable = jax.eval_shape(PRUNING.init, _params())
    abstract = jax.eval_shape(
        lambda: PRUNING.init(jax.tree.map(lambda p: jnp.zeros(p.shape), _params()))
    )
    chex.assert_trees_all_equal_shapes_and_dtypes(trainable, abstract)
    np.testing.assert_equal(len(jax.tree.leaves(trainable["variables"])), 2)
