"""Pruning once, by a score or at random: SNIP, GraSP, ERK."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxprune
from jaxprune.masks import layer_counts
from jaxprune.methods import grasp_scores, snip_scores

ONCE = {
    "snip": lambda **kw: jaxprune.snip(_loss, **kw),
    "grasp": lambda **kw: jaxprune.grasp(_loss, **kw),
    "random_erk": lambda **kw: jaxprune.random_erk(jax.random.key(0), **kw),
}


def _loss(params):
    x = jnp.linspace(-1, 1, 10, dtype=params["a"].dtype).reshape(2, 5)
    hidden = jnp.tanh(x @ params["a"] + params["bias"][None])
    return jnp.mean((hidden @ params["b"] - 1) ** 2)


def _params(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
    return {"a": draw(5, 4), "b": draw(4, 3), "bias": draw(4)}


def _numeric_gradient(f, x, h=1e-5):
    grad = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[i] = h
        grad[i] = (f(x + step) - f(x - step)) / (2 * h)
    return grad


def _numpy_gradients(a, b, bias):
    """Derivatives of the loss in a and b, by hand."""
    x = np.linspace(-1, 1, 10).reshape(2, 5)
    hidden = np.tanh(x @ a + bias)
    error = 2 * (hidden @ b - 1) / 6
    return x.T @ ((error @ b.T) * (1 - hidden**2)), hidden.T @ error


def test_snip_is_the_derivative_in_a_mask_of_ones():
    with jax.enable_x64(True):
        params = _params(jnp.float64)
        scores = snip_scores(_loss, params)
        for name in ("a", "b"):
            masked = lambda c, name=name: float(
                _loss({**params, name: params[name] * c})
            )
            want = np.abs(_numeric_gradient(masked, np.ones(params[name].shape)))
            np.testing.assert_allclose(scores[name], want, atol=2e-8)
    assert set(scores) == {"a", "b"}


def test_grasp_is_weight_times_hessian_times_gradient():
    with jax.enable_x64(True):
        params = {k: np.asarray(v) for k, v in _params(jnp.float64).items()}
        scores = grasp_scores(_loss, params)
        ga, gb = _numpy_gradients(**params)
        np.testing.assert_allclose(jax.grad(_loss)(params)["a"], ga, atol=1e-12)
        # H g by central differences of the gradient by hand along g.
        h = 1e-5
        up = _numpy_gradients(
            params["a"] + h * ga, params["b"] + h * gb, params["bias"]
        )
        down = _numpy_gradients(
            params["a"] - h * ga, params["b"] - h * gb, params["bias"]
        )
        for name, plus, minus in zip(("a", "b"), up, down, strict=True):
            want = params[name] * (plus - minus) / (2 * h)
            np.testing.assert_allclose(scores[name], want, atol=1e-7)


def test_grasp_is_the_first_order_loss_of_half_the_squared_gradient():
    with jax.enable_x64(True):
        params = {k: np.asarray(v) for k, v in _params(jnp.float64).items()}
        scores = grasp_scores(_loss, params)

        def flow(a):
            return sum(np.sum(g**2) for g in _numpy_gradients(**{**params, "a": a})) / 2

        slope = _numeric_gradient(flow, params["a"])
        np.testing.assert_allclose(scores["a"], params["a"] * slope, atol=1e-7)


@pytest.mark.parametrize("scores", [snip_scores, grasp_scores])
def test_masks_keep_the_highest_scores_of_all(scores):
    params = _params()
    method = jaxprune.snip if scores is snip_scores else jaxprune.grasp
    masks = method(_loss, min_keep_ratio=0).masks(params, {}, keep_ratio=0.25)
    named = scores(_loss, params)
    flat = np.concatenate([np.ravel(named[n]) for n in ("a", "b")])
    kept = np.concatenate([np.ravel(masks[n]) for n in ("a", "b")])
    assert kept.sum() == 8
    assert flat[kept].min() > flat[~kept].max()
    assert bool(masks["bias"])


@pytest.mark.parametrize("keep_ratio", [1.0, 0.5, 0.11, 0.02])
def test_erk_counts_follow_the_shapes_and_add_up(keep_ratio):
    shapes = {"conv": (3, 3, 16, 32), "dense": (200, 50), "out": (50, 10)}
    counts = layer_counts(shapes, keep_ratio=keep_ratio, min_keep_ratio=0.001)
    sizes = {name: np.prod(shape) for name, shape in shapes.items()}
    total = sum(sizes.values())
    assert sum(counts.values()) == jaxprune.masks.keep_count(keep_ratio, total)
    assert all(counts[name] <= sizes[name] for name in shapes)
    # Layers that are not whole have densities in proportion to sum / product.
    factors = [counts[n] / sum(shapes[n]) for n in shapes if counts[n] < sizes[n]]
    if factors:
        assert max(factors) - min(factors) <= 1 / min(sum(s) for s in shapes.values())
        whole = [sizes[n] / sum(shapes[n]) for n in shapes if counts[n] == sizes[n]]
        assert all(f <= max(factors) + 0.02 for f in whole)


def test_erk_floors_are_met_and_impossible_ones_refused():
    shapes = {"wide": (1000, 1000), "small": (3, 3)}
    counts = layer_counts(shapes, keep_ratio=0.001, min_keep_ratio=0.0009)
    assert counts["wide"] >= 900
    assert sum(counts.values()) == 1000
    with pytest.raises(ValueError, match="lower `min_keep_ratio`"):
        layer_counts(shapes, keep_ratio=0.001, min_keep_ratio=0.01)


def test_random_masks_depend_on_the_key_alone():
    params, other = _params(), jax.tree.map(lambda w: 2 * w + 1, _params())
    masks = [
        jaxprune.random_erk(jax.random.key(seed)).masks(p, {}, keep_ratio=0.3)
        for seed, p in ((0, params), (0, other), (1, params))
    ]
    np.testing.assert_array_equal(masks[0]["a"], masks[1]["a"])
    assert np.any(masks[0]["a"] != masks[2]["a"])


@pytest.mark.parametrize("name", ONCE)
def test_the_network_is_dense_until_masks_are_taken(name):
    params, pruner = _params(), ONCE[name]()
    seen, ratios = pruner.apply(params, pruner.init(params), step=3)
    assert seen is params
    assert ratios == {}


@pytest.mark.parametrize("name", ONCE)
def test_a_size_must_be_asked_for(name):
    with pytest.raises(ValueError, match=rf"`{name}\(...\).*keep_ratio=None"):
        ONCE[name]().masks(_params(), {})
    with pytest.raises(ValueError, match="min_keep_ratio=-1"):
        ONCE[name](min_keep_ratio=-1)
