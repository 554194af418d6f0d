"""Magnitude pruning: what is kept, and along which schedule."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxprune
from jaxprune.masks import _k_largest as ranking
from tests.support import reference
from tests.support.rows import rows

METHODS = [jaxprune.magnitude, jaxprune.global_magnitude]


@pytest.fixture
def params(rng):
    return {
        "a": {"kernel": jnp.asarray(rng.normal(size=(10, 6)), jnp.float32)},
        "b": {"kernel": jnp.asarray(5 * rng.normal(size=(4, 10)), jnp.float32)},
        "bias": jnp.zeros(3),
    }


def test_each_leaf_keeps_its_largest(params):
    pruner = jaxprune.magnitude(sparsity=0.9, distribution=jaxprune.masks.uniform)
    kept = pruner.masks(params, {})
    for leaf, count in (("a", 6), ("b", 4)):
        want = reference.top_k(np.abs(params[leaf]["kernel"]), count)
        np.testing.assert_array_equal(kept[leaf]["kernel"], want)


def test_one_threshold_for_all_leaves(params):
    pruner = jaxprune.global_magnitude(sparsity=0.9, min_keep_ratio=0)
    kept = pruner.masks(params, {})
    flat = np.abs(np.concatenate([params[x]["kernel"].ravel() for x in "ab"]))
    got = np.concatenate([kept[x]["kernel"].ravel() for x in "ab"])
    np.testing.assert_array_equal(got, reference.top_k(flat, 10))


@pytest.mark.usefixtures("compiles_as_users_do")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", rows([jnp.float32, jnp.bfloat16], [jnp.float32]))
@pytest.mark.parametrize("alone", rows([True, False], [True]))
def test_masks_take_two_copies_of_the_weights_and_a_byte_each(
    method, dtype, alone, monkeypatch
):
    machine = ranking._Machine(2, alone)
    monkeypatch.setattr(ranking, "_machine", lambda: machine)
    one = jax.ShapeDtypeStruct((512, 1024), dtype)
    shapes = {f"layer{i}": {"kernel": one} for i in range(8)}
    masks = jax.jit(lambda p: method(sparsity=0.5).masks(p, {}))
    used = masks.lower(shapes).compile().memory_analysis()
    leaf = 512 * 1024
    weights, itemsize = 8 * leaf, jnp.dtype(dtype).itemsize
    assert used.output_size_in_bytes == pytest.approx(weights, rel=0.01)
    most = (2 * itemsize + 1.1) * weights
    if not alone:  # Arrays are not copied, but positions are stored.
        most = (itemsize + 4) * weights + 4.1 * leaf
    assert used.temp_size_in_bytes <= most


@pytest.mark.parametrize("method", METHODS)
def test_what_is_seen_is_what_the_masks_keep(method, params):
    pruner = method(sparsity=0.7)
    seen, keep_ratios = jax.jit(pruner.apply)(params, {})
    kept = pruner.masks(params, {})
    chex.assert_trees_all_equal(seen, jaxprune.apply_masks(params, kept))
    total = float(jaxprune.density(params)(keep_ratios))
    assert total == pytest.approx(0.3, abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_pruned_weights_get_no_gradient(method, params):
    pruner = method(sparsity=0.7)
    loss = lambda p: sum(jnp.sum(x**2) for x in jax.tree.leaves(pruner.apply(p, {})[0]))
    grads, kept = jax.grad(loss)(params), pruner.masks(params, {})
    for leaf in "ab":
        outside = ~kept[leaf]["kernel"]
        assert not grads[leaf]["kernel"][outside].any()
        assert grads[leaf]["kernel"][~outside].all()


@pytest.mark.parametrize("method", METHODS)
def test_a_schedule_is_followed(method, params):
    ramp = jaxprune.schedules.cubic_ramp(0.0, 0.9, begin_step=0, end_step=10)
    pruner = method(sparsity=ramp)
    cost = jaxprune.density(params)
    apply = jax.jit(lambda step: pruner.apply(params, {}, step=step)[1])
    for step in (0, 3, 10, 20):
        want = 1 - reference.cubic_ramp(step, 0.0, 0.9, 0, 10)
        assert float(cost(apply(step))) == pytest.approx(want, abs=0.021)


@pytest.mark.parametrize("method", METHODS)
def test_a_schedule_needs_the_step_and_masks_need_the_keep_ratio(method, params):
    pruner = method(sparsity=lambda step: 0.5)
    with pytest.raises(ValueError, match="step=step"):
        pruner.apply(params, {})
    with pytest.raises(ValueError, match=r"keep_ratio=\.\.\."):
        pruner.masks(params, {})


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sparsity", [-0.1, 1.0])
def test_sparsity_out_of_range_is_refused(method, sparsity):
    with pytest.raises(ValueError, match=f"sparsity={sparsity}"):
        method(sparsity=sparsity)


def test_a_traced_sparsity_gives_the_counts_of_the_number():
    params = {"kernel": jnp.arange(1.0, 101.0).reshape(10, 10)}
    count = jax.jit(
        lambda s: jnp.sum(jaxprune.magnitude(sparsity=s).masks(params, {})["kernel"])
    )
    values = [0.25, 0.29, 0.9]
    assert jax.vmap(count)(jnp.array(values)).tolist() == [75, 71, 10]
    assert [int(count(s)) for s in values] == [75, 71, 10]


@pytest.mark.parametrize("sparsity", ["0.9", None, True, 1j, [0.5]])
def test_a_sparsity_that_is_no_number_is_refused(sparsity):
    with pytest.raises(ValueError, match=r"`magnitude\(sparsity=.*\)`.*in \[0, 1\)"):
        jaxprune.magnitude(sparsity=sparsity)


@pytest.mark.parametrize("patterns", [{"a/*": 0.5}, {"*": 0.5, "a/*": 0.9}, {"c": 0.5}])
def test_patterns_that_do_not_fit_are_called_what_was_passed(patterns, params):
    pruner = jaxprune.magnitude(sparsity=patterns)
    for call in (pruner.apply, pruner.masks):
        with pytest.raises(ValueError, match=r"^`magnitude\(sparsity=\{"):
            call(params, {})


def test_a_distribution_by_its_name_is_refused_by_the_factory():
    with pytest.raises(
        TypeError, match=r"`magnitude\(distribution='erk'\).*masks\.erk"
    ):
        jaxprune.magnitude(sparsity=0.5, distribution="erk")
    with pytest.raises(TypeError, match=r"`random_erk\(distribution='erk'\)"):
        jaxprune.random_erk(jax.random.key(0), distribution="erk")


@pytest.mark.parametrize("method", METHODS)
def test_a_leaf_too_large_for_its_positions_is_refused_by_name(method):
    params = {"k": {"kernel": jax.ShapeDtypeStruct((2**16, 2**16), jnp.float32)}}
    masks = lambda p: method(sparsity=0.5).masks(p, {})
    with pytest.raises(ValueError, match=rf"`{method.__name__}\(.*'k/kernel' has the"):
        jax.eval_shape(masks, params)
