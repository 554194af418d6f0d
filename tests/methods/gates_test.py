"""The soft gate of LTP against the equations, finite differences, and memory."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized

from jaxprune.methods import soft_prune
from tests.support import reference

CASES = [(0.0, 0.1), (0.3, 0.05), (1.0, 1e-3), (2.0, 1.0)]


@pytest.fixture
def arrays(rng):
    w = rng.normal(size=(3, 4)).astype(np.float32)
    return w, rng.normal(size=(3, 4)).astype(np.float32), 0.7


class SoftPruneVariantsTest(chex.TestCase):
    @chex.variants(
        with_jit=True,
        without_jit=True,
        with_device=True,
        without_device=True,
        with_pmap=True,
    )
    @parameterized.parameters(*CASES)
    def test_equals_the_equations(self, tau, temperature):
        w = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
        prune = self.variant(soft_prune)
        v, count = prune(w, jnp.float32(tau), jnp.float32(temperature))
        want_v, want_count = reference.ltp_soft_prune(w, tau, temperature)
        chex.assert_trees_all_close(v, want_v.astype(np.float32), atol=2e-6)
        chex.assert_trees_all_close(count, np.float32(want_count), rtol=2e-6)


@pytest.mark.parametrize(("tau", "temperature"), CASES)
def test_derivatives_equal_the_equations(arrays, tau, temperature):
    w, v_bar, count_bar = arrays
    _, vjp = jax.vjp(soft_prune, w, jnp.float32(tau), jnp.float32(temperature))
    w_bar, tau_bar, temperature_bar = vjp((jnp.asarray(v_bar), jnp.float32(count_bar)))
    want_w, want_tau = reference.ltp_gradients(w, tau, temperature, v_bar, count_bar)
    np.testing.assert_allclose(w_bar, want_w, atol=2e-5)
    np.testing.assert_allclose(tau_bar, want_tau, rtol=2e-4, atol=1e-4)
    assert temperature_bar == 0


@pytest.mark.parametrize(("tau", "temperature"), [(0.3, 0.05), (1.0, 0.2)])
def test_threshold_derivative_equals_finite_differences(arrays, tau, temperature):
    w, v_bar, count_bar = arrays

    def loss(tau):
        v, count = reference.ltp_soft_prune(w, tau, temperature)
        return float((v * v_bar).sum() + count * count_bar)

    def ours(tau):
        v, count = soft_prune(w, tau, jnp.float32(temperature))
        return (v * v_bar).sum() + count * count_bar

    h = 1e-6
    want = (loss(tau + h) - loss(tau - h)) / (2 * h)
    np.testing.assert_allclose(jax.grad(ours)(jnp.float32(tau)), want, rtol=1e-4)


def test_the_count_does_not_move_the_weights(arrays):
    w, _, _ = arrays
    count = lambda w: soft_prune(w, jnp.float32(0.5), jnp.float32(0.1))[1]
    assert not jax.grad(count)(jnp.asarray(w)).any()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_gate_is_computed_in_float32_and_dtypes_are_kept(dtype):
    # In bfloat16 these squares, 1e-4 apart by 2 %, would be equal.
    w = jnp.array([0.0100, 0.0101, -0.0102], dtype)
    tau, temperature = jnp.float32(1.02e-4), jnp.float32(1e-7)
    v, count = soft_prune(w, tau, temperature)
    want_v, want_count = reference.ltp_soft_prune(
        np.asarray(w, np.float64), float(tau), float(temperature)
    )
    assert v.dtype == dtype
    assert count.dtype == jnp.float32
    np.testing.assert_allclose(count, want_count, rtol=1e-3)
    np.testing.assert_allclose(v.astype(jnp.float32), want_v, rtol=1e-2, atol=1e-8)
    grads = jax.grad(lambda w, t: soft_prune(w, t, temperature)[0].sum(), (0, 1))(
        w, tau
    )
    assert grads[0].dtype == dtype
    assert grads[1].dtype == jnp.float32


def test_a_vector_of_thresholds_equals_layer_by_layer(rng):
    w = rng.normal(size=(3, 4, 5)).astype(np.float32)
    tau = jnp.array([0.1, 0.5, 2.0]).reshape(3, 1, 1)
    temperature = jnp.array([0.1, 0.2, 0.3]).reshape(3, 1, 1)
    v_bar = rng.normal(size=w.shape).astype(np.float32)

    def loss(w, tau, temperature):
        v, count = soft_prune(w, tau, temperature)
        return (v * v_bar).sum() + count.sum(), (v, count)

    grads, (v, count) = jax.grad(loss, (0, 1), has_aux=True)(w, tau, temperature)
    assert count.shape == (3, 1, 1)
    for i in range(3):
        one = lambda w, t, i=i: (
            (soft_prune(w, t, temperature[i, 0, 0])[0] * v_bar[i]).sum()
            + soft_prune(w, t, temperature[i, 0, 0])[1]
        )
        w_bar, tau_bar = jax.grad(one, (0, 1))(w[i], tau[i, 0, 0])
        np.testing.assert_allclose(grads[0][i], w_bar, rtol=1e-6)
        np.testing.assert_allclose(grads[1][i, 0, 0], tau_bar, rtol=1e-5)
        np.testing.assert_allclose(
            v[i], soft_prune(w[i], tau[i, 0, 0], temperature[i, 0, 0])[0], rtol=1e-6
        )


@pytest.mark.parametrize("w", [0.0, 1e-30, 1e30, -1e30])
def test_extreme_weights_have_finite_values_and_derivatives(w):
    loss = lambda w, t: sum(x.sum() for x in soft_prune(w, t, jnp.float32(1e-3)))
    w, tau = jnp.array([w, 1.0]), jnp.float32(1.0)
    chex.assert_tree_all_finite((loss(w, tau), jax.grad(loss, (0, 1))(w, tau)))


def test_the_gate_is_not_stored_for_the_backward_pass():
    w = jnp.ones((64, 64))
    tau, temperature = jnp.float32(0.5), jnp.float32(0.1)
    _, vjp = jax.vjp(soft_prune, w, tau, temperature)
    residuals = sorted(jnp.shape(r) for r in jax.tree.leaves(vjp))
    assert residuals == [(), (), (), (64, 64)]
