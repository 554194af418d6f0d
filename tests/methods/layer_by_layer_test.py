"""Pruning with statistics of what is pruned so far."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxprune
from jaxprune.calibration import calibrate
from jaxprune.methods import layer_by_layer

RNG = np.random.default_rng(0)


def _draw(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def _unrolled(params, x):
    for w in params["layers"]:
        x = jnp.tanh(x @ w)
    return x @ params["out"]


def _scanned(params, x):
    x, _ = jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, params["layers"])
    return x @ params["out"]


LAYERS = [_draw(6, 6) for _ in range(3)]
PARAMS = {"layers": LAYERS, "out": _draw(6, 3)}
BATCHES = [_draw(20, 6), _draw(20, 6)]


@pytest.mark.parametrize("method", ["wanda", "sparse_gpt"])
def test_each_layer_sees_the_pruned_ones_before_it(method):
    prune = getattr(jaxprune, method)
    gram = method == "sparse_gpt"
    final = layer_by_layer(prune, _unrolled, PARAMS, BATCHES, keep_ratio=0.5, gram=gram)
    params = PARAMS
    for name in ("layers/0", "layers/1", "layers/2", "out"):
        statistics = calibrate(_unrolled, params, BATCHES, gram=gram)
        pruner = prune(statistics, where=name)
        kept = pruner.masks(params, {}, keep_ratio=0.5)
        params = pruner.final_weights(params, {}, kept)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), final.params, params
    )
    nonzero = jax.tree.map(lambda w: w != 0, params)
    jax.tree.map(np.testing.assert_array_equal, final.masks, nonzero)
    assert final.report.keep_ratio == 0.5


def test_layers_of_a_scan_are_pruned_one_after_the_other():
    stacked = {"layers": jnp.stack(LAYERS), "out": PARAMS["out"]}
    run = functools.partial(layer_by_layer, jaxprune.sparse_gpt, gram=True)
    got = run(_scanned, stacked, BATCHES, keep_ratio=0.5)
    want = run(_unrolled, PARAMS, BATCHES, keep_ratio=0.5)
    np.testing.assert_array_equal(got.masks["layers"], jnp.stack(want.masks["layers"]))
    for i, layer in enumerate(want.params["layers"]):
        np.testing.assert_allclose(got.params["layers"][i], layer, atol=1e-4)
    np.testing.assert_allclose(got.params["out"], want.params["out"], atol=1e-4)


def test_patterns_selections_and_misuse():
    where = jaxprune.selection(exclude="out")
    method = functools.partial(jaxprune.wanda, pattern=(1, 2))
    final = layer_by_layer(method, _unrolled, PARAMS, BATCHES, where=where)
    assert final.report.keep_ratio == 0.5
    np.testing.assert_array_equal(final.params["out"], PARAMS["out"])
    with pytest.raises(ValueError, match="at least one batch"):
        layer_by_layer(jaxprune.wanda, _unrolled, PARAMS, [], keep_ratio=0.5)
    with pytest.raises(TypeError, match="must be a function"):
        layer_by_layer(3, _unrolled, PARAMS, BATCHES)
    network = lambda p, x: _unrolled({**p, "out": LAYERS[0]}, x)
    with pytest.raises(ValueError, match=r"leaf 'out'\. It has none"):
        layer_by_layer(jaxprune.wanda, network, PARAMS, BATCHES, keep_ratio=0.5)
