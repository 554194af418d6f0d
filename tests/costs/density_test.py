"""The cost of single weights."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxprune


def test_density_equals_the_count():
    params = {"a": {"kernel": jnp.ones((7, 3))}, "b": {"kernel": jnp.ones((2, 5))}}
    keep = {"a/kernel": 0.25, "b/kernel": jnp.array([0.5, 0.1])}
    want = (21 * 0.25 + 10 * 0.3) / 31
    np.testing.assert_allclose(jaxprune.density(params)(keep), want, rtol=1e-6)


def test_sites_without_a_keep_ratio_are_whole():
    assert float(jaxprune.density({"k": jnp.ones((2, 2))})({})) == 1.0


def test_a_cost_refuses_sites_that_it_does_not_know():
    cost = jaxprune.density({"kernel": jnp.ones((2, 2))})
    with pytest.raises(
        ValueError, match=r"'kernal' must be a site of it.*\['kernel'\]"
    ):
        cost({"kernal": jnp.float32(1)})
