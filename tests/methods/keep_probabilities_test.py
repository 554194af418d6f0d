"""Keep probabilities: the authors' numbers, the equation, its derivative, its ends."""

import functools
import json
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from jaxprune.channels._counts import most_important
from jaxprune.methods import _keep_probabilities as kp
from tests.support.rows import rows

CASES = json.loads((Path(__file__).parent.parent / "golden" / "dsa.json").read_text())


def _slopes(case):
    """s (1 - s) of every channel, from the authors' beta_1, in float64."""
    b = np.array(case["importance"])
    x = np.abs(case["beta2"] * (np.log(b + 1e-8) - np.log(case["beta1"])))
    return np.exp(-x) / (1 + np.exp(-x)) ** 2


def _padded(rows, dtype):
    """All cases at once, as groups of different sizes are."""
    widest = max(map(len, rows))
    return np.stack([np.pad(row, (0, widest - len(row))) for row in rows]).astype(dtype)


@functools.cache
def _solved(x64):
    """Probabilities, log beta_1 and derivatives of all cases."""
    dtype = np.float64 if x64 else np.float32
    columns = {key: [case[key] for case in CASES] for key in CASES[0]}
    with jax.enable_x64(x64):

        @jax.jit
        def solve(alpha, importance, beta2, valid, cotangent):
            value = lambda a: kp.keep_probabilities(a, importance, beta2, valid=valid)
            (p, log_beta1), pull = jax.vjp(value, alpha)
            return p, log_beta1, pull((cotangent, jnp.zeros_like(log_beta1)))[0]

        found = solve(
            np.array(columns["keep_ratio"], dtype),
            _padded(columns["importance"], dtype),
            np.array(columns["beta2"], dtype),
            _padded([np.ones(len(row)) for row in columns["importance"]], bool),
            _padded(columns["cotangent"], dtype),
        )
        assert found[0].dtype == dtype
        return jax.tree.map(np.asarray, found)


@pytest.mark.parametrize("number", range(len(CASES)))
@pytest.mark.parametrize(
    ("x64", "close", "slope_close"), [(False, 1e-5, 1e-4), (True, 1e-8, 1e-9)]
)
def test_the_authors_numbers(number, x64, close, slope_close):
    case = CASES[number]
    p, log_beta1, slope = (x[number] for x in _solved(x64))
    assert not p[len(case["probs"]) :].any()
    p = p[: len(case["probs"])]
    np.testing.assert_allclose(p, case["probs"], atol=close)
    np.testing.assert_allclose(np.exp(log_beta1), case["beta1"], rtol=close)
    # The authors' derivative ignores the clip at 1: channels there share it too.
    slopes, free = _slopes(case), np.asarray(p) < 1
    share = slopes[free].sum() / slopes.sum()
    clipped = np.array(case["cotangent"])[~free] @ slopes[~free] / slopes.sum()
    theirs = float(slope) * share + len(slopes) * clipped
    np.testing.assert_allclose(theirs, case["grad_keep_ratio"], rtol=slope_close)


def _draw(rng, kind, shape):
    """Importances that are hard to solve for."""
    noise = rng.normal(size=shape)
    return {
        "spread": np.exp(3 * noise),
        "two heaps": np.where(rng.random(shape) < 0.5, 1e-4, 1) * np.exp(noise / 100),
        "equal": np.full(shape, rng.random() + 0.01),
        "zeros": np.where(rng.random(shape) < 0.3, 0, np.abs(noise)),
    }[kind]


@pytest.mark.usefixtures("compiles_as_users_do")
@pytest.mark.parametrize("kind", ["spread", "two heaps", "equal", "zeros"])
@pytest.mark.parametrize("sharpness", rows([0.01, 1.0, 30.0, 1000.0], [30.0]))
def test_the_mean_is_the_keep_ratio_to_the_last_digits(kind, sharpness):
    rng = np.random.default_rng(0)
    solve = jax.jit(functools.partial(kp.keep_probabilities, sharpness=sharpness))
    for channels in (2, 7, 64):
        importance = jnp.asarray(_draw(rng, kind, (50, channels)), jnp.float32)
        alpha = jnp.asarray(rng.uniform(0.011, 1, 50), jnp.float32)
        p, _ = solve(alpha, importance)
        np.testing.assert_allclose(
            np.asarray(p, np.float64).mean(1),
            alpha,
            atol=5e-7 if channels > 2 else 1e-6,
        )


def test_it_agrees_with_a_root_finder_on_the_host():
    rng = np.random.default_rng(1)
    b = rng.gamma(2.0, size=40)

    def mean(t):
        return np.mean(np.minimum(1 / (1 + np.exp(-3 * (np.log(b) - t))) + 0.05, 1))

    t = optimize.brentq(lambda t: mean(t) - 0.4, -50, 50, xtol=1e-14)
    with jax.enable_x64(True):
        _, ours = kp.keep_probabilities(jnp.array(0.4), jnp.array(b), 3.0, floor=0.05)
    np.testing.assert_allclose(ours, t, atol=1e-6)


@pytest.mark.parametrize("floor", [0.0, 0.01, 0.2])
def test_the_derivative_is_that_of_finite_differences(floor):
    rng = np.random.default_rng(2)
    with jax.enable_x64(True):
        b, weight = jnp.array(rng.gamma(2.0, size=(5, 9))), rng.normal(size=(5, 9))
        alpha = jnp.array([0.25, 0.4, 0.55, 0.7, 0.93])

        def value(a):
            return jnp.sum(kp.keep_probabilities(a, b, 2.0, floor=floor)[0] * weight, 1)

        ours = jax.jit(jax.grad(lambda a: jnp.sum(value(a))))(alpha)
        h, value = 1e-6, jax.jit(value)
        theirs = (value(alpha + h) - value(alpha - h)) / (2 * h)
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_importance_and_sharpness_are_constants_for_the_derivative():
    value = lambda b, s: jnp.sum(kp.keep_probabilities(jnp.float32(0.5), b, s)[0] ** 2)
    slopes = jax.grad(value, argnums=(0, 1))(jnp.array([0.1, 1.0, 3.0]), 2.0)
    chex.assert_trees_all_equal(slopes, (jnp.zeros(3), jnp.zeros(())))


def test_the_threshold_is_a_constant_for_the_derivative():
    value = lambda a, b, s: kp.keep_probabilities(a, b, s)[1]
    slopes = jax.grad(value, (0, 1, 2))(
        jnp.float32(0.5), jnp.array([0.1, 1.0, 3.0]), jnp.float32(2.0)
    )
    chex.assert_trees_all_equal(slopes, jax.tree.map(jnp.zeros_like, slopes))


def test_where_all_are_certain_to_be_kept_all_answer():
    """At alpha = 1: dp_i / dalpha = C s_i (1 - s_i) / sum_j s_j (1 - s_j)."""
    rng = np.random.default_rng(0)
    b, weight = rng.gamma(2.0, size=(40, 5)), rng.normal(size=(40, 5))
    valid = np.arange(5) < 4

    def value(alpha):
        p, threshold = kp.keep_probabilities(
            alpha, jnp.asarray(b, jnp.float32), 2.0, valid=jnp.tile(valid, (40, 1))
        )
        return jnp.sum(p * weight), (p, threshold)

    slope, (p, threshold) = jax.grad(value, has_aux=True)(jnp.ones(40))
    np.testing.assert_allclose(p[:, valid], 1, atol=1e-5)
    certain = np.all(p[:, valid] == 1, axis=1)  # others miss the last digit
    assert certain.sum() > 5
    logits = 2 * (np.log(b) - np.asarray(threshold)[:, None])[:, valid]
    slopes = np.exp(-logits) / (1 + np.exp(-logits)) ** 2
    want = 4 * np.sum(weight[:, valid] * slopes, 1) / np.sum(slopes, 1)
    np.testing.assert_allclose(slope[certain], want[certain], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("padding", [7.0, jnp.nan, jnp.inf])
def test_padding_may_be_anything_anywhere(padding):
    b = jnp.array([0.5, 1.0, 4.0])
    wide, valid = (
        jnp.array([padding, 0.5, padding, 1.0, 4.0]),
        jnp.array([0, 1, 0, 1, 1]),
    )

    def value(alpha, b, valid=None):
        p = kp.keep_probabilities(alpha, b, 3.0, valid=valid)[0]
        kept = p if valid is None else p[valid]
        return kept @ jnp.array([1.0, 5.0, 2.0]), p

    alpha = jnp.float32(0.6)
    slope, p = jax.grad(value, has_aux=True)(alpha, b)
    wide_slope, wide_p = jax.grad(value, has_aux=True)(
        alpha, wide, np.array(valid, bool)
    )
    np.testing.assert_allclose(wide_p, [0, p[0], 0, p[1], p[2]], rtol=1e-5)
    assert float(wide_slope) == pytest.approx(float(slope), rel=1e-5)


def test_padding_changes_nothing():
    rng = np.random.default_rng(3)
    b = jnp.asarray(rng.gamma(2.0, size=(2, 6)), jnp.float32)
    wide = jnp.pad(b, ((0, 0), (0, 3)), constant_values=7.0)
    valid = jnp.arange(9) < 6
    alpha = jnp.array([0.3, 0.8])

    def solve(a, b, valid=None):
        p, t = kp.keep_probabilities(a, b, 4.0, valid=valid)
        return jnp.sum(p[:, :6] @ jnp.arange(6.0)), (p[:, :6], t)

    slopes = jax.jit(jax.grad(solve, has_aux=True))
    slope, (p, t) = slopes(alpha, b)
    valid = jnp.broadcast_to(valid, (2, 9))
    wide_slope, (wide_p, wide_t) = slopes(alpha, wide, valid)
    chex.assert_trees_all_close((slope, p, t), (wide_slope, wide_p, wide_t), rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 0.005, 1.0])
def test_ends_of_the_range_are_finite(alpha):
    b = jnp.array([0.5, 1.0, 2.0])
    value = lambda a: jnp.sum(kp.keep_probabilities(a, b, 500.0)[0] * jnp.arange(3.0))
    p, _ = kp.keep_probabilities(jnp.float32(alpha), b, 500.0)
    np.testing.assert_allclose(jnp.mean(p), max(alpha, 0.01), atol=1e-6)
    assert np.isfinite(jax.grad(value)(jnp.float32(alpha)))


def test_sharp_probabilities_are_decisions():
    b = jnp.array([4.0, 1.0, 2.0, 8.0])
    soft, _ = kp.keep_probabilities(jnp.float32(0.5), b, 1.0, floor=0.0)
    sharp, _ = kp.keep_probabilities(jnp.float32(0.5), b, 60.0, floor=0.0)
    np.testing.assert_allclose(sharp, [1, 0, 0, 1], atol=1e-5)
    assert float(jnp.abs(soft - sharp).max()) > 0.1


def test_bernoulli_masks_have_the_mean_asked_for_and_pass_derivatives_on():
    p = jnp.array([0.0, 0.1, 0.5, 0.9, 1.0])
    keys = jax.random.split(jax.random.key(0), 4000)
    drawn = jax.vmap(kp.bernoulli_mask, (0, None))(keys, p)
    assert set(np.unique(drawn)) == {0.0, 1.0}
    np.testing.assert_allclose(drawn.mean(0), p, atol=0.03)
    weight = jnp.arange(5.0)
    slope = jax.grad(lambda p: jnp.sum(kp.bernoulli_mask(keys[0], p) * weight))(p)
    chex.assert_trees_all_equal(slope, weight)


def test_equal_keys_give_equal_masks():
    p = jnp.full(64, 0.5)
    first = kp.bernoulli_mask(jax.random.key(1), p)
    chex.assert_trees_all_equal(first, kp.bernoulli_mask(jax.random.key(1), p))
    assert (first != kp.bernoulli_mask(jax.random.key(2), p)).any()


def test_concrete_masks_relax_bernoulli_masks():
    p = jnp.array([0.1, 0.5, 0.9])
    keys = jax.random.split(jax.random.key(0), 4000)
    draw = lambda temperature: jax.vmap(
        functools.partial(kp.concrete_mask, temperature=temperature), (0, None)
    )(keys, p)
    cold = draw(0.01)
    np.testing.assert_allclose((cold > 0.5).mean(0), p, atol=0.03)
    assert np.mean((cold > 0.01) & (cold < 0.99)) < 0.05
    warm = draw(1.0)
    assert np.mean((warm > 0.01) & (warm < 0.99)) > 0.5
    value = lambda p: jnp.sum(kp.concrete_mask(keys[0], p))
    h = 1e-3
    for i, step in enumerate(h * np.eye(3, dtype=np.float32)):
        difference = (value(p + step) - value(p - step)) / (2 * h)
        np.testing.assert_allclose(jax.grad(value)(p)[i], difference, rtol=1e-2)
    with pytest.raises(ValueError, match=r"temperature=0.*must be positive"):
        kp.concrete_mask(keys[0], p, temperature=0)


def test_deterministic_masks_keep_the_most_important():
    p = jnp.array([[0.2, 0.9, 0.2, 0.5], [0.1, 0.3, 0.8, 0.7]])
    valid = jnp.array([[True] * 4, [True, True, True, False]])
    masks = most_important(p, jnp.array([3, 2]), valid)
    assert masks.tolist() == [[1, 1, 0, 1], [0, 1, 1, 0]]
    gates = kp.deterministic_mask(None, p, masks)
    assert gates.dtype == p.dtype
    assert gates.tolist() == masks.tolist()
    slope = jax.grad(lambda p: jnp.sum(kp.deterministic_mask(None, p, masks)))(p)
    chex.assert_trees_all_equal(slope, jnp.ones_like(p))
    # Where probabilities are too sharp to differ, importance decides; NaN is last.
    b = jnp.array([[1.0, 2.0, 3.0, jnp.nan], [jnp.inf, 1.0, jnp.inf, 5.0]])
    flat = most_important(b, jnp.array([2, 2]))
    assert flat.tolist() == [[0, 1, 1, 0], [1, 0, 1, 0]]


def test_what_is_not_finite_is_seen():
    p, threshold = kp.keep_probabilities(
        jnp.array([0.5, jnp.nan]), jnp.ones((2, 3)), 2.0
    )
    assert jnp.isfinite(p[0]).all()
    assert jnp.isnan(p[1]).all()
    assert jnp.isnan(threshold[1])


@pytest.mark.parametrize("sharpness", [1e6, 1e8, 1e11, jnp.inf])
def test_the_sharpest_probabilities_still_have_their_mean(sharpness):
    rng = np.random.default_rng(0)
    b = jnp.asarray(rng.gamma(2.0, size=(20, 200)), jnp.float32)
    alpha = jnp.linspace(0.05, 0.95, 20)
    p, _ = kp.keep_probabilities(alpha, b, sharpness)
    np.testing.assert_allclose(p.mean(-1), alpha, atol=1 / 200)


def test_half_precision_is_solved_and_drawn_in_single():
    b = jnp.asarray(np.random.default_rng(0).gamma(2.0, size=64), jnp.bfloat16)
    p, _ = kp.keep_probabilities(0.3, b, 3)
    assert p.dtype == jnp.float32
    assert float(p.mean()) == pytest.approx(0.3, abs=1e-6)
    rare = jnp.full(200_000, 0.001, jnp.bfloat16)
    drawn = kp.bernoulli_mask(jax.random.key(0), rare)
    assert drawn.dtype == jnp.bfloat16
    assert float(jnp.mean(drawn, dtype=jnp.float32)) == pytest.approx(0.001, rel=0.3)


@pytest.mark.parametrize("split", ["keep_ratio", "importance"])
def test_groups_are_split_over_devices_by_either_argument(split):
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((8,), ("data",), axis_types=auto)
    b = jnp.asarray(np.random.default_rng(0).gamma(2.0, size=(8, 16)), jnp.float32)
    alpha = jnp.linspace(0.2, 0.9, 8)
    spec = jax.sharding.PartitionSpec("data")
    everywhere = jax.sharding.PartitionSpec()
    if split == "keep_ratio":
        b, specs = b[:1], (spec, everywhere)
    else:
        alpha, specs = alpha[:1], (everywhere, spec)
    solve = lambda a, b: kp.keep_probabilities(a, b, 2.0)[0]
    mapped = jax.jit(jax.shard_map(solve, mesh=mesh, in_specs=specs, out_specs=spec))
    want = solve(jnp.broadcast_to(alpha, 8), jnp.broadcast_to(b, (8, 16)))
    np.testing.assert_allclose(mapped(alpha, b), want, rtol=1e-6)


def test_a_floor_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"floor=1.0.*\[0, 1\)"):
        kp.keep_probabilities(0.5, jnp.ones(4), 2.0, floor=1.0)
