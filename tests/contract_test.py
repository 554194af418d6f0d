"""The contract: every pruner and budget through the same promises.

A new method adds one row to a table here; a factory without a row fails. That of the
transformations is `tests/transforms/contract_test.py`.
"""

import functools
import inspect
from typing import NamedTuple

import chex
import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from absl.testing import parameterized
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxprune
from jaxprune import budgets, methods, testing
from tests.support.rows import rows

DTYPES = [jnp.float32, jnp.bfloat16, jnp.float16]
SIZE = 3 * 3 * 8 * 4 + 16 * 6 + 2 * 6 * 5


class Row(NamedTuple):
    pruner: jaxprune.Pruner
    ordered: bool = True  # can be asked for a keep ratio
    own_rule: bool = True  # can decide without being asked for one


def _ramp(step):
    return 0.1 * jnp.minimum(step, 5)


def _loss(params):
    """Curved, and of leaves in their order, whatever holds them."""
    return sum(
        jnp.sum(jnp.sin((i + 1) * leaf.astype(jnp.float32)))
        for i, leaf in enumerate(jax.tree.leaves(params))
    )


def _params(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
    return {
        "blocks": {"kernel": draw(2, 6, 5)},
        "conv": {"kernel": draw(3, 3, 8, 4)},
        "dense": {"bias": draw(6), "kernel": draw(16, 6)},
    }


def _applied(params, x):
    """A network that uses every leaf of `_params`."""
    window = jax.lax.conv_general_dilated(
        x["image"],
        params["conv"]["kernel"],
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    hidden = x["rows"] @ params["dense"]["kernel"] + params["dense"]["bias"][None]
    stacked = [hidden @ kernel for kernel in params["blocks"]["kernel"]]
    return window, stacked


@functools.cache
def _statistics():
    """What the weights of `_params` see of a batch."""
    rng = np.random.default_rng(1)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    batch = {"image": draw(4, 5, 5, 8), "rows": draw(32, 16)}
    return jaxprune.calibrate(_applied, _params(), [batch], gram=True)


# Methods with stacked layers, by the pattern of the leaf that holds them.
STACKED = {
    "garrote-stacked": lambda pattern: jaxprune.garrote(
        sparsity=0.7, steps=5, where=jaxprune.selection(stacked=pattern)
    ),
    "ltp-stacked": lambda pattern: jaxprune.ltp(
        init_threshold=0.7, where=jaxprune.selection(stacked=pattern)
    ),
}

PRUNERS = {
    "identity": Row(jaxprune.identity(), ordered=False),
    "magnitude": Row(jaxprune.magnitude(sparsity=0.7)),
    "magnitude-schedule": Row(jaxprune.magnitude(sparsity=_ramp), own_rule=False),
    "global_magnitude": Row(jaxprune.global_magnitude(sparsity=0.7)),
    "global_magnitude-schedule": Row(
        jaxprune.global_magnitude(sparsity=_ramp), own_rule=False
    ),
    "garrote": Row(jaxprune.garrote(sparsity=0.7, steps=2)),
    "ltp": Row(jaxprune.ltp(init_threshold=0.7)),
    "ltp_as_published": Row(
        jaxprune.ltp_as_published(temperature=0.3, init_threshold=0.2)
    ),
    "soft_thresholding": Row(jaxprune.soft_thresholding(init_threshold=0.7)),
    "soft_threshold_reparameterization": Row(
        jaxprune.soft_threshold_reparameterization(init_value=0.5)
    ),
    "soft_threshold_reparameterization_as_published": Row(
        methods.soft_threshold_reparameterization_as_published(init_value=0.5)
    ),
    "snip": Row(jaxprune.snip(_loss), own_rule=False),
    "grasp": Row(jaxprune.grasp(_loss), own_rule=False),
    "random_erk": Row(jaxprune.random_erk(jax.random.key(0)), own_rule=False),
    "wanda": Row(jaxprune.wanda(_statistics()), own_rule=False),
    "sparse_gpt": Row(jaxprune.sparse_gpt(_statistics()), own_rule=False),
    **{name: Row(make("*blocks*")) for name, make in STACKED.items()},
}


@functools.cache
def _mesh():
    return jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))


def _shardings():
    """Some leaves are sharded over the devices, some are replicated."""
    spec = {
        "blocks": {"kernel": P()},
        "conv": {"kernel": P(None, None, "data")},
        "dense": {"bias": P(), "kernel": P("data")},
    }
    return jax.tree.map(lambda s: NamedSharding(_mesh(), s), spec)


_jit = functools.cache(jax.jit)  # one compilation serves all tests of a worker


@pytest.fixture(params=PRUNERS)
def row(request):
    return PRUNERS[request.param]


# A schedule changes what is asked, not how it is computed: where compiling is slow
# (eight devices, derivatives) one method with a schedule stands for both.
_DEAR = [name for name in PRUNERS if name != "magnitude-schedule"]
# One of each way to decide: by learned thresholds, by open ones, by ranks, by scores.
_FEW = ("ltp", "soft_thresholding", "global_magnitude", "snip")


@pytest.fixture(params=rows(_DEAR, _FEW))
def dear_row(request):
    return PRUNERS[request.param]


def _masks(row, params, variables):
    """The masks by the method's own rule, or those of a keep ratio."""
    if row.own_rule:
        return row.pruner.masks(params, variables)
    return row.pruner.masks(params, variables, keep_ratio=0.4)


@functools.cache
def _gradients(apply):
    """Derivatives of a loss that reads everything a pruner shows, scaled by x."""

    def loss(params, variables, x):
        pruned = apply(params, variables, step=jnp.int32(3))
        task = sum(
            jnp.sum(jnp.sin(leaf.astype(jnp.float32)))
            for leaf in jax.tree.leaves(pruned.params)
        )
        price = sum(jnp.sum(r) for r in pruned.keep_ratios.values())
        return jnp.mean(x) * (task + price)

    return jax.grad(loss, (0, 1))


def _factories(module, noun):
    """Public functions of a module that are annotated to return `noun`."""
    return {
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and not name.startswith("_")
        and inspect.signature(value).return_annotation is noun
    }


# What the network sees ---------------------------------------------------------------


def test_every_method_has_a_row():
    rows = {name.split("-")[0] for name in PRUNERS}
    # What needs a graph has promises in tests of its own.
    others = {"dsa"}
    assert _factories(methods, jaxprune.Pruner) - others == rows


def test_apply_traces_once_over_steps_and_keys(row):
    params = _params()
    variables = row.pruner.init(params)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def apply(params, variables, key, step):
        return row.pruner.apply(params, variables, key=key, step=step)

    for step in range(3):
        apply(params, variables, jax.random.key(step), jnp.int32(step))
        params = jax.tree.map(lambda w: 0.9 * w, params)


def test_init_apply_and_masks_accept_abstract_parameters(row):
    abstract = jax.eval_shape(lambda p: p, _params())
    variables = row.pruner.init(abstract)
    chex.assert_trees_all_equal(variables, row.pruner.init(_params()))
    same = jax.eval_shape(row.pruner.init, abstract)
    chex.assert_trees_all_equal_shapes_and_dtypes(variables, same)
    apply = functools.partial(row.pruner.apply, step=3)
    seen = jax.eval_shape(apply, abstract, variables).params
    chex.assert_trees_all_equal_shapes_and_dtypes(seen, abstract)
    masks = jax.eval_shape(functools.partial(_masks, row), abstract, variables)
    assert jax.tree.structure(masks) == jax.tree.structure(abstract)


@pytest.mark.parametrize("dtype", DTYPES)
def test_structure_shapes_and_dtypes_are_kept(row, dtype):
    params = _params(dtype)
    variables = row.pruner.init(params)
    apply = functools.partial(row.pruner.apply, step=3)
    seen, keep_ratios = jax.eval_shape(apply, params, variables)
    chex.assert_trees_all_equal_shapes_and_dtypes(seen, params)
    known = jaxprune.tree.named_leaves(params)
    for name, value in [*variables.items(), *keep_ratios.items()]:
        assert name in known
        assert value.dtype == jnp.float32
        assert value.ndim <= 1
    if variables:
        chex.assert_trees_all_equal_shapes(variables, keep_ratios)


def test_keep_ratios_are_fractions(row):
    params = _params()
    variables = row.pruner.init(params)
    apply = jax.jit(functools.partial(row.pruner.apply, step=jnp.int32(3)))
    for change in (-100.0, 0.0, 100.0):
        moved = jax.tree.map(lambda v, change=change: v + change, variables)
        _, keep_ratios = apply(params, moved)
        ratios = np.concatenate([np.ravel(r) for r in keep_ratios.values()] or [[]])
        assert ((ratios >= 0) & (ratios <= 1)).all()


def test_apply_accepts_key_and_step_and_refuses_other_keywords(row):
    params, pruner = _params(), row.pruner
    variables = pruner.init(params)
    with_key = pruner.apply(params, variables, key=jax.random.key(1), step=2)
    without = pruner.apply(params, variables, key=None, step=2)
    chex.assert_trees_all_equal(with_key, without)
    with pytest.raises(TypeError, match="keyword argument 'temperature'"):
        pruner.apply(params, variables, step=2, temperature=1.0)
    with pytest.raises(TypeError, match="keyword argument 'step'"):
        pruner.masks(params, variables, step=2)
    with pytest.raises(TypeError, match="keyword argument 'key'"):
        pruner.init(params, key=jax.random.key(0))


def test_the_same_arguments_give_the_same_bits(row):
    params = _params()
    variables = row.pruner.init(params)
    apply = row.pruner.apply
    first = apply(params, variables, step=jnp.int32(3))
    copy = jax.tree.map(lambda w: jnp.array(w, copy=True), params)
    chex.assert_trees_all_equal(first, apply(copy, variables, step=jnp.int32(3)))
    chex.assert_trees_all_equal(
        _masks(row, params, variables), _masks(row, copy, variables)
    )


def test_sharded_over_eight_devices_equals_one(dear_row):
    row, params, x = dear_row, _params(), jnp.arange(8.0)
    variables = row.pruner.init(params)
    sharded = jax.device_put(params, _shardings())
    split = jax.device_put(x, NamedSharding(_mesh(), P("data")))

    @jax.jit
    def everything(params, variables, x):
        return (
            _gradients(row.pruner.apply)(params, variables, x),
            _masks(row, params, variables),
        )

    want = _jit(_gradients(row.pruner.apply))(params, variables, x)
    want_masks = _masks(row, params, variables)
    got, got_masks = everything(sharded, variables, split)
    assert len(sharded["dense"]["kernel"].sharding.device_set) == 8
    chex.assert_trees_all_equal(got_masks, want_masks)
    chex.assert_trees_all_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("varying", ["nothing", "params"])
def test_gradients_under_shard_map_equal_one_device(dear_row, varying):
    """The two right idioms: grad of pmean, and pmean of grad where params vary."""
    row, params, x = dear_row, _params(), jnp.arange(8.0)
    variables = row.pruner.init(params)
    grad = _gradients(row.pruner.apply)

    def mean_gradient(params, variables, x):
        if varying == "nothing":
            # The loss is linear in its factor: this is the gradient of the pmean.
            return grad(params, variables, jax.lax.pmean(x, "data"))
        params = jax.lax.pcast(params, "data", to="varying")
        # The variables are replicated: their derivative is summed over devices.
        params_bar, variables_bar = grad(params, variables, x)
        return jax.lax.pmean(params_bar, "data"), jax.tree.map(
            lambda g: g / 8, variables_bar
        )

    mapped = jax.shard_map(
        mean_gradient, mesh=_mesh(), in_specs=(P(), P(), P("data")), out_specs=P()
    )
    got = jax.jit(mapped)(params, variables, x)
    want = _jit(grad)(params, variables, x)
    chex.assert_trees_all_close(got, want, rtol=1e-4, atol=1e-4)


def test_masks_of_parameters_that_vary_under_shard_map(dear_row):
    row, params = dear_row, _params()
    variables = row.pruner.init(params)

    def votes(params, variables):
        params = jax.lax.pcast(params, "data", to="varying")
        masks = _masks(row, params, variables)
        return jax.tree.map(
            lambda p, m: jax.lax.psum((m & (p == p)).astype(jnp.int32), "data"),
            params,
            masks,
        )

    got = jax.jit(
        jax.shard_map(votes, mesh=_mesh(), in_specs=(P(), P()), out_specs=P())
    )(params, variables)
    kept = _masks(row, params, variables)
    want = jax.tree.map(lambda p, m: 8 * (m & (p == p)).astype(int), params, kept)
    chex.assert_trees_all_equal(got, want)


def test_pmap_equals_one_device(dear_row):
    row, params, x = dear_row, _params(), jnp.arange(8.0)
    variables = row.pruner.init(params)
    grad = _gradients(row.pruner.apply)

    def on_each(params, variables, x):
        gradient = jax.lax.pmean(grad(params, variables, x), "data")
        return gradient, _masks(row, params, variables)

    got = jax.pmap(on_each, axis_name="data", in_axes=(None, None, 0))(
        params, variables, x
    )
    want = _jit(grad)(params, variables, x), _masks(row, params, variables)
    for device in (0, 7):
        one = jax.tree.map(lambda leaf, device=device: leaf[device], got)
        chex.assert_trees_all_close(one, want, rtol=1e-4, atol=1e-4)


def test_a_training_step_may_donate_its_state(row):
    """Nothing that a pruner returns is lost when what it was given is donated."""
    params = jax.tree.map(lambda w: jnp.array(w, copy=True), _params())
    variables = row.pruner.init(params)
    masks = _masks(row, params, variables)
    counts = jaxprune.masks.kept_counts(params, masks)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state):
        seen, _ = row.pruner.apply(*state, step=jnp.int32(3))
        return seen, jax.tree.map(lambda v: v + 1, state[1])

    new, new_variables = step((params, variables))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((params, variables)))
    assert jaxprune.masks.kept_counts(new, masks) == counts
    chex.assert_tree_all_finite((new, new_variables))


def test_the_promises_of_a_pruner_are_kept(row):
    testing.assert_pruner_contract(row.pruner, _params())


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("keep_ratio", [1.0, 0.29, 0.01])
def test_an_asked_keep_ratio_is_met_exactly(row, keep_ratio, dtype):
    params = _params(dtype)
    variables = row.pruner.init(params)
    if not row.ordered:
        with pytest.raises(ValueError, match=f"keep_ratio={keep_ratio}"):
            row.pruner.masks(params, variables, keep_ratio=keep_ratio)
        return
    masks = row.pruner.masks(params, variables, keep_ratio=keep_ratio)
    counts = jaxprune.summarize(jaxprune.apply_masks(params, masks), masks)
    assert counts.size == SIZE
    assert counts.kept == jaxprune.masks.keep_count(keep_ratio, SIZE)


def _module_state(params):
    return nnx.State(
        {
            layer: {name: nnx.Param(w) for name, w in leaves.items()}
            for layer, leaves in params.items()
        }
    )


def _tuples(params):
    return tuple(tuple(leaves.values()) for leaves in params.values())


CONTAINERS = {
    "frozen": flax.core.freeze,
    "nnx": _module_state,
    "tuple": _tuples,
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_is_pruned_alike(row, container):
    params = _params()
    variables = row.pruner.init(params)
    other = CONTAINERS[container](params)
    plain = row
    names = [name for name in STACKED if row is PRUNERS[name]]
    if container == "tuple" and names:
        # Tuples have other names: the first leaf is `0/0`.
        row = row._replace(pruner=STACKED[names[0]]("0/0"))
    same = row.pruner.init(other)
    assert len(same) == len(variables)
    if container == "tuple" and row in (PRUNERS["wanda"], PRUNERS["sparse_gpt"]):
        with pytest.raises(ValueError, match="inputs of leaf '0/0'"):
            _masks(row, other, same)  # Statistics have the names of the dictionary.
        return
    seen, ratios = row.pruner.apply(other, same, step=jnp.int32(3))
    masks = _masks(row, other, same)
    assert jax.tree.structure(seen) == jax.tree.structure(other)
    assert jax.tree.structure(masks) == jax.tree.structure(other)
    want, want_ratios = plain.pruner.apply(params, variables, step=jnp.int32(3))
    chex.assert_trees_all_equal(jax.tree.leaves(seen), jax.tree.leaves(want))
    chex.assert_trees_all_equal(list(ratios.values()), list(want_ratios.values()))
    if container != "tuple":
        assert list(ratios) == list(want_ratios)
    kept = _masks(plain, params, variables)
    chex.assert_trees_all_equal(jax.tree.leaves(masks), jax.tree.leaves(kept))


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_are_finite_for_usual_zero_and_huge_weights(dear_row, dtype):
    grad = _jit(_gradients(dear_row.pruner.apply))
    for scale in (1, 0, 1000):
        params = jax.tree.map(lambda w, scale=scale: scale * w, _params(dtype))
        variables = dear_row.pruner.init(params)
        grads = grad(params, variables, jnp.arange(8.0))
        chex.assert_trees_all_equal_shapes_and_dtypes(grads, (params, variables))
        chex.assert_tree_all_finite(grads)


@pytest.mark.parametrize("method", [n for n in PRUNERS if n != "identity"])
@pytest.mark.parametrize("params", [{}, (), {"dense": {}}])
def test_parameters_without_arrays_are_refused(method, params):
    pruner = PRUNERS[method].pruner
    message = "at least one array|must match a leaf"
    with pytest.raises(ValueError, match=message):
        pruner.apply(params, {}, step=0)


@pytest.mark.parametrize("name", ["identity", "magnitude", "global_magnitude-schedule"])
def test_empty_variables_train_through_the_step_that_serves_all_methods(name):
    params, pruner = _params(), PRUNERS[name].pruner
    trainable = {"params": params, "variables": pruner.init(params)}
    assert trainable["variables"] == {}
    budget = jaxprune.dual_ascent(jaxprune.at_most(jaxprune.density(params), 0.5))
    optimizer = optax.partition(
        {"weights": optax.sgd(0.1), "sites": optax.adam(0.1)},
        {"params": "weights", "variables": "sites"},
    )

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(trainable, opt_state, budget_state, step):
        def objective(trainable):
            pruned = pruner.apply(*trainable.values(), step=step)
            task = sum(jnp.sum(w**2) for w in jax.tree.leaves(pruned.params))
            penalty = budget.penalty(pruned.keep_ratios, budget_state)
            return task + penalty, pruned.keep_ratios

        grads, ratios = jax.grad(objective, has_aux=True)(trainable)
        updates, opt_state = optimizer.update(grads, opt_state, trainable)
        trainable = optax.apply_updates(trainable, updates)
        return trainable, opt_state, budget.update(ratios, budget_state)

    keep_ratios = pruner.apply(*trainable.values(), step=0).keep_ratios
    state = trainable, optimizer.init(trainable), budget.init(keep_ratios)
    for i in range(2):
        state = step(*state, jnp.int32(i))
    assert state[0]["variables"] == {}
    assert int(state[2].step) == 2
    chex.assert_tree_all_finite(state)


# What it may cost --------------------------------------------------------------------


@functools.cache
def _cost():
    return jaxprune.density(jax.eval_shape(_params))


_RAMP = optax.linear_schedule(1.0, 0.2, 10)


def _limit(bound=0.2):
    return jaxprune.at_most(_cost(), bound)


def _two_limits():
    conv = jaxprune.at_most(lambda k: k.get("conv/kernel", jnp.float32(1)), 0.4)
    return [_limit(), conv._replace(name="conv")]


BUDGETS = {
    "unlimited": lambda: jaxprune.unlimited(),
    "weighted": lambda: jaxprune.weighted(_cost(), 0.3),
    "dual_ascent": lambda: jaxprune.dual_ascent(_limit()),
    "dual_ascent-schedule": lambda: jaxprune.dual_ascent(_limit(_RAMP)),
    "dual_ascent-two": lambda: jaxprune.dual_ascent(_two_limits()),
    "admm": lambda: jaxprune.admm(_limit()),
    "admm-schedule": lambda: jaxprune.admm(_limit(_RAMP)),
    "admm-two": lambda: jaxprune.admm(_two_limits()),
    "admm_as_published": lambda: jaxprune.admm_as_published(_limit()),
}


@pytest.fixture(params=BUDGETS)
def budget(request):
    return BUDGETS[request.param]()


# As above: where compiling is slow, one budget of each factory.
_DEAR_BUDGETS = [name for name in BUDGETS if "-" not in name]
_FEW_BUDGETS = ("dual_ascent", "admm")


compiled = pytest.mark.parametrize(
    "budget", rows(BUDGETS, _DEAR_BUDGETS), indirect=True
)


@pytest.fixture(params=rows(_DEAR_BUDGETS, _FEW_BUDGETS))
def dear_budget(request):
    return BUDGETS[request.param]()


def _ratios(scale=1.0):
    return {
        "blocks/kernel": jnp.array([0.2, 0.9], jnp.float32) * scale,
        "conv/kernel": jnp.float32(0.5) * scale,
        "dense/kernel": jnp.float32(0.3) * scale,
    }


def test_every_budget_has_a_row():
    rows = {name.split("-")[0] for name in BUDGETS}
    ours = _factories(budgets, jaxprune.Budget)
    assert ours == rows


@compiled
def test_a_budget_traces_once_over_steps(budget):
    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(ratios, state):
        return budget.penalty(ratios, state), budget.update(ratios, state)

    state = budget.init(_ratios())
    for scale in (1.0, 0.5, 0.0):
        penalty, state = step(_ratios(scale), state)
        chex.assert_tree_all_finite((penalty, state))


@compiled
def test_the_state_of_a_budget_is_a_carry_of_a_scan(budget):
    """Structure, shapes, dtypes and weak types do not change."""

    def step(state, scale):
        ratios = _ratios(scale)
        return budget.update(ratios, state), budget.penalty(ratios, state)

    state, penalties = jax.lax.scan(
        step, budget.init(_ratios()), jnp.linspace(1, 0.1, 5)
    )
    chex.assert_trees_all_equal_shapes_and_dtypes(state, budget.init(_ratios()))
    assert penalties.dtype == jnp.float32
    assert (np.asarray(penalties) >= 0).all()
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))


@compiled
def test_the_promises_of_a_budget_are_kept(budget):
    testing.assert_budget_contract(budget, _ratios())


@compiled
def test_a_budget_is_deterministic_with_and_without_jit(budget):
    ratios, state = _ratios(), budget.init(_ratios())
    want = budget.penalty(ratios, state), budget.update(ratios, state)
    again = budget.penalty(ratios, state), budget.update(ratios, state)
    jitted = (
        jax.jit(budget.penalty)(ratios, state),
        jax.jit(budget.update)(ratios, state),
    )
    chex.assert_trees_all_equal(want, again)
    chex.assert_trees_all_close(want, jitted, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_the_derivative_of_a_penalty_is_finite_and_not_negative(budget, scale):
    state = budget.init(_ratios())
    grads = jax.grad(budget.penalty)(_ratios(scale), state)
    chex.assert_tree_all_finite(grads)
    # ADMM ties ratios to an affordable point, from below too.
    if not isinstance(state, budgets.AdmmState):
        assert all((np.asarray(g) >= 0).all() for g in grads.values())


def test_a_budget_refuses_unknown_keywords(budget):
    ratios, state = _ratios(), budget.init(_ratios())
    for function in (budget.penalty, budget.update):
        with pytest.raises(TypeError, match="keyword argument 'step'"):
            function(ratios, state, step=0)
    with pytest.raises(TypeError, match="positional argument"):
        budget.init(ratios, state)


def test_a_budget_on_eight_devices_equals_one(dear_budget):
    budget = dear_budget
    ratios, state = _ratios(), budget.init(_ratios())
    step = lambda ratios, state: (
        jax.grad(budget.penalty)(ratios, state),
        budget.update(ratios, state),
    )
    want = jax.jit(step)(ratios, state)
    everywhere = jax.device_put((ratios, state), NamedSharding(_mesh(), P()))
    got = jax.jit(step)(*everywhere)
    mapped = jax.jit(
        jax.shard_map(step, mesh=_mesh(), in_specs=(P(), P()), out_specs=P())
    )(ratios, state)
    stack = lambda tree: jax.tree.map(lambda x: jnp.stack([x] * 8), tree)
    pmapped = jax.pmap(step)(stack(ratios), stack(state))
    pmapped = jax.tree.map(lambda x: x[7], pmapped)
    for result in (got, mapped, pmapped):
        chex.assert_trees_all_close(result, want, rtol=1e-6, atol=1e-8)


@compiled
def test_the_state_of_a_budget_may_be_donated(budget):
    step = jax.jit(budget.update, donate_argnums=1)
    state = budget.init(_ratios())
    for _ in range(3):
        old, state = state, step(_ratios(), state)
        # XLA drops arguments that are not read; all that are read are donated.
        if old:
            assert old.step.is_deleted()
            admm = isinstance(old, budgets.AdmmState)
            assert getattr(old, "dual" if admm else "log_multiplier").is_deleted()
    chex.assert_tree_all_finite((state, budget.init(_ratios())))


def test_sites_without_keep_ratios_count_as_kept_whole(budget):
    state = budget.init(_ratios())
    if isinstance(state, budgets.AdmmState):  # its vectors need every site
        for function in (budget.penalty, budget.update):
            with pytest.raises(ValueError, match="no keep ratios"):
                function({}, state)
        return
    whole = {name: jnp.ones_like(r) for name, r in _ratios().items()}
    chex.assert_trees_all_close(budget.penalty({}, state), budget.penalty(whole, state))
    chex.assert_trees_all_close(budget.update({}, state), budget.update(whole, state))


def _kept(dtype=jnp.float32):
    params = _params(dtype)
    return jaxprune.magnitude(sparsity=0.6).masks(params, {})


# Ways to run a pure function ---------------------------------------------------------

ALL_WAYS = {
    "with_jit": True,
    "without_jit": True,
    "with_device": True,
    "without_device": True,
    "with_pmap": True,
}


class EveryWayToRun(chex.TestCase):
    """With and without jit, on the device or from NumPy arrays, and under pmap."""

    @chex.variants(**ALL_WAYS)
    @parameterized.parameters(*_FEW)
    def test_apply(self, name):
        _check_apply(self.variant, name)

    @chex.variants(**ALL_WAYS)
    def test_soft_prune(self):
        weights = _params()["dense"]["kernel"]
        args = weights, jnp.float32(0.5), jnp.float32(0.1)
        want = methods.soft_prune(*args)
        got = self.variant(methods.soft_prune)(*args)
        chex.assert_trees_all_close(got, want, rtol=1e-5, atol=1e-6)

    @chex.variants(**ALL_WAYS)
    def test_top_k_masks(self):
        scores = _params()
        want = jaxprune.top_k_masks(scores, 100)
        got = self.variant(lambda s: jaxprune.top_k_masks(s, 100))(scores)
        chex.assert_trees_all_equal(got, want)

    @chex.variants(**ALL_WAYS)
    def test_apply_masks_and_nonzero_masks(self):
        params, masks = _params(), _kept()
        both = lambda p, m: jaxprune.nonzero_masks(jaxprune.apply_masks(p, m))
        got = self.variant(both)(params, masks)
        want = jax.tree.map(lambda w, m: jnp.broadcast_to(m, w.shape), params, masks)
        chex.assert_trees_all_equal(got, want)

    @chex.variants(**ALL_WAYS)
    @parameterized.parameters(*_FEW_BUDGETS)
    def test_budget(self, name):
        _check_budget(self.variant, name)


@pytest.mark.slow
class EveryWayToRunTheOthers(chex.TestCase):
    """The methods and budgets that share their way to decide with one above."""

    @chex.variants(**ALL_WAYS)
    @parameterized.parameters(
        *[n for n in PRUNERS if n not in _FEW and not n.endswith("-schedule")]
    )
    def test_apply(self, name):
        _check_apply(self.variant, name)

    @chex.variants(**ALL_WAYS)
    @parameterized.parameters(*[n for n in _DEAR_BUDGETS if n not in _FEW_BUDGETS])
    def test_budget(self, name):
        _check_budget(self.variant, name)


def _check_apply(variant, name):
    params, pruner = _params(), PRUNERS[name].pruner
    variables = pruner.init(params)
    want = pruner.apply(params, variables, step=3)
    got = variant(lambda p, v: pruner.apply(p, v, step=3))(params, variables)
    chex.assert_trees_all_close(got, want, rtol=1e-5, atol=1e-6)


def _check_budget(variant, name):
    budget = BUDGETS[name]()
    both = lambda r, s: (budget.penalty(r, s), budget.update(r, s))
    want = both(_ratios(), budget.init(_ratios()))
    got = variant(both)(_ratios(), budget.init(_ratios()))
    chex.assert_trees_all_close(got, want, rtol=1e-5, atol=1e-8)
