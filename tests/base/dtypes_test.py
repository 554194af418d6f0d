"""Floats of eight bits and fewer: ranked, shrunk and frozen with others, or refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprune
from jaxprune import prox
from jaxprune.base import _dtypes

SMALL = ["float8_e4m3fn", "float8_e4m3b11fnuz", "float4_e2m1fn"]


def _params(dtype):
    values = jnp.array([[0.5, 1.0, 2.0, 3.0], [4.0, 6.0, 0.5, 1.0]])
    return {"a": {"kernel": values.astype(dtype)}, "b": {"kernel": values + 0.1}}


def _kept(tree):
    return [
        int(jnp.sum(leaf.astype(jnp.float32) != 0)) for leaf in jax.tree.leaves(tree)
    ]


@pytest.mark.parametrize("dtype", SMALL)
def test_small_floats_are_ranked_with_wider_ones(dtype):
    params = _params(dtype)
    masks = jaxprune.global_magnitude(sparsity=0.5).masks(params, {})
    want = jaxprune.global_magnitude(sparsity=0.5).masks(
        jax.tree.map(lambda x: x.astype(jnp.float32), params), {}
    )
    jax.tree.map(np.testing.assert_array_equal, masks, want)
    final = jaxprune.apply_masks(params, masks)
    assert final["a"]["kernel"].dtype == dtype
    assert sum(_kept(final)) == 8


@pytest.mark.parametrize("dtype", SMALL[:2])
@pytest.mark.parametrize(
    "make",
    [
        lambda: jaxprune.lats(optax.sgd(0.01), sparsity=0.5, steps=3),
        lambda: jaxprune.gradual_magnitude(optax.sgd(0.01), sparsity=0.5, steps=3),
    ],
)
@pytest.mark.filterwarnings("ignore:.*was given master weights:UserWarning")
def test_small_floats_are_trained_to_a_size(make, dtype):
    params, tx = _params(dtype), make()
    state, update = tx.init(params), jax.jit(tx.update)
    for _ in range(4):
        updates, state = update(params, state, params)
        params = optax.apply_updates(params, updates)
    final = jaxprune.finalize(params, state)
    assert final.params["a"]["kernel"].dtype == dtype
    assert sum(_kept(final.params)) == 8


def test_soft_thresholds_of_small_floats_are_those_of_float32():
    x = _params("float8_e5m2")["a"]
    got = prox.soft_threshold(x, 0.6)["kernel"]
    want = prox.soft_threshold(x["kernel"].astype(jnp.float32), 0.6)
    np.testing.assert_array_equal(got, want.astype(got.dtype))


def test_a_type_without_zero_is_left_out_or_refused_by_name():
    params = _params("float8_e8m0fnu")
    assert jaxprune.selected(params).names == ("b/kernel",)
    assert "has no zero" in str(jaxprune.selected(params))
    with pytest.raises(TypeError, match=r"with a zero.*'a/kernel' has dtype float8"):
        jaxprune.magnitude(sparsity=0.5, where="*").masks(params, {})


def test_the_widest_type():
    assert _dtypes.widest(jnp.bfloat16) == jnp.bfloat16
    assert _dtypes.widest(jnp.bfloat16, jnp.float16) == jnp.float32
    assert _dtypes.widest(jnp.float8_e5m2, jnp.float8_e4m3fn) == jnp.float32
    assert _dtypes.widest(jnp.float8_e5m2, jnp.bfloat16) == jnp.float32
    assert _dtypes.at_least_float32(jnp.float16) == jnp.float32
    assert _dtypes.widest(jnp.int8, jnp.int8) == jnp.int8
