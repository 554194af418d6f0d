"""The contract: every transformation inside every wrapper of optax and of JAX.

A factory without a row fails. All rows end with the same promises: parameters as in a
plain loop, dtypes kept, and `check` content.
"""

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxprune
from jaxprune import prox, transforms
from tests.support.rows import rows

soft = prox.soft_threshold
STEPS = 3
PRUNER = jaxprune.soft_thresholding()
SHAPE = optax.linear_schedule(0.0, 1.0, STEPS)


def _params(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
    return {
        "a": {"bias": draw(3), "kernel": draw(8, 3)},
        "b": {"kernel": draw(3, 8)},
    }


def _masks(params):
    return jaxprune.global_magnitude(sparsity=0.5).masks(params, {})


def _both(params):
    return {"params": params, "variables": PRUNER.init(params)}


class Row(NamedTuple):
    """A transformation, complete: `tx` of what trains, made of the parameters.

    Attributes:
      make: `params -> transformation`.
      bare: what moves the leaves that are not selected.
      inject: the same transformation under `inject_hyperparams`, or None.
      hyper: a traced number to the transformation, or None where there is none.
      trains: parameters to what is trained.
    """

    make: Callable[[Any], Any]
    bare: Any = optax.sgd(0.1)
    inject: Callable[[], Any] | None = None
    hyper: Callable[[Any], Any] | None = None
    trains: Callable[[Any], Any] = lambda params: params


def _sgd(tx):
    return optax.chain(optax.sgd(0.1), tx)


def _sgd_injected(factory, static=(), **arguments):
    injected = optax.inject_hyperparams(factory, static_args=("where", *static))
    return _sgd(injected(**arguments))


_adam = functools.partial(optax.adam, 0.1)
_metric = transforms.adam_preconditioner()

ROWS = {
    "proximal": Row(
        lambda _: _sgd(transforms.proximal(soft, 0.3)),
        inject=lambda: _sgd_injected(
            transforms.proximal, ("prox",), prox=soft, scaling=0.3
        ),
        hyper=lambda s: _sgd(transforms.proximal(soft, s)),
    ),
    "ista": Row(
        lambda _: _sgd(transforms.ista(3.0, 0.1)),
        inject=lambda: _sgd_injected(transforms.ista, strength=3.0, learning_rate=0.1),
        hyper=lambda s: _sgd(transforms.ista(s, 0.1)),
    ),
    "ista-size": Row(
        lambda _: _sgd(transforms.ista(sparsity=0.5, steps=STEPS)),
        hyper=lambda s: _sgd(transforms.ista(sparsity=s, steps=STEPS)),
    ),
    "gradual_magnitude": Row(
        lambda _: transforms.gradual_magnitude(
            optax.sgd(0.1), sparsity=0.5, steps=STEPS
        ),
        inject=lambda: optax.inject_hyperparams(
            transforms.gradual_magnitude, static_args=("steps", "where")
        )(optax.sgd(0.1), sparsity=0.5, steps=STEPS),
        hyper=lambda s: transforms.gradual_magnitude(
            optax.sgd(0.1), sparsity=s, steps=STEPS
        ),
    ),
    "accelerated_proximal": Row(
        lambda _: _sgd(transforms.accelerated_proximal(soft, 0.3)),
        inject=lambda: _sgd_injected(
            transforms.accelerated_proximal, ("prox",), prox=soft, scaling=0.3
        ),
        hyper=lambda s: _sgd(transforms.accelerated_proximal(soft, s)),
    ),
    "fista": Row(
        lambda _: _sgd(transforms.fista(3.0, 0.1)),
        inject=lambda: _sgd_injected(transforms.fista, strength=3.0, learning_rate=0.1),
        hyper=lambda s: _sgd(transforms.fista(s, 0.1)),
    ),
    "preconditioned_proximal": Row(
        lambda _: transforms.preconditioned_proximal(
            _adam(), soft, 0.3, preconditioner=_metric
        ),
        bare=_adam(),
        inject=lambda: optax.inject_hyperparams(
            transforms.preconditioned_proximal,
            static_args=("prox", "preconditioner", "where"),
        )(_adam(), soft, 0.3, preconditioner=_metric),
        hyper=lambda s: transforms.preconditioned_proximal(
            _adam(), soft, s, preconditioner=_metric
        ),
    ),
    "adam_ista": Row(
        lambda _: transforms.adam_ista(3.0, 0.1),
        bare=_adam(),
        inject=lambda: optax.inject_hyperparams(transforms.adam_ista)(3.0, 0.1),
        hyper=lambda s: transforms.adam_ista(s, 0.1),
    ),
    "adam_ista-size": Row(
        lambda _: transforms.adam_ista(learning_rate=0.1, sparsity=0.5, steps=STEPS),
        bare=_adam(),
        hyper=lambda s: transforms.adam_ista(
            learning_rate=0.1, sparsity=s, steps=STEPS
        ),
    ),
    "latent_proximal": Row(
        lambda _: transforms.latent_proximal(_adam(), soft, 0.5),
        bare=_adam(),
        inject=lambda: optax.inject_hyperparams(
            transforms.latent_proximal, static_args=("prox", "initialize", "where")
        )(_adam(), soft, 0.5),
        hyper=lambda s: transforms.latent_proximal(_adam(), soft, s),
    ),
    "lats": Row(
        lambda _: transforms.lats(_adam(), threshold=0.5),
        bare=_adam(),
        inject=lambda: optax.inject_hyperparams(transforms.lats)(
            _adam(), threshold=0.5
        ),
        hyper=lambda s: transforms.lats(_adam(), threshold=s),
    ),
    "lats-size": Row(
        lambda _: transforms.lats(_adam(), sparsity=0.5, steps=STEPS),
        bare=_adam(),
        inject=lambda: optax.inject_hyperparams(
            transforms.lats, static_args=("steps", "where")
        )(_adam(), sparsity=0.5, steps=STEPS),
        hyper=lambda s: transforms.lats(_adam(), sparsity=s, steps=STEPS),
    ),
    "freeze_pruned": Row(
        lambda params: optax.chain(_adam(), transforms.freeze_pruned(_masks(params))),
        bare=_adam(),
    ),
    "follow_threshold": Row(
        lambda _: transforms.follow_threshold(_adam(), PRUNER, threshold=0.5),
        bare=_adam(),
        inject=lambda: optax.inject_hyperparams(transforms.follow_threshold)(
            _adam(), PRUNER, threshold=0.5
        ),
        hyper=lambda s: transforms.follow_threshold(_adam(), PRUNER, threshold=s),
        trains=_both,
    ),
    "reach_keep_ratio": Row(
        lambda _: transforms.reach_keep_ratio(
            _adam(), PRUNER, keep_ratio=0.5, shape=SHAPE
        ),
        bare=_adam(),
        inject=lambda: optax.inject_hyperparams(
            transforms.reach_keep_ratio, static_args="shape"
        )(_adam(), PRUNER, keep_ratio=0.5, shape=SHAPE),
        hyper=lambda s: transforms.reach_keep_ratio(
            _adam(), PRUNER, keep_ratio=s, shape=SHAPE
        ),
        trains=_both,
    ),
}
each_row = pytest.mark.parametrize("name", ROWS)
# Two rows share their control with others, which stand for them where it is slow.
KINDS = [n for n in ROWS if n not in ("ista-size", "adam_ista-size")]
each_kind = pytest.mark.parametrize("name", KINDS)
# One of each way to find the step, for many devices.
FEW = ("proximal", "gradual_magnitude", "lats-size", "freeze_pruned")
FEW += ("follow_threshold",)
MESHES = [AxisType.Auto, AxisType.Explicit]
few = pytest.mark.parametrize("name", rows(KINDS, FEW))


def _grads(trainable, step, seed=0):
    """Gradients of the weights; thresholds that follow a schedule get none."""
    rng = np.random.default_rng((seed, step))

    def leaf(path, x):
        thresholds = any("variables" in str(key) for key in path)
        scale = 0.0 if thresholds else 1.0
        return jnp.asarray(scale * rng.normal(size=x.shape), x.dtype)

    return jax.tree_util.tree_map_with_path(leaf, trainable)


def _run(tx, trainable, steps=STEPS, jit=jax.jit, **extra):
    """What is trained, and the state, after some steps."""

    @jit
    def step(trainable, state, grads):
        updates, state = tx.update(grads, state, trainable, **extra)
        return optax.apply_updates(trainable, updates), state

    state = jit(tx.init)(trainable)
    for i in range(steps):
        trainable, state = step(trainable, state, _grads(trainable, i))
    return trainable, state


def _eagerly(f):
    return f


@functools.cache
def _plain(name):
    row = ROWS[name]
    return _run(row.make(_params()), row.trains(_params()))


def _same(got, want, **tolerance):
    """The same weights, and zeros in the same places."""
    tolerance = {"rtol": 1e-5, "atol": 1e-6, **tolerance}
    got, want = jax.tree.leaves(got), jax.tree.leaves(want)
    chex.assert_trees_all_close(got, want, **tolerance)
    for x, y in zip(got, want, strict=True):
        np.testing.assert_array_equal(np.asarray(x) == 0, np.asarray(y) == 0)


def test_every_transformation_has_a_row():
    noun = optax.GradientTransformationExtraArgs
    factories = {
        name
        for name in transforms.__all__
        if inspect.isfunction(value := getattr(transforms, name))
        and inspect.signature(value).return_annotation is noun
    }
    assert {name.split("-")[0] for name in ROWS} == factories


@each_row
def test_steps_trace_once_keep_dtypes_and_tolerate_extra_arguments(name):
    row = ROWS[name]
    tx = optax.with_extra_args_support(row.make(_params()))
    start = row.trains(_params())
    counted = functools.partial(chex.assert_max_traces, n=1)
    after, state = _run(
        tx, start, jit=lambda f: jax.jit(counted(f)), value=1.0, anything=None
    )
    chex.assert_trees_all_equal_shapes_and_dtypes(after, start)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, tx.init(start))
    want, _ = _plain(name)
    chex.assert_trees_all_equal(after, want)
    assert any(float(jnp.sum(x == 0)) for x in jax.tree.leaves(after)) or name in (
        "accelerated_proximal",
        "fista",
        "follow_threshold",
        "reach_keep_ratio",
    )
    jaxprune.check(state)


@each_row
def test_other_leaves_move_as_under_the_bare_optimizer(name):
    params, row = _params(), ROWS[name]
    bare = optax.chain(row.bare) if row.bare is not None else None
    after, _ = _run(row.make(params), row.trains(params), jit=_eagerly)
    want, _ = _run(bare, row.trains(params), jit=_eagerly)
    weights = lambda tree: tree.get("params", tree)
    np.testing.assert_array_equal(
        weights(after)["a"]["bias"], weights(want)["a"]["bias"]
    )


@each_row
@pytest.mark.parametrize("dtype", rows(["bfloat16", "float64"], ["bfloat16"]))
def test_every_float_type_is_kept_and_pruned_exactly(name, dtype):
    row = ROWS[name]
    with jax.enable_x64(dtype == "float64"), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of 16-bit master weights
        params = _params(dtype)
        start = row.trains(params)
        tx = row.make(params)
        after, state = _run(tx, start)
        chex.assert_trees_all_equal_shapes_and_dtypes(after, start)
        chex.assert_trees_all_equal_shapes_and_dtypes(state, tx.init(start))
        jaxprune.check(state)
        if name in ("ista-size", "gradual_magnitude", "adam_ista-size", "lats-size"):
            final = jaxprune.finalize(after, state)
            assert jaxprune.summarize(final.params, final.masks).kept == 24


@few
def test_multi_steps_takes_one_step_for_two_gradients(name):
    row = ROWS[name]
    tx, start = row.make(_params()), row.trains(_params())
    wrapped = optax.MultiSteps(tx, 2)
    grads = _grads(start, 0)
    state, after, update = wrapped.init(start), start, jax.jit(wrapped.update)
    for i in range(4):
        updates, state = update(grads, state, after)
        moved = optax.apply_updates(after, updates)
        if i % 2 == 0:
            chex.assert_trees_all_equal(moved, after)
        after = moved
    want, inner, update = start, tx.init(start), jax.jit(tx.update)
    for _ in range(2):
        updates, inner = update(grads, inner, want)
        want = optax.apply_updates(want, updates)
    _same(after, want)
    jaxprune.check(state)


@few
def test_apply_if_finite_skips_a_broken_gradient(name):
    row = ROWS[name]
    tx = optax.apply_if_finite(row.make(_params()), max_consecutive_errors=5)
    after = row.trains(_params())
    state, update = tx.init(after), jax.jit(tx.update)
    for i in range(STEPS):
        broken = jax.tree.map(lambda g: g * jnp.nan, _grads(after, 9))
        for grads in (_grads(after, i), broken):
            updates, state = update(grads, state, after)
            after = optax.apply_updates(after, updates)
    _same(after, _plain(name)[0])
    jaxprune.check(state)


@few
def test_partition_and_masked_run_it_on_their_part(name):
    row, params = ROWS[name], _params()
    start = {"net": row.trains(params), "rest": jnp.ones(3)}
    masks = {"net": _masks(params), "rest": jnp.asarray(True)}
    tx = row.make({"net": params})
    if name == "freeze_pruned":
        tx = optax.chain(_adam(), transforms.freeze_pruned(masks))
    if row.trains is _both:
        # These two act on the whole of what is trained: inside, not around.
        with pytest.raises(ValueError, match="`params` and `variables`"):
            optax.masked(tx, {"net": True, "rest": False}).init(start)
        return
    labels = {"net": "pruned", "rest": "dense"}
    parts = optax.partition({"pruned": tx, "dense": optax.sgd(0.1)}, labels)
    masked = optax.masked(tx, {"net": True, "rest": False})
    for wrapped in (parts, masked):
        after, state, update = start, wrapped.init(start), jax.jit(wrapped.update)
        for i in range(STEPS):
            grads = {"net": _grads(after["net"], i), "rest": jnp.ones(3)}
            updates, state = update(grads, state, after)
            after = optax.apply_updates(after, updates)
        _same(after["net"], _plain(name)[0])
        jaxprune.check(state)


@pytest.mark.parametrize(
    "name",
    rows(
        [n for n, row in ROWS.items() if row.inject],
        ("proximal", "lats-size", "follow_threshold"),
    ),
)
def test_inject_hyperparams_gives_the_same_steps(name):
    row = ROWS[name]
    after, state = _run(row.inject(), row.trains(_params()))
    # Decay rates become float32, which moves Adam's steps in the fifth digit.
    _same(after, _plain(name)[0], rtol=1e-4, atol=1e-5)
    jaxprune.check(state)


@pytest.mark.parametrize(
    "name",
    rows(
        [n for n, row in ROWS.items() if row.hyper],
        ("proximal", "gradual_magnitude", "lats-size", "follow_threshold"),
    ),
)
def test_vmap_over_a_hyper_parameter_equals_one_run_for_each(name):
    row = ROWS[name]
    values = jnp.array([0.25, 0.5], jnp.float32)
    run = lambda value: _run(row.hyper(value), row.trains(_params()), jit=_eagerly)
    got, state = jax.jit(jax.vmap(run))(values)
    jaxprune.check(state)
    for i, value in enumerate((0.25, 0.5)):
        want, _ = run(value)
        # Half a threshold is exact in float32, so a float and an array agree.
        _same(jax.tree.map(lambda x, i=i: x[i], got), want)


@few
def test_scan_and_vmap_over_seeds_equal_one_run_for_each(name):
    row = ROWS[name]
    tx = row.make(_params())
    half = jax.tree.map(lambda x: 0.5 * x, _params())
    starts = [row.trains(_params()), row.trains(half)]
    stack = lambda trees: jax.tree.map(lambda *x: jnp.stack(x), *trees)
    grads = stack([stack([_grads(s, i) for i in range(STEPS)]) for s in starts])

    @functools.partial(jax.jit, donate_argnums=0)
    @jax.vmap
    def train(carry, grads):
        def step(carry, grads):
            updates, state = tx.update(grads, carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), state), None

        return jax.lax.scan(step, carry, grads)[0]

    start = stack(starts)
    carry = start, jax.vmap(tx.init)(start)
    got, state = train(carry, grads)
    assert jax.tree.leaves(start)[0].is_deleted()
    jaxprune.check(state)
    for i, one in enumerate(starts):
        want, _ = _run(tx, one) if i else _plain(name)
        _same(jax.tree.map(lambda x, i=i: x[i], got), want)


def _mesh(kind):
    return jax.make_mesh((8,), ("data",), axis_types=(kind,))


def _shardings(trainable, mesh):
    """Kernels are sharded over the devices, along whichever axis has eight."""

    def leaf(x):
        spec = [("data" if n == 8 else None) for n in x.shape]
        return NamedSharding(mesh, P(*spec))

    return jax.tree.map(leaf, trainable)


@few
@pytest.mark.parametrize("kind", rows(MESHES, MESHES[1:]))
def test_sharded_over_eight_devices_equals_one(name, kind):
    row, mesh = ROWS[name], _mesh(kind)
    start = row.trains(_params())
    placed = jax.device_put(start, _shardings(start, mesh))
    with jax.set_mesh(mesh):
        tx = row.make(jax.device_put(_params(), _shardings(_params(), mesh)))
        state, step = tx.init(placed), jax.jit(tx.update)
        for i in range(STEPS):
            grads = jax.device_put(_grads(start, i), _shardings(start, mesh))
            updates, state = step(grads, state, placed)
            placed = optax.apply_updates(placed, updates)
    _same(jax.device_get(placed), jax.device_get(_plain(name)[0]))
    jaxprune.check(state)


@few
def test_shard_map_and_pmap_equal_one_device(name):
    row = ROWS[name]
    tx, start = row.make(_params()), row.trains(_params())

    def train(trainable, grads):
        def step(carry, grads):
            updates, state = tx.update(grads, carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), state), None

        carry = trainable, tx.init(trainable)
        return jax.lax.scan(step, carry, grads)[0]

    def train_varying(trainable, grads):
        trainable = jax.lax.pcast(trainable, "data", to="varying")
        after, state = train(trainable, grads)
        return jax.tree.map(lambda x: x[None], (after, state))

    stack = lambda *x: jnp.stack(x)
    grads = jax.tree.map(stack, *[_grads(start, i) for i in range(STEPS)])
    mesh = _mesh(AxisType.Auto)
    same = jax.shard_map(train, mesh=mesh, in_specs=P(), out_specs=P())
    varying = jax.shard_map(
        train_varying, mesh=mesh, in_specs=(P(), P()), out_specs=P("data")
    )
    copies = jax.tree.map(lambda x: jnp.stack([x] * 8), (start, grads))
    one = lambda tree: jax.tree.map(lambda x: x[7], tree)
    _same(jax.jit(same)(start, grads)[0], _plain(name)[0])
    for after, state in (
        one(jax.jit(varying)(start, grads)),
        one(jax.pmap(train)(*copies)),
    ):
        _same(after, _plain(name)[0])
        jaxprune.check(state)


class Net(NamedTuple):
    """Parameters in a NamedTuple."""

    a: Any
    b: Any


def _state_of(tree):
    wrap = lambda x: nnx.Param(x) if isinstance(x, jax.Array) else _state_dict(x)
    return nnx.State({key: wrap(value) for key, value in tree.items()})


def _state_dict(tree):
    return {
        key: nnx.Param(x) if isinstance(x, jax.Array) else _state_dict(x)
        for key, x in tree.items()
    }


CONTAINERS = {
    "FrozenDict": flax.core.freeze,
    "nnx.State": _state_of,
    "NamedTuple": lambda tree: Net(**tree),
    "list": lambda tree: [list(layer.values()) for layer in tree.values()],
}


class Both(NamedTuple):
    """What is trained, in a NamedTuple."""

    params: Any
    variables: Any


@each_kind
@pytest.mark.parametrize("container", rows(CONTAINERS, ("nnx.State", "NamedTuple")))
def test_every_container_is_trained_alike(name, container):
    wrap, row = CONTAINERS[container], ROWS[name]
    if row.trains is _both:
        wrap = {
            "FrozenDict": flax.core.freeze,
            "nnx.State": _state_of,
            "NamedTuple": lambda tree: Both(**tree),
            "list": lambda tree: tree,
        }[container]
        start = wrap(row.trains(_params()))
        tx = row.make(start)
    else:
        start = wrap(_params())
        tx = row.make(start)
    state, after, plain = tx.init(start), start, row.trains(_params())
    for i in range(STEPS):
        grads = _grads(plain, i)
        if row.trains is _both or container != "list":
            grads = wrap(grads)
        else:
            grads = CONTAINERS["list"](grads)
        updates, state = tx.update(grads, state, after)
        after = optax.apply_updates(after, updates)
    assert jax.tree.structure(after) == jax.tree.structure(start)
    _same(after, _plain(name)[0])
    jaxprune.check(state)


@each_row
def test_map_params_finds_the_trees_like_the_parameters(name):
    row = ROWS[name]
    start = row.trains(_params())
    tx = row.make(_params())
    state = tx.init(start)
    hidden = lambda x: isinstance(x, optax.MaskedNode)
    marked = optax.tree.map_params(
        tx,
        lambda _: "P",
        state,
        transform_non_params=lambda _: "-",
        is_leaf=hidden,
    )
    leaves = jax.tree.leaves(state, is_leaf=hidden), jax.tree.leaves(marked)
    for old, new in zip(*leaves, strict=True):
        assert new == "P" or not (hidden(old) or old.ndim)
    if name in ("latent_proximal", "lats", "lats-size"):
        assert marked.latent == jax.tree.map(lambda _: "P", start)
    if name in ("accelerated_proximal", "fista"):
        assert marked[-1].iterate == jax.tree.map(lambda _: "P", start)


@each_row
def test_init_takes_shapes_and_traced_arrays(name):
    row = ROWS[name]
    tx, start = row.make(_params()), row.trains(_params())
    want = tx.init(start)
    shapes = jax.eval_shape(lambda: start)
    chex.assert_trees_all_equal_shapes_and_dtypes(tx.init(shapes), want)
    chex.assert_trees_all_equal_shapes_and_dtypes(jax.eval_shape(tx.init, start), want)


@each_row
def test_integers_none_and_keys_pass(name):
    row, params = ROWS[name], _params()
    odd = {**params, "count": jnp.arange(3), "nothing": None}
    if row.trains is _both:
        return  # the optimizer of the weights sees them, as above
    tx = row.make(odd)
    state, after = tx.init(odd), odd
    zero = {**_grads(params, 0), "count": jnp.zeros(3, jnp.int32), "nothing": None}
    updates, state = tx.update(zero, state, after)
    after = optax.apply_updates(after, updates)
    np.testing.assert_array_equal(after["count"], [0, 1, 2])
    assert after["nothing"] is None
    jaxprune.check(state)


@each_row
def test_an_update_without_parameters_is_refused(name):
    row = ROWS[name]
    tx, start = row.make(_params()), row.trains(_params())
    if name == "freeze_pruned":
        tx = transforms.freeze_pruned(_masks(_params()))
    with pytest.raises(ValueError, match=r"params=None\)`: the parameters are"):
        tx.update(_grads(start, 0), tx.init(start))


@pytest.mark.parametrize(
    "name", [n for n in ROWS if n != "freeze_pruned" and ROWS[n].trains is not _both]
)
def test_a_selection_of_nothing_is_refused_with_the_name_of_the_function(name):
    tx = ROWS[name].make(_params())
    message = rf"`{name.split('-')[0]}\(..., where=...\)`"
    with pytest.raises(ValueError, match=message):
        tx.init({"bias": jnp.ones(3)})
