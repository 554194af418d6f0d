"""Every operator minimises what its docstring says, and obeys the laws of its kind."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprune import prox
from tests.support import soft_reference as reference

SEEDS = (0, 1)
SHAPES = ((7,), (4, 5), (3, 3, 2, 4))


def l1(y):
    return np.sum(np.abs(y))


def filter_norms(y):
    """Sum of the 2-norms of slices along the last axis."""
    return np.sum(np.sqrt(np.sum(np.square(y.reshape(-1, y.shape[-1])), axis=0)))


def indicator(condition):
    return 0.0 if condition else np.inf


# name: operator with its configuration, penalty g, prox of the conjugate of s * g.
CONVEX = {
    "soft": (prox.soft_threshold, l1, lambda x, s: np.clip(x, -s, s)),
    "elastic_net": (
        functools.partial(prox.elastic_net, l1=0.7, l2=1.5),
        lambda y: 0.7 * l1(y) + 0.75 * np.sum(y**2),
        # Minimises |y - x|^2 / 2 + max(|y| - 0.7 s, 0)^2 / (2 * 1.5 s).
        lambda x, s: np.where(
            np.abs(x) <= 0.7 * s,
            x,
            np.sign(x) * (1.5 * s * np.abs(x) + 0.7 * s) / (1 + 1.5 * s),
        ),
    ),
    "group_soft": (
        functools.partial(prox.group_soft_threshold, group_axes=-1),
        filter_norms,
        lambda x, s: (
            x
            / np.maximum(
                np.sqrt(np.sum(x**2, axis=tuple(range(x.ndim - 1)), keepdims=True)) / s,
                1,
            )
        ),
    ),
    "non_negative_soft": (
        prox.non_negative_soft_threshold,
        lambda y: np.sum(y) + indicator(np.all(y >= 0)),
        lambda x, s: np.minimum(x, s),
    ),
    "box": (
        functools.partial(prox.box, lower=-0.5, upper=0.8),
        lambda y: indicator(np.all((y >= -0.5) & (y <= 0.8))),
        lambda x, s: x - np.clip(x, -0.5, 0.8),
    ),
}
OTHERS = {
    "hard": (prox.hard_threshold, np.count_nonzero),
    "top_k": (
        functools.partial(prox.top_k, keep_ratio=0.3),
        lambda y: indicator(np.count_nonzero(y) <= round(0.3 * y.size)),
    ),
}
PENALTIES = {name: row[:2] for name, row in CONVEX.items()} | OTHERS
COMPILED = {name: jax.jit(row[0]) for name, row in PENALTIES.items()}
TRACED = {
    "top_k": jax.jit(lambda x, ratio: prox.top_k(x, keep_ratio=ratio)),
    "global_top_k": jax.jit(lambda x, ratio: prox.global_top_k(x, keep_ratio=ratio)),
}


def group_soft(axes):
    return functools.partial(prox.group_soft_threshold, group_axes=axes)


GROUP_OF_ALL = jax.jit(group_soft(()))


def sample(shape, seed, scale=1.0):
    return scale * np.random.default_rng(seed).standard_normal(shape)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", PENALTIES)
def test_no_neighbour_and_no_sparser_point_has_a_smaller_objective(name, shape, seed):
    operator, penalty = COMPILED[name], PENALTIES[name][1]
    x, s = sample(shape, seed), 0.4
    y = np.asarray(operator(jnp.asarray(x), s))

    def objective(z):
        return 0.5 * np.sum((z - x) ** 2) + s * penalty(z)

    rng = np.random.default_rng(seed + 10)
    rivals = [x, np.zeros_like(x), 0.5 * y, 1.1 * y]
    for scale in (1e-6, 1e-3, 0.1, 1.0):
        for density in (0.1, 1.0):
            bump = rng.standard_normal((10, *shape)) * (
                rng.random((10, *shape)) < density
            )
            rivals += list(y + scale * bump)
    rivals += [np.where(rng.random(shape) < 0.5, 0, z) for z in (x, y)]
    rivals += [np.where(rng.random(shape) < 0.2, x, y) for _ in range(10)]
    assert all(objective(y) <= objective(z) + 1e-12 for z in rivals)


@pytest.mark.parametrize("shape", SHAPES)
def test_operators_equal_the_loops_of_the_reference(shape):
    x, s = sample(shape, 3), 0.4
    theirs = {
        "soft": reference.soft(x, s),
        "elastic_net": reference.elastic_net(x, s, 0.7, 1.5),
        "group_soft": reference.group_soft(x, s, (-1,)),
        "hard": reference.hard(x, s),
        "top_k": reference.top_k(x, int(0.3 * x.size)),
    }
    for name, expected in theirs.items():
        ours = COMPILED[name](jnp.asarray(x), s)
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-14, err_msg=name)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", CONVEX)
def test_subgradient_of_the_penalty_balances_the_distance(name, seed):
    # p = (x - y) / s is a subgradient at y: g(z) >= g(y) + <p, z - y> for all z.
    operator, penalty = COMPILED[name], CONVEX[name][1]
    x, s = sample((4, 5), seed), 0.4
    y = np.asarray(operator(jnp.asarray(x), s))
    p = (x - y) / s
    for z in np.random.default_rng(seed).standard_normal((200, 4, 5)):
        assert penalty(z) >= penalty(y) + np.sum(p * (z - y)) - 1e-12
    if name == "soft":
        np.testing.assert_allclose(p[y != 0], np.sign(y[y != 0]), atol=1e-12)
        assert np.all(np.abs(p[y == 0]) <= 1)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", CONVEX)
def test_moreau_identity_splits_a_point_into_prox_and_conjugate_prox(name, seed):
    operator, conjugate = COMPILED[name], CONVEX[name][2]
    x, s = sample((4, 5), seed), 0.4
    ours = np.asarray(operator(jnp.asarray(x), s))
    np.testing.assert_allclose(ours + conjugate(x, s), x, atol=1e-14)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", CONVEX)
def test_convex_operators_are_firmly_non_expansive(name, shape):
    operator = COMPILED[name]
    for seed in range(20):
        a, b = sample(shape, seed), sample(shape, seed + 100)
        move = np.asarray(operator(jnp.asarray(a), 0.4)) - operator(jnp.asarray(b), 0.4)
        assert np.sum(move**2) <= np.sum(move * (a - b)) + 1e-12


@pytest.mark.parametrize("name", PENALTIES)
def test_derivatives_equal_finite_differences_away_from_corners(name):
    operator = COMPILED[name]
    x = np.linspace(-2, 2, 12).reshape(3, 4) + 0.013
    direction, turn = sample((3, 4), 1), 0.3

    def along(h, s):
        return np.asarray(operator(jnp.asarray(x + h * direction), s))

    tangents = (jnp.asarray(direction), jnp.asarray(turn))
    _, ours = jax.jvp(operator, (jnp.asarray(x), jnp.asarray(0.4)), tangents)
    h = 1e-6
    theirs = (along(h, 0.4 + h * turn) - along(-h, 0.4 - h * turn)) / (2 * h)
    np.testing.assert_allclose(ours, theirs, atol=1e-8)


@pytest.mark.parametrize("s", [0.0, 0.5])
@pytest.mark.parametrize("name", PENALTIES)
def test_gradients_are_finite_at_the_corners(name, s):
    operator = COMPILED[name]
    edge = np.sqrt(2 * s)
    corners = [[0.0] * 4, [s, -s, 0, 1], [edge, -edge, 0, -1], [-0.5, 0.8, 1e-30, 0]]
    x = jnp.asarray(corners, jnp.float32).T

    @jax.jit
    def gradients(x, s):
        y, pull_back = jax.vjp(operator, x, s)
        return pull_back(jnp.ones_like(y)), pull_back(2 * y)

    chex.assert_tree_all_finite(gradients(x, jnp.asarray(s)))


def test_derivative_at_a_zero_group_is_zero_and_the_identity_without_penalty():
    zero = jnp.zeros(3)
    jacobian = jax.jit(jax.jacobian(GROUP_OF_ALL))
    np.testing.assert_array_equal(jacobian(zero, 0.5), np.zeros((3, 3)))
    np.testing.assert_array_equal(jacobian(zero, 0.0), np.eye(3))


@pytest.mark.parametrize("name", ["soft", "elastic_net", "group_soft", "hard"])
def test_zero_scaling_of_a_norm_changes_nothing(name):
    x = jnp.asarray(sample((4, 5), 0))
    np.testing.assert_array_equal(COMPILED[name](x, 0.0), x)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64])
@pytest.mark.parametrize("name", PENALTIES)
def test_dtype_is_kept_and_low_precision_is_computed_in_float32(name, dtype):
    operator = COMPILED[name]
    x = jnp.asarray(sample((4, 5), 0), dtype)
    y = operator(x, 0.4)
    wide = operator(x.astype(jnp.promote_types(dtype, jnp.float32)), 0.4)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, wide.astype(dtype))


@pytest.mark.parametrize("name", PENALTIES)
def test_trees_are_treated_leaf_by_leaf(name):
    operator = COMPILED[name]
    tree = {"a": jnp.asarray(sample((4, 5), 0)), "b": (jnp.asarray(sample((6,), 1)),)}
    y = operator(tree, 0.4)
    chex.assert_trees_all_equal(y, jax.tree.map(lambda x: operator(x, 0.4), tree))


@pytest.mark.parametrize("name", PENALTIES)
def test_a_nan_stays_visible_and_empty_leaves_pass(name):
    operator = COMPILED[name]
    y = operator(jnp.array([[jnp.nan], [1.0], [2.0], [0.5]]), 0.4)
    assert bool(jnp.isnan(y[0, 0]))
    assert operator(jnp.zeros((0, 3)), 0.4).shape == (0, 3)
    assert operator({}, 0.4) == {}


@pytest.mark.parametrize("name", ["soft", "elastic_net", "non_negative_soft", "hard"])
def test_one_scaling_per_weight_is_the_prox_in_a_diagonal_metric(name):
    operator = COMPILED[name]
    x, s = sample((4, 5), 0), np.abs(sample((4, 5), 1))
    whole = np.asarray(operator(jnp.asarray(x), jnp.asarray(s)))
    for i in np.ndindex(4, 5):
        alone = operator(jnp.asarray(x[i]), jnp.asarray(s[i]))
        np.testing.assert_allclose(whole[i], alone)


def test_scaling_may_be_a_prefix_of_the_tree_and_broadcasts():
    tree = {"a": {"k": jnp.ones((2, 3)), "b": jnp.ones(3)}, "c": jnp.ones(3)}
    y = prox.soft_threshold(tree, {"a": 0.25, "c": jnp.array([0.0, 0.5, 2.0])})
    np.testing.assert_array_equal(y["a"]["k"], np.full((2, 3), 0.75))
    np.testing.assert_array_equal(y["a"]["b"], np.full(3, 0.75))
    np.testing.assert_array_equal(y["c"], [1.0, 0.5, 0.0])


@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        ((-1,), (4, 5)),
        ((-2,), (3, 3, 4, 5)),
        ((-2, -1), (3, 3, 4, 5)),
        ((1,), (6, 2, 3)),
        ((), (3, 4)),
    ],
)
def test_groups_of_any_axes_equal_the_loops(axes, shape):
    x = sample(shape, 0)
    s = 0.6 * np.sqrt(x.size / np.prod([shape[a] for a in axes], initial=1))
    ours = jax.jit(group_soft(axes))(jnp.asarray(x), s)
    np.testing.assert_allclose(ours, reference.group_soft(x, s, axes), atol=1e-14)
    assert np.any(np.asarray(ours) != 0)


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
def test_group_norms_neither_underflow_nor_overflow_in_float32(scale):
    x = jnp.asarray([3.0, 4.0], jnp.float32) * jnp.float32(scale)
    y = GROUP_OF_ALL(x, 2.5 * scale)
    np.testing.assert_allclose(y, 0.5 * np.asarray(x), rtol=1e-6)


def test_an_infinite_weight_stays_infinite_and_keeps_its_group():
    x = jnp.array([[jnp.inf, 0.5], [1.0, 0.5]])
    y = prox.group_soft_threshold(x, 2.0, group_axes=-1)
    np.testing.assert_array_equal(y, [[np.inf, 0], [1, 0]])


def test_one_scaling_per_group_is_taken():
    x = jnp.array([[3.0, 3.0], [4.0, 4.0]])
    y = prox.group_soft_threshold(x, jnp.array([[2.5, 5.0]]), group_axes=-1)
    np.testing.assert_array_equal(y, [[1.5, 0.0], [2.0, 0.0]])


@pytest.mark.parametrize("count", range(9))
def test_top_k_keeps_exactly_k_with_ties_settled_by_position(count):
    x = jnp.array([[1.0, -2.0, 2.0, 2.0], [0.5, -2.0, 1.0, 3.0]])
    y = jax.jit(lambda: prox.top_k(x, keep_ratio=count / 8))()
    np.testing.assert_array_equal(y, reference.top_k(x, count))
    np.testing.assert_array_equal(y, TRACED["top_k"](x, count / 8))
    assert np.count_nonzero(y) == count


@pytest.mark.parametrize("count", range(8))
def test_global_top_k_ranks_all_leaves_together(count):
    tree = {"a": jnp.array([1.0, 5.0, 2.0]), "b": jnp.array([[2.0, -4.0], [0.1, 2.0]])}
    y = TRACED["global_top_k"](tree, count / 7)
    flat = np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])
    ours = np.concatenate([np.ravel(x) for x in jax.tree.leaves(y)])
    np.testing.assert_array_equal(ours, reference.top_k(flat, count))


def test_global_top_k_keeps_mixed_dtypes():
    tree = {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.full(2, 3, jnp.float32)}
    y = prox.global_top_k(tree, keep_ratio=0.5)
    chex.assert_trees_all_equal_shapes_and_dtypes(y, tree)
    assert not np.any(y["a"])


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda x: prox.soft_threshold(x, -1.0),
            ValueError,
            r"scaling=-1.0\)`: .*at least 0",
        ),
        (lambda x: prox.soft_threshold(x, np.nan), ValueError, "finite"),
        (
            lambda x: prox.soft_threshold(x, "1"),
            TypeError,
            "scaling='1'.*must be a number",
        ),
        (lambda x: prox.soft_threshold(x, np.ones(4)), ValueError, r"got shape \(4,\)"),
        (lambda x: prox.soft_threshold({"a": x}, {"b": 1.0}), ValueError, "prefix"),
        (lambda x: prox.soft_threshold({"a": jnp.arange(3)}), TypeError, "'a' is of"),
        (lambda x: prox.global_top_k(jnp.arange(3), keep_ratio=1), TypeError, "int"),
        (lambda x: prox.elastic_net(x, l2=-1), ValueError, "l2=-1"),
        (lambda x: prox.box(x, lower=1, upper=0), ValueError, "lower <= upper"),
        (lambda x: prox.top_k(x, keep_ratio=1.5), ValueError, r"ratio=1.5.*\[0, 1\]"),
        (
            lambda x: prox.top_k(x, keep_ratio=np.nan),
            ValueError,
            r"ratio=nan.*\[0, 1\]",
        ),
        (
            lambda x: prox.group_soft_threshold({"k": x}, group_axes=2),
            ValueError,
            r"group_axes=\(2,\)\).*leaf 'k' has shape \(2, 3\)",
        ),
        (
            lambda x: prox.group_soft_threshold(x, group_axes=(1, -1)),
            ValueError,
            "different axes",
        ),
        (
            lambda x: prox.group_soft_threshold(x, np.ones((2, 3)), group_axes=-1),
            ValueError,
            r"size 1 on the axes \(0,\)",
        ),
    ],
)
def test_bad_input_is_refused_with_its_name_and_value(call, error, words):
    with pytest.raises(error, match=words):
        call(jnp.ones((2, 3)))


def test_groups_of_huge_negative_weights_shrink_as_their_mirror_image():
    x = jnp.full((2, 3), 1e30, jnp.float32)
    got = prox.group_soft_threshold(-x, 1e29, group_axes=-1)
    want = prox.group_soft_threshold(x, 1e29, group_axes=-1)
    np.testing.assert_array_equal(got, -want)
    assert 0.9e30 < float(want[0, 0]) < 1e30
