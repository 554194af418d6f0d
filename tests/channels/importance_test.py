"""Importances by derivatives, against derivatives taken by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxprune
from jaxprune.channels import squared_taylor, taylor


def test_squared_taylor_is_the_mean_square_over_batches():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(4, 6)), rng.normal(size=(6, 2))
    batches = [(rng.normal(size=(5, 4)), rng.normal(size=(5, 2))) for _ in range(3)]
    params = {"a": jnp.asarray(a, jnp.float32), "b": jnp.asarray(b, jnp.float32)}
    apply_fn = lambda p, x: jnp.tanh(x @ p["a"]) @ p["b"]
    loss = lambda p, x, y: jnp.sum((apply_fn(p, x) - y) ** 2) / 2
    graph = jaxprune.trace_channels(apply_fn, params, batches[0][0])
    data = [tuple(jnp.asarray(x, jnp.float32) for x in batch) for batch in batches]
    importance = squared_taylor(graph, loss, data)
    slopes = []
    for x, y in batches:
        hidden = np.tanh(x @ a)
        slopes.append(np.einsum("bo,bh,ho->h", hidden @ b - y, hidden, b))
    want = np.mean(np.square(slopes), axis=0)
    for got in (importance(params), jax.jit(importance)(params)):
        np.testing.assert_allclose(got["a:1"], want, rtol=1e-4)
    # Of one batch it is the square of the other.
    one = squared_taylor(graph, loss, data[:1])(params)["a:1"]
    other = taylor(graph, lambda p: loss(p, *data[0]))(params)["a:1"]
    np.testing.assert_allclose(one, other**2, rtol=1e-5)
    with pytest.raises(ValueError, match="at least one batch"):
        squared_taylor(graph, loss, [])
