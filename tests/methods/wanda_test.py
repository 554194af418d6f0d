"""Wanda: weights times inputs, compared within outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxprune
from jaxprune import masks
from jaxprune.calibration import calibrate
from jaxprune.methods import wanda_scores

RNG = np.random.default_rng(0)


def _draw(*shape, dtype=jnp.float32):
    return jnp.asarray(RNG.normal(size=shape), dtype)


def _apply(params, x):
    return jnp.tanh(x @ params["a"]) @ params["b"].T


PARAMS = {"a": _draw(10, 6), "b": _draw(7, 6)}
X = _draw(40, 10) * jnp.linspace(0.1, 3, 10)[None]
STATISTICS = calibrate(_apply, PARAMS, [X])


def _scores():
    """The scores in float64, inputs by outputs."""
    params = {name: np.asarray(leaf, np.float64) for name, leaf in PARAMS.items()}
    x = np.asarray(X, np.float64)
    norm = lambda x: np.sqrt((x**2).sum(axis=0))[:, None]
    return {
        "a": abs(params["a"]) * norm(x),
        "b": abs(params["b"].T) * norm(np.tanh(x @ params["a"])),
    }


def test_scores_are_weights_times_norms_of_inputs():
    got, want = wanda_scores(STATISTICS, PARAMS), _scores()
    np.testing.assert_allclose(got["a"], want["a"], rtol=1e-5)
    np.testing.assert_allclose(got["b"].T, want["b"], rtol=1e-5)


@pytest.mark.parametrize("keep_ratio", [0.5, 0.3, 0.07, 1.0])
def test_every_output_keeps_its_highest_and_the_count_is_exact(keep_ratio):
    pruner = jaxprune.wanda(STATISTICS)
    kept = pruner.masks(PARAMS, {}, keep_ratio=keep_ratio)
    counts = masks.layer_counts(
        {name: leaf.shape for name, leaf in PARAMS.items()},
        keep_ratio=keep_ratio,
        distribution=masks.uniform,
        min_keep_ratio=1e-3,
    )
    for name, scores in _scores().items():
        mask = np.asarray(kept[name].T if name == "b" else kept[name])
        assert mask.sum() == counts[name]
        columns = mask.sum(axis=0)
        assert columns.max() - columns.min() <= 1
        for score, flags in zip(scores.T, mask.T, strict=True):
            lost = score[~flags].max(initial=0)
            assert score[flags].min(initial=np.inf) >= lost


def test_layers_are_ranked_whole_if_wanted():
    pruner = jaxprune.wanda(STATISTICS, per_output=False)
    kept = pruner.masks(PARAMS, {}, keep_ratio=0.5)
    for name, scores in _scores().items():
        mask = np.asarray(kept[name].T if name == "b" else kept[name])
        assert scores[mask].min() >= scores[~mask].max()


def test_patterns_lie_along_the_inputs():
    pruner = jaxprune.wanda(STATISTICS, pattern=(1, 2))
    assert pruner.has_own_size
    kept = pruner.masks(PARAMS, {})
    for name, scores in _scores().items():
        mask = np.asarray(kept[name].T if name == "b" else kept[name])
        want = masks.n_m_masks(jnp.asarray(scores, jnp.float32), 1, 2)
        np.testing.assert_array_equal(mask, want)
    np.testing.assert_array_equal(
        pruner.masks(PARAMS, {}, keep_ratio=0.5)["a"], kept["a"]
    )
    with pytest.raises(ValueError, match="keeps 1 of 2"):
        pruner.masks(PARAMS, {}, keep_ratio=0.25)
    with pytest.raises(ValueError, match="must divide the inputs of leaf 'b'"):
        jaxprune.wanda(STATISTICS, pattern=(2, 5)).masks(PARAMS, {})


def test_convolutions_heads_and_stacked_layers_are_compared_within_outputs():
    x = _draw(3, 4, 4, 4)

    def network(p, x):
        numbers = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(
            x,
            p["conv"],
            (1, 1),
            "SAME",
            dimension_numbers=numbers,
            feature_group_count=2,
        )
        x = jnp.einsum("bhwc,cnd->bhwnd", jnp.tanh(x), p["heads"])
        x = jnp.einsum("bhwnd,ndc->bhwc", x, p["out"])
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, p["stack"])[0]

    shapes = {"conv": (3, 3, 2, 8), "heads": (8, 2, 3), "out": (2, 3, 8)}
    params = {name: _draw(*shape) for name, shape in shapes.items()}
    params["stack"] = _draw(3, 8, 8)
    statistics = calibrate(network, params, [x])
    where = jaxprune.operands(network, params, x)
    kept = jaxprune.wanda(statistics, where=where).masks(params, {}, keep_ratio=0.5)
    named, sizes = jaxprune.tree.named_leaves(kept), jaxprune.tree.sizes(params, where)
    assert set(sizes) == set(statistics.inputs)
    for name, size in sizes.items():
        assert int(named[name].sum()) == size // 2
        (use,) = statistics.uses[name]
        each = np.asarray(use.matrices(named[name].astype(jnp.float32)).sum(axis=1))
        assert each.max() - each.min() <= 1


def test_bfloat16_masks_that_hold_and_jit():
    params = {name: leaf.astype(jnp.bfloat16) for name, leaf in PARAMS.items()}
    held = {"a": X[:10, :6] > -0.5, "b": True}
    where = jaxprune.selection(masks=jax.tree.map(jnp.asarray, held))
    pruner = jaxprune.wanda(STATISTICS, where=where)
    kept = jax.jit(lambda p: pruner.masks(p, {}, keep_ratio=0.4))(params)
    assert not np.any(kept["a"] & ~held["a"])
    assert int(kept["a"].sum() + kept["b"].sum()) == 40
    pruned = pruner.final_weights(params, {}, kept)
    assert pruned["a"].dtype == jnp.bfloat16


def test_leaves_without_inputs_are_named_with_the_reason():
    network = lambda p, x: x @ p["w"] * p["v"]
    params = {"v": jnp.ones((2, 2)), "w": jnp.ones((4, 2))}
    statistics = calibrate(network, params, [jnp.ones((2, 4))])
    with pytest.raises(ValueError, match=r"leaf 'v'\. It has none: changed by"):
        jaxprune.wanda(statistics).masks(params, {}, keep_ratio=0.5)
    with pytest.raises(TypeError, match="must be `Statistics`"):
        jaxprune.wanda(params)
