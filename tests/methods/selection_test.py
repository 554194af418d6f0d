"""One selection for all methods: stacked layers, masks that hold, ratios by pattern."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxprune
from jaxprune import masks as jmasks


def _loss(params):
    leaves = jax.tree.leaves(params)
    flat = jnp.concatenate([jnp.ravel(x) for x in leaves])
    return jnp.sum(jnp.sin(flat)) + jnp.sum(flat) ** 2


FACTORIES = {
    "ltp": functools.partial(jaxprune.ltp, init_threshold=0.7),
    "ltp_as_published": functools.partial(
        jaxprune.ltp_as_published, temperature=0.3, init_threshold=0.2
    ),
    "magnitude": functools.partial(jaxprune.magnitude, sparsity=0.7),
    "global_magnitude": functools.partial(jaxprune.global_magnitude, sparsity=0.7),
    "soft_thresholding": functools.partial(
        jaxprune.soft_thresholding, init_threshold=0.7
    ),
    "soft_threshold_reparameterization": functools.partial(
        jaxprune.soft_threshold_reparameterization, init_value=-2.0
    ),
    "soft_threshold_reparameterization_as_published": functools.partial(
        jaxprune.soft_threshold_reparameterization_as_published, init_value=0.5
    ),
    "snip": functools.partial(jaxprune.snip, _loss),
    "grasp": functools.partial(jaxprune.grasp, _loss),
    "random_erk": functools.partial(jaxprune.random_erk, jax.random.key(0)),
}
ORDERED = [name for name in FACTORIES if name != "random_erk"]
LEARNED = [name for name in FACTORIES if "ltp" in name or "soft" in name]


def _stack(rng):
    scale = jnp.array([1.0, 0.3, 2.0]).reshape(3, 1, 1)
    return {
        "blocks": scale * jnp.asarray(rng.normal(size=(3, 8, 6)), jnp.float32),
        "head": jnp.asarray(rng.normal(size=(6, 10)), jnp.float32),
    }


def _unrolled(params):
    layers = {f"layer{i}": layer for i, layer in enumerate(params["blocks"])}
    return {**layers, "zhead": params["head"]}


@pytest.mark.parametrize("name", ORDERED)
def test_stacked_layers_are_pruned_as_unrolled_ones(name, rng):
    stacked = FACTORIES[name](where=jaxprune.selection(stacked="blocks"))
    params, single = _stack(rng), FACTORIES[name]()
    flat = _unrolled(params)
    variables = stacked.init(params)
    got = stacked.masks(params, variables, keep_ratio=0.1)
    want = single.masks(flat, single.init(flat), keep_ratio=0.1)
    for i in range(3):
        np.testing.assert_array_equal(got["blocks"][i], want[f"layer{i}"])
    np.testing.assert_array_equal(got["head"], want["zhead"])
    seen, ratios = stacked.apply(params, variables)
    one, single_ratios = single.apply(flat, single.init(flat))
    for i in range(3):
        np.testing.assert_allclose(seen["blocks"][i], one[f"layer{i}"], rtol=1e-5)
    if name in LEARNED:
        assert variables["blocks"].shape == ratios["blocks"].shape == (3,)
        np.testing.assert_allclose(
            ratios["blocks"], [single_ratios[f"layer{i}"] for i in range(3)], rtol=1e-5
        )


def test_random_masks_of_stacked_layers_have_the_counts_of_unrolled_ones(rng):
    pruner = FACTORIES["random_erk"](where=jaxprune.selection(stacked="blocks"))
    params = _stack(rng)
    got = pruner.masks(params, {}, keep_ratio=0.3)
    want = FACTORIES["random_erk"]().masks(_unrolled(params), {}, keep_ratio=0.3)
    assert got["blocks"].sum((1, 2)).tolist() == [
        int(want[f"layer{i}"].sum()) for i in range(3)
    ]


@pytest.mark.parametrize("name", FACTORIES)
def test_what_is_pruned_stays_pruned_and_counts(name, rng):
    params = _stack(rng)
    held = jax.tree.map(
        lambda w: jnp.asarray(rng.permutation(w.size).reshape(w.shape) < w.size // 2),
        params,
    )
    pruner = FACTORIES[name](where=jaxprune.selection(masks=held))
    variables = pruner.init(params)
    got = pruner.masks(params, variables, keep_ratio=0.25)
    assert sum(int(m.sum()) for m in got.values()) == 51  # a quarter of all 204
    seen, ratios = pruner.apply(params, variables)
    for leaf, mask in held.items():
        assert not (got[leaf] & ~mask).any()
        assert not seen[leaf][~mask].any()
    assert all((np.asarray(r) <= 0.5001).all() for r in ratios.values())
    for leaf, ratio in ratios.items():
        if "ltp" not in name:  # whose count is soft
            assert float(ratio) == np.float32(np.mean(seen[leaf] != 0))
    with pytest.raises(ValueError, match=rf"`{name}\(keep_ratio=0.6.*nothing comes"):
        pruner.masks(params, variables, keep_ratio=0.6)


def test_the_minimum_of_a_method_is_the_floor_of_each_layer():
    params = {"a": jnp.ones((4, 4)), "stack": jnp.ones((3, 2, 5))}
    mask = {"a": jnp.arange(16).reshape(4, 4) < 1, "stack": jnp.asarray(True)}
    for make in (jaxprune.ltp, jaxprune.soft_thresholding):
        where = jaxprune.selection(jaxprune.kernels, stacked="stack")
        got = make(min_keep_ratio=0.11, where=where).minimum(params)
        assert got["a"] == np.float32(2 / 16)
        np.testing.assert_array_equal(got["stack"], np.float32([0.2] * 3))
        held = jaxprune.selection(where, masks=mask)
        got = make(min_keep_ratio=0.11, where=held).minimum(
            jax.eval_shape(lambda: params)
        )
        assert got["a"] == np.float32(1 / 16)


@pytest.mark.parametrize("name", FACTORIES)
def test_keep_ratios_are_given_by_pattern(name, rng):
    params, pruner = _stack(rng), FACTORIES[name]()
    variables = pruner.init(params)
    by_pattern = {"he*": 0.5, "*": 0.125}
    got = pruner.masks(params, variables, keep_ratio=by_pattern)
    assert {leaf: int(m.sum()) for leaf, m in got.items()} == {"blocks": 18, "head": 30}
    with pytest.raises(ValueError, match=rf"`{name}\(keep_ratio=.*'blocks'"):
        pruner.masks(params, variables, keep_ratio={"he*": 0.5})


def test_sparsities_and_minima_are_given_by_pattern(rng):
    params = _stack(rng)
    for ramp in (0.5, lambda step: 0.1 * step):
        pruner = jaxprune.magnitude(sparsity={"head": ramp, "*": 0.75})
        seen = pruner.apply(params, {}, step=jnp.int32(5)).params
        kept = {leaf: int((w != 0).sum()) for leaf, w in seen.items()}
        assert kept == {"blocks": 36, "head": 30}
    floors = {"head": 0.5, "*": 0.0}
    pruner = jaxprune.global_magnitude(sparsity=0.8, min_keep_ratio=floors)
    assert int(pruner.masks(params, {})["head"].sum()) >= 30


@pytest.mark.parametrize("name", FACTORIES)
def test_not_a_number_is_refused_by_leaf_where_known_and_stays_where_traced(name, rng):
    params = _stack(rng)
    pruner = FACTORIES[name]()
    variables = pruner.init(params)
    params["head"] = params["head"].at[2, 3].set(jnp.nan)
    if name == "random_erk":
        return
    with pytest.raises(ValueError, match=rf"`{name}.*'head'.*hold NaN"):
        pruner.masks(params, variables, keep_ratio=0.2)
    masks = jax.jit(lambda p, v: pruner.masks(p, v, keep_ratio=0.2))(params, variables)
    if name not in ("snip", "grasp"):  # there one NaN makes every score NaN
        assert bool(masks["head"][2, 3])
    if name in LEARNED:
        with pytest.raises(ValueError, match=rf"`{name}.*'head'.*hold NaN"):
            pruner.masks(params, variables)


BAD = [
    ("temperature", -1.0),
    ("init_threshold", -1.0),
    ("init_threshold", float("inf")),
    ("init_value", float("nan")),
    ("sparsity", 1.5),
    ("min_keep_ratio", 2.0),
    ("min_keep_ratio", {"*": -0.5}),
]


@pytest.mark.parametrize("name", FACTORIES)
def test_errors_begin_with_the_function_that_was_called(name):
    factory = FACTORIES[name]
    arguments = inspect.signature(factory.func).parameters
    for argument, value in BAD:
        if argument in arguments:
            with pytest.raises(ValueError, match=rf"^`{name}\({argument}="):
                factory(**{argument: value})
    pruner = factory(min_keep_ratio=1e-3)
    with pytest.raises(ValueError, match=rf"^`{name}\(where=...\)`"):
        pruner.apply({}, {}, step=0)
    with pytest.raises(TypeError, match=rf"^`{name}\(where=...\)`.*'steps'"):
        factory(where="*").apply({"w": jnp.ones((2, 2)), "steps": jnp.arange(3)}, {})
    params = {"kernel": jnp.ones((4, 4))}
    with pytest.raises(ValueError, match=rf"^`{name}\(keep_ratio="):
        pruner.masks(params, pruner.init(params), keep_ratio=0.01)
    with pytest.raises(ValueError, match=rf"^`{name}\(keep_ratio=5"):
        pruner.masks(params, pruner.init(params), keep_ratio=np.float32(5))


@pytest.mark.parametrize("name", ["ltp", "soft_threshold_reparameterization"])
def test_temperatures_and_starts_may_be_mapped(name, rng):
    params, factory = _stack(rng), getattr(jaxprune, name)
    start = "init_threshold" if name == "ltp" else "init_value"

    def kept(temperature, value):
        pruner = factory(temperature=temperature, **{start: value})
        return pruner.apply(params, pruner.init(params)).keep_ratios["head"]

    temperatures, values = jnp.array([0.1, 0.3]), jnp.array([0.5, 1.0])
    got = jax.vmap(kept)(temperatures, values)
    want = [kept(float(t), float(v)) for t, v in zip(temperatures, values, strict=True)]
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_a_mapped_sparsity_keeps_exact_counts(rng):
    params = _stack(rng)
    ratios = jnp.array([0.9, 0.75, 0.3])

    def counts(keep_ratio):
        pruner = jaxprune.global_magnitude(sparsity=0.5)
        kept = pruner.masks(params, {}, keep_ratio=keep_ratio)
        return sum(jnp.sum(m) for m in kept.values())

    assert jax.vmap(counts)(ratios).tolist() == [183, 153, 61]


@pytest.mark.parametrize("name", ["ltp", "soft_thresholding"])
def test_forward_mode_agrees_with_reverse_mode(name, rng):
    params, pruner = _stack(rng), FACTORIES[name]()
    variables = pruner.init(params)

    def total(p, v):
        pruned = pruner.apply(p, v)
        kept = sum(jnp.sum(r) for r in pruned.keep_ratios.values())
        return kept + sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(pruned.params))

    slopes = jax.grad(total, (0, 1))(params, variables)
    away = jax.tree.map(jnp.ones_like, (params, variables))
    _, got = jax.jvp(total, (params, variables), away)
    assert float(got) == pytest.approx(
        sum(float(jnp.sum(x)) for x in jax.tree.leaves(slopes)), rel=1e-4
    )


def test_ltp_takes_the_spread_as_a_constant(rng):
    params = {"k": jnp.asarray(rng.normal(size=(50, 50)), jnp.float32)}
    pruner = jaxprune.ltp(init_threshold=1.0)
    variables = pruner.init(params)
    slope = jax.grad(lambda p: pruner.apply(p, variables).params["k"].sum())(params)
    w = np.asarray(params["k"], float)
    variance = np.var(np.abs(w))
    gate = 1 / (1 + np.exp(-(w**2 - variance) / (0.1 * variance)))
    np.testing.assert_allclose(slope["k"], gate, atol=1e-5)


@pytest.mark.parametrize(("dtype", "size"), [("float16", 2e4), ("float32", 1e30)])
@pytest.mark.parametrize("name", ["ltp", "soft_threshold_reparameterization"])
def test_huge_weights_stay_finite(name, dtype, size, rng):
    params = {"kernel": jnp.asarray(size * rng.uniform(-1, 1, size=(20, 20)), dtype)}
    pruner = FACTORIES[name]()
    variables = pruner.init(params)

    def ratio(v):
        return pruner.apply(params, v).keep_ratios["kernel"]

    value, slope = jax.value_and_grad(ratio)(variables)
    assert 0.1 < float(value) < 0.9
    assert np.isfinite(float(slope["kernel"]))
    assert float(slope["kernel"]) < 0


def test_the_end_of_a_schedule_has_the_count_of_its_number(rng):
    params = {"kernel": jnp.asarray(rng.normal(size=(10, 100)), jnp.float32)}
    for percent in (50, 90, 97, 98, 99):
        ramp = jaxprune.schedules.cubic_ramp(
            0.0, percent / 100, begin_step=0, end_step=10
        )
        pruner = jaxprune.magnitude(sparsity=ramp, min_keep_ratio=0)
        seen = jax.jit(lambda s, p=pruner: p.apply(params, {}, step=s).params)(10)
        assert int((seen["kernel"] != 0).sum()) == 1000 - 10 * percent


def test_snip_and_grasp_let_integers_pass(rng):
    params = _stack(rng) | {"steps": jnp.arange(3)}

    def loss(p):
        return _loss({"blocks": p["blocks"], "head": p["head"]}) * p["steps"][1]

    for method in (jaxprune.snip, jaxprune.grasp):
        kept = method(loss).masks(params, {}, keep_ratio=0.5)
        assert jmasks.kept_counts(params, kept)["steps"] == 3


def test_biases_that_start_at_zero_are_free():
    params = {"kernel": jnp.eye(2), "bias": jnp.zeros(2)}
    assert bool(jaxprune.nonzero_masks(params)["bias"])
    assert bool(jaxprune.identity().masks(params, {})["bias"])


@pytest.mark.parametrize("name", LEARNED)
def test_every_method_brings_the_optimizer_of_its_variables(name, rng):
    params, pruner = _stack(rng), FACTORIES[name]()
    variables = pruner.init(params)
    state = pruner.optimizer.init(variables)
    slopes = jax.tree.map(jnp.ones_like, variables)
    updates, _ = pruner.optimizer.update(slopes, state, variables)
    assert all((np.asarray(u) < 0).all() for u in updates.values())
