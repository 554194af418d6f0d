"""Exact counts, ties, and masks that do not fit."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxprune import masks
from jaxprune.masks._k_largest import kth_largest
from tests.support import reference

_top_k = jax.jit(masks.top_k_masks)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shapes", [[(7,)], [(3, 5), (), (2, 2, 2)], [(100, 11), (1,)]])
@pytest.mark.parametrize("kind", ["normal", "ties", "all equal", "signed zeros"])
def test_top_k_equals_a_stable_sort(seed, shapes, kind):
    rng = np.random.default_rng(seed)
    draw = {
        "normal": lambda s: rng.normal(size=s),
        "ties": lambda s: rng.integers(-2, 3, size=s),
        "all equal": np.ones,
        "signed zeros": lambda s: rng.choice([0.0, -0.0, 1.0], size=s),
    }[kind]
    scores = [np.asarray(draw(s), np.float32) for s in shapes]
    flat = np.concatenate([s.ravel() for s in scores])
    for k in sorted({0, 1, flat.size // 3, flat.size - 1, flat.size}):
        got = _top_k([jnp.asarray(s) for s in scores], k)
        got = np.concatenate([np.asarray(m).ravel() for m in got])
        assert got.sum() == k
        np.testing.assert_array_equal(got, reference.top_k(flat, k))


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_the_kth_largest_is_that_of_a_sort(dtype, rng):
    with jax.enable_x64(True):
        scores = [
            jnp.asarray(rng.normal(size=s).round(1), dtype) for s in ((9, 4), (), (8,))
        ]
        want = np.sort(np.concatenate([np.ravel(s) for s in scores]).astype(float))
        for k in (1, 2, 17, want.size):
            got = kth_largest(scores, k)
            assert got.dtype == ("float64" if dtype == "float64" else "float32")
            assert float(got) == want[-k]


def test_not_a_number_is_refused_where_known_and_kept_where_traced():
    scores = jnp.array([jnp.nan, jnp.inf, 1.0, -jnp.inf, -5.0])
    with pytest.raises(ValueError, match=r"top_k_masks\(keep=2\).*hold NaN"):
        masks.top_k_masks(scores, 2)
    with pytest.raises(ValueError, match=r"those of \['w'\] hold NaN"):
        masks.scored_masks({"v": scores[1:], "w": scores}, keep_ratio=0.5)
    assert _top_k(scores, 2).tolist() == [True, True, False, False, False]
    assert _top_k(scores, 1).tolist() == [True, False, False, False, False]


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_scores_of_few_bits_are_cut_exactly(dtype, rng):
    scores = jnp.asarray(rng.normal(size=1000), dtype)
    assert int(masks.top_k_masks(scores, 123).sum()) == 123


def test_top_k_of_sharded_scores_stays_sharded(rng):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    scores = rng.normal(size=(64, 5)).astype(np.float32)
    sharded = jax.device_put(scores, sharding)
    cut = jax.jit(lambda s: masks.top_k_masks(s, 100))
    np.testing.assert_array_equal(cut(sharded), masks.top_k_masks(scores, 100))


@pytest.mark.parametrize("keep", [-1, 5])
def test_a_count_out_of_range_is_refused(keep):
    with pytest.raises(ValueError, match=f"keep={keep}.*from 0 to .*4"):
        masks.top_k_masks(jnp.ones(4), keep)


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, float("nan")])
def test_sparsity_outside_its_range_is_refused(sparsity):
    with pytest.raises(ValueError, match=r"sparsity=.*must be in \[0, 1\)"):
        masks.keep_ratio_of(sparsity)


@pytest.mark.parametrize("keep_ratio", [0.0, -1.0, 1.01, float("nan")])
def test_keep_ratio_outside_its_range_is_refused(keep_ratio):
    with pytest.raises(ValueError, match=r"must be in \(0, 1\]"):
        masks.keep_count(keep_ratio, 100)


@pytest.mark.parametrize("percent", range(1, 100))
def test_counts_are_decimal(percent):
    keep_ratio = masks.keep_ratio_of(percent / 100)
    assert masks.keep_count(keep_ratio, 100) == 100 - percent


def _cut(distribution):
    return functools.partial(masks.scored_masks, distribution=distribution)


CUTS = [_cut(masks.global_), _cut(masks.uniform), _cut(masks.erk)]


def _scores(rng):
    return {
        "small": jnp.asarray(rng.normal(size=(5, 4)), jnp.float32),
        "large": jnp.asarray(3 + rng.random(size=(30, 30)), jnp.float32),
    }


@pytest.mark.parametrize("keep_ratio", [1.0, 0.5, 0.13, 0.01])
@pytest.mark.parametrize("cut", CUTS)
def test_cuts_meet_the_count_and_the_floors(cut, keep_ratio, rng):
    scores = _scores(rng)
    got = jax.jit(lambda s: cut(s, keep_ratio=keep_ratio, min_keep_ratio=0.005))(scores)
    counts = {name: int(m.sum()) for name, m in got.items()}
    assert sum(counts.values()) == masks.keep_count(keep_ratio, 920)
    assert counts["small"] >= 1
    assert counts["large"] >= 5


@pytest.mark.parametrize("keep_ratio", [0.5, 0.137])
def test_uniform_masks_keep_the_same_share_of_every_leaf(keep_ratio, rng):
    scores = _scores(rng)
    got = _cut(masks.uniform)(scores, keep_ratio=keep_ratio)
    for name, score in scores.items():
        assert abs(int(got[name].sum()) - keep_ratio * score.size) <= 1


@pytest.mark.parametrize("cut", CUTS)
def test_a_traced_keep_ratio_is_met_exactly(cut, rng):
    scores = _scores(rng)
    count = jax.jit(lambda k: sum(m.sum() for m in cut(scores, keep_ratio=k).values()))
    for keep_ratio in (0.9, 0.25, 0.1):
        got = int(count(jnp.float32(keep_ratio)))
        assert got == masks.keep_count(keep_ratio, 920)


@pytest.mark.parametrize("cut", CUTS)
def test_a_budget_below_the_floors_is_refused(cut, rng):
    with pytest.raises(ValueError, match=r"keep_ratio=0.01.*at least 95.*0\.103"):
        cut(_scores(rng), keep_ratio=0.01, min_keep_ratio=0.102)


def test_the_floor_holds_in_each_stacked_layer():
    scores = jnp.concatenate([jnp.ones((1, 10)), 5 * jnp.ones((3, 10))])
    got = masks.scored_masks(
        {"w": scores}, keep_ratio=0.5, min_keep_ratio=0.2, layers={"w": 4}
    )
    assert got["w"].sum(1).min() >= 2
    assert int(got["w"].sum()) == 20


@pytest.mark.parametrize("min_keep_ratio", [-0.1, 1.1, float("nan")])
def test_a_floor_out_of_range_is_refused(min_keep_ratio):
    with pytest.raises(ValueError, match="min_keep_ratio"):
        masks.layer_floor(10, min_keep_ratio)


def test_applying_masks_removes_what_is_not_finite():
    params = {"w": jnp.array([jnp.nan, jnp.inf, 2.0]), "b": jnp.array([1.0])}
    kept = {"w": jnp.array([False, False, True]), "b": jnp.asarray(True)}
    got = masks.apply_masks(params, kept)
    chex.assert_trees_all_equal(got, {"w": jnp.array([0, 0, 2.0]), "b": jnp.ones(1)})


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (jnp.ones((3, 1), bool), ValueError, r"'w'.*shape of its parameter, \(3, 4\)"),
        (jnp.ones(4, bool), ValueError, r"\(3, 4\), or \(\), got \(4,\)"),
        (jnp.ones((3, 4)), TypeError, "boolean.*float32"),
        (jnp.ones((3, 4), jnp.int8), TypeError, "boolean.*int8"),
    ],
)
def test_a_mask_that_would_broadcast_or_is_not_boolean_is_refused(mask, error, message):
    with pytest.raises(error, match=message):
        masks.apply_masks({"w": jnp.ones((3, 4))}, {"w": mask})


def test_masks_of_another_structure_are_refused_with_the_names():
    with pytest.raises(ValueError, match=r"Only in the parameters: \['b'\]"):
        masks.apply_masks(
            {"w": jnp.ones(3), "b": jnp.ones(3)}, {"w": jnp.ones(3, bool)}
        )


def test_counts_are_exact_integers():
    params = {"w": jnp.ones((3, 4)), "b": jnp.ones(7)}
    kept = {"w": jnp.eye(3, 4) > 0, "b": jnp.asarray(True)}
    assert masks.kept_counts(params, kept) == {"w": 3, "b": 7}
