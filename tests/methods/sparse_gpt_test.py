"""SparseGPT against optimal brain surgery step by step, and the least-squares refit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxprune
from jaxprune import masks
from jaxprune.calibration import calibrate

RNG = np.random.default_rng(0)
# Inputs that depend on each other, so that some can make up for others.
X = RNG.normal(size=(200, 12)) @ RNG.normal(size=(12, 12)) / 4 + RNG.normal(size=12)
W = RNG.normal(size=(12, 5))
DAMPING = 0.01


def _apply(params, x):
    return x @ params["w"]


def _reference(x, w, block, decide, damping=DAMPING):
    """Algorithm 1 with a solution of least squares in the place of each update."""
    h = x.T @ x
    h = h + damping * np.mean(np.diag(h)) * np.eye(len(h))
    w, kept = w.copy(), np.ones(w.shape, bool)
    for i in range(len(w)):
        # What the inputs that are left lose without one of them.
        loss = [1 / np.linalg.inv(h[j:, j:])[0, 0] for j in range(len(w))]
        decide(i, w**2 * np.asarray(loss)[:, None], kept, block)
        gone, rest = np.where(kept[i], 0, w[i]), slice(i + 1, None)
        w[i] = np.where(kept[i], w[i], 0)
        if i + 1 < len(w):
            w[rest] += np.outer(np.linalg.solve(h[rest, rest], h[rest, i]), gone)
    return w, kept


def _by_count(ratio):
    def decide(i, scores, kept, block):
        if i % block == 0:
            part = scores[i : i + block].reshape(-1)
            order = np.argsort(-part, kind="stable")[: round(ratio * part.size)]
            flags = np.zeros(part.size, bool)
            flags[order] = True
            kept[i : i + block] = flags.reshape(-1, scores.shape[1])

    return decide


def _by_pattern(n, m):
    def decide(i, scores, kept, block):
        del block
        if i % m == 0:
            part = scores[i : i + m]
            ranks = np.argsort(np.argsort(-part, axis=0, kind="stable"), axis=0)
            kept[i : i + m] = ranks < n

    return decide


def _final(pruner, params, **options):
    kept = pruner.masks(params, {}, **options)
    return pruner.final_weights(params, {}, kept), kept


@pytest.fixture
def double():
    with jax.enable_x64(True):
        params = {"w": jnp.asarray(W)}
        yield params, calibrate(_apply, params, [X[:150], X[150:]], gram=True)


@pytest.mark.parametrize("block", [4, 12, 128])
@pytest.mark.parametrize("ratio", [0.5, 0.25])
def test_masks_and_weights_are_those_of_the_algorithm(double, block, ratio):
    params, statistics = double
    pruner = jaxprune.sparse_gpt(statistics, block_size=block, damping=DAMPING)
    final, kept = _final(pruner, params, keep_ratio=ratio)
    want, flags = _reference(X, W, min(block, 12), _by_count(ratio))
    np.testing.assert_array_equal(kept["w"], flags)
    np.testing.assert_allclose(final["w"], want, atol=1e-9)
    np.testing.assert_array_equal(final["w"] != 0, flags)


@pytest.mark.parametrize("pattern", [(2, 4), (1, 3)])
@pytest.mark.parametrize("block", [4, 128])
def test_patterns_are_those_of_the_algorithm(double, pattern, block):
    params, statistics = double
    pruner = jaxprune.sparse_gpt(statistics, pattern=pattern, block_size=block)
    final, kept = _final(pruner, params)
    want, flags = _reference(X, W, block, _by_pattern(*pattern))
    np.testing.assert_array_equal(kept["w"], flags)
    np.testing.assert_allclose(final["w"], want, atol=1e-9)


def _refit(x, w, kept):
    """The best weights under given masks."""
    h, best = x.T @ x, np.zeros(w.shape)
    for o in range(w.shape[1]):
        rows = np.flatnonzero(kept[:, o])
        best[rows, o] = np.linalg.solve(h[np.ix_(rows, rows)], h[rows] @ w[:, o])
    return best


def test_one_column_is_refitted_exactly():
    """The first input goes, all others can make up for it: least squares."""
    params = {"w": jnp.asarray(W, jnp.float32)}
    statistics = calibrate(_apply, params, [X.astype(np.float32)], gram=True)
    kept = np.ones(W.shape, bool)
    kept[0] = False
    pruner = jaxprune.sparse_gpt(statistics, damping=1e-7)
    final = pruner.final_weights(params, {}, {"w": jnp.asarray(kept)})
    np.testing.assert_allclose(final["w"], _refit(X, W, kept), rtol=2e-3, atol=1e-3)


def test_the_error_is_below_magnitude_and_wanda_and_not_far_above_the_refit():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 48)) @ rng.normal(size=(48, 48)) * np.linspace(0.2, 2, 48)
    w = rng.normal(size=(48, 16))
    error = lambda found: np.sum((x @ np.asarray(found, np.float64) - x @ w) ** 2)
    params = {"w": jnp.asarray(w, jnp.float32)}
    statistics = calibrate(_apply, params, [x.astype(np.float32)], gram=True)
    errors = []
    for pruner in (
        jaxprune.sparse_gpt(statistics),
        jaxprune.wanda(statistics),
        jaxprune.magnitude(sparsity=0.5),
    ):
        final, kept = _final(pruner, params, keep_ratio=0.5)
        errors.append(error(final["w"]))
        if len(errors) == 1:
            best = error(_refit(x, w, np.asarray(kept["w"])))
            assert best < errors[0] < 2 * best
    assert errors == sorted(errors)


def test_groups_stacks_parts_and_dead_inputs_are_matrices_of_their_own():
    """As one matrix after the other, each with its own rows."""
    x = jnp.asarray(RNG.normal(size=(30, 6)), jnp.float32).at[:, 2].set(0)

    def network(params, x):
        y, z = jnp.split(params["cut"], 2, axis=1)
        first = x @ y + jnp.tanh(x) @ z
        h, _ = jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, params["stack"])
        heads = jnp.einsum("bi,hio->bho", x, params["heads"])
        return first, h, heads

    draw = lambda *shape: jnp.asarray(RNG.normal(size=shape), jnp.float32)
    params = {"cut": draw(6, 12), "stack": draw(2, 6, 6), "heads": draw(3, 6, 6)}
    statistics = calibrate(network, params, [x], gram=True)
    final, kept = _final(jaxprune.sparse_gpt(statistics), params, keep_ratio=0.5)
    sizes = {name: int(mask.sum()) for name, mask in kept.items()}
    assert sizes == {"cut": 36, "heads": 54, "stack": 36}
    hidden = jnp.tanh(x @ params["stack"][0])
    for name, rows, part in (
        ("cut", jnp.tanh(x), lambda w: w[:, 6:]),
        ("stack", hidden, lambda w: w[1]),
        ("heads", x, lambda w: w[2]),
    ):
        one = {"w": part(params[name])}
        known = calibrate(_apply, one, [rows], gram=True)
        mine, flags = _final(jaxprune.sparse_gpt(known), one, keep_ratio=0.5)
        np.testing.assert_array_equal(part(kept[name]), flags["w"])
        np.testing.assert_allclose(part(final[name]), mine["w"], atol=1e-4)
    assert all(np.all(np.isfinite(leaf)) for leaf in final.values())


def test_masks_of_another_method_bfloat16_and_masks_that_hold():
    params = {"w": jnp.asarray(W, jnp.bfloat16)}
    statistics = calibrate(_apply, params, [jnp.asarray(X, jnp.bfloat16)], gram=True)
    held = jnp.asarray(RNG.random(W.shape) < 0.8)
    where = jaxprune.selection(masks={"w": held})
    pruner = jaxprune.sparse_gpt(statistics, where=where)
    final, kept = _final(pruner, params, keep_ratio=0.5)
    assert int(kept["w"].sum()) == 30
    assert not np.any(kept["w"] & ~held)
    assert final["w"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(final["w"] != 0, kept["w"])
    by_size = jaxprune.magnitude(sparsity=0.3).masks(params, {})
    weights = pruner.final_weights(params, {}, {"w": by_size["w"] & held})["w"]
    np.testing.assert_array_equal(weights != 0, by_size["w"] & held)


def test_what_cannot_be_updated_is_refused():
    params = {"w": jnp.asarray(W, jnp.float32)}
    x = X.astype(np.float32)
    plain = calibrate(_apply, params, [x])
    with pytest.raises(ValueError, match="must have Gram matrices"):
        jaxprune.sparse_gpt(plain).masks(params, {}, keep_ratio=0.5)
    full = calibrate(_apply, params, [x], gram=True)
    both = {"v": params["w"], "w": params["w"] + 1}
    network = lambda p, x: x @ p["v"] + x @ p["w"]
    known = calibrate(network, both, [x], gram=True)
    pruner = jaxprune.sparse_gpt(known, distribution=masks.global_)
    with pytest.raises(ValueError, match="must say how much each layer keeps"):
        pruner.masks(both, {}, keep_ratio=0.5)
    with pytest.raises(ValueError, match="must be a number that is known"):
        jax.jit(lambda k: jaxprune.sparse_gpt(full).masks(params, {}, keep_ratio=k))(
            0.5
        )
    masked = lambda p, x: x @ (p["w"] * (jnp.abs(p["w"]) > 0.1))
    changed = calibrate(masked, params, [x], gram=True)
    with pytest.raises(ValueError, match="must be multiplied as they are"):
        jaxprune.sparse_gpt(changed).masks(params, {}, keep_ratio=0.5)
    twice = lambda p, x: (x @ p["w"]) @ p["w"].T
    tied = calibrate(twice, params, [x], gram=True)
    with pytest.raises(ValueError, match="multiplied in 2 layouts"):
        jaxprune.sparse_gpt(tied).masks(params, {}, keep_ratio=0.5)
    with pytest.raises(ValueError, match="must be positive"):
        jaxprune.sparse_gpt(full, damping=0.0)
