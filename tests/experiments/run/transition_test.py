"""The band of the soft masks of LTP."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxprune
from experiments.run.transition import make_share


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_the_share_is_that_of_weights_within_four_temperatures(temperature):
    pruner = jaxprune.ltp_as_published(temperature=temperature, init_threshold=0.5)
    rng = np.random.default_rng(0)
    params = {
        "a": {"kernel": jnp.asarray(rng.normal(size=(40, 30)), jnp.float32)},
        "b": {"kernel": jnp.zeros((5, 4)), "bias": jnp.ones(4)},
    }
    w = np.asarray(params["a"]["kernel"], np.float64)
    width = temperature * np.var(np.abs(w))
    inside = np.sum(np.abs(w**2 - 0.5) < 4 * width)
    assert 20 < inside < w.size
    share = make_share(pruner, first_step=3)
    found = share(params, pruner.init(params), jnp.int32(5))
    # A weight that is zero is in no band; the bias is not pruned.
    np.testing.assert_allclose(found, inside / (w.size + 20), atol=1.5 / w.size)


def test_nothing_is_between_where_all_is_kept():
    pruner = jaxprune.identity()
    share = make_share(pruner)({"kernel": jnp.ones((3, 2))}, {}, jnp.int32(0))
    assert share == 0
    assert jax.device_get(share).dtype == np.float32
