"""Ranking: on any mesh, of any size, in a program that grows with the leaves."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxprune import masks
from jaxprune.masks import _k_largest as ranking
from jaxprune.masks import _packing as packing
from tests.support.rows import rows


def _lines(leaves):
    scores = [jax.ShapeDtypeStruct((8, 9 + i % 7), jnp.float32) for i in range(leaves)]
    keep = jax.ShapeDtypeStruct((), jnp.int32)
    return jax.jit(masks.top_k_masks).lower(scores, keep).as_text().count("\n")


def test_the_program_grows_in_proportion_to_the_leaves():
    few, many = _lines(100), _lines(200)
    assert many - few < 100 * 20  # lines for each leaf
    more = _lines(400)
    assert more - many < 2.2 * (many - few)


def _kernels(leaves):
    """The number of kernels that differ in more than names."""
    scores = [jax.ShapeDtypeStruct((8, 9 + i % 3), jnp.float32) for i in range(leaves)]
    keep = jax.ShapeDtypeStruct((), jnp.int32)
    text = jax.jit(masks.top_k_masks).lower(scores, keep).compile().as_text()
    kernels = re.findall(r"^%fused_computation.*?^}", text, re.DOTALL | re.MULTILINE)
    names = re.compile(r"%[\w.-]+|parameter\(\d+\)|metadata={[^}]*}")
    bodies = [names.sub("", kernel).splitlines()[1:] for kernel in kernels]
    return len({tuple(sorted(body)) for body in bodies})


@pytest.mark.slow
@pytest.mark.usefixtures("compiles_as_users_do")
def test_leaves_of_one_shape_share_their_kernels():
    # Each kernel takes twenty milliseconds to compile, a thousand a minute.
    assert _kernels(80) <= _kernels(40) + 5


@pytest.mark.parametrize("count", [2, 6])
def test_many_small_arrays_are_ranked_as_if_they_were_one(count, rng):
    dtype = jnp.float32 if count < 6 else jnp.bfloat16
    shapes = [(3, 5), (), (2, 2, 2), (7,), (200,), (1, 129), (0, 3)] * count
    scores = [jnp.asarray(rng.normal(size=s).round(1), dtype) for s in shapes]
    flat = np.concatenate([np.ravel(s).astype(float) for s in scores])
    for k in (0, flat.size // 3, flat.size):
        got = np.concatenate([np.ravel(m) for m in ranking.largest(scores, k)])
        want = np.zeros(flat.size, bool)
        want[np.argsort(-flat, kind="stable")[:k]] = True
        np.testing.assert_array_equal(got, want)
    # Each on its own, layers of a stack included.
    layers = tuple(shape[0] if len(shape) == 3 else None for shape in shapes)
    number = sum(n or 1 for n in layers)
    segments = packing.Segments(layers, tuple(range(number)))
    got = ranking.largest(scores, [1] * number, segments=segments)
    for mask, score, n in zip(got, scores, layers, strict=True):
        rows = np.ravel(score).astype(float).reshape(n or 1, -1)
        best = rows.argmax(1)[:, None] if rows.size else np.zeros((len(rows), 1))
        want = np.arange(rows.shape[1]) == best
        np.testing.assert_array_equal(np.reshape(mask, rows.shape), want)


MACHINES = [(1, jnp.float32), (2, jnp.bfloat16), (4, jnp.float32)]


@pytest.mark.parametrize("machine", rows(MACHINES, MACHINES[2:]))
def test_masks_are_the_same_on_every_machine(machine, rng, monkeypatch):
    width, dtype = machine
    shapes = [
        (130, 130),
        (3, 90, 80),
        (0,),
        (7,),
        (40, 500),
        (200, 3, 30),
        (129, 128),
    ] * 2
    layers = tuple(shape[0] if len(shape) == 3 else None for shape in shapes)
    total = sum(n or 1 for n in layers)
    # Ties within arrays, and between all of them. Two have no entry to keep.
    scores = [jnp.asarray(rng.normal(size=s).round(1), dtype) for s in shapes]
    cuts = {
        "all": (packing.together(scores), [59_999]),
        "each": (packing.Segments(layers, tuple(range(total))), [3] * total),
        "two": (
            packing.Segments(layers, tuple(i % 2 for i in range(total))),
            [9_999, 30_001],
        ),
    }
    forced, alive = [s > 3 for s in scores], [s < 2 for s in scores]
    alive[0] = jnp.ones_like(alive[0])
    some = [None, *alive[1:]]
    for name, (segments, k) in cuts.items():
        found = []
        for one in (ranking._Machine(2, False), ranking._Machine(width, True)):
            monkeypatch.setattr(ranking, "_machine", lambda one=one: one)
            found.append(
                ranking.largest(scores, k, segments=segments, forced=forced, alive=some)
            )
        assert sum(int(mask.sum()) for mask in found[0]) == sum(k) - 6 * (
            name == "each"
        )
        assert not any((m & ~a).any() for m, a in zip(found[0], alive, strict=True))
        for one, other in zip(*found, strict=True):
            np.testing.assert_array_equal(one, other)


def test_one_device_counts_large_arrays_together(monkeypatch):
    def lines(leaves):
        scores = [
            jax.ShapeDtypeStruct((150, 150 + i % 50), jnp.float32)
            for i in range(leaves)
        ]
        keep = jax.ShapeDtypeStruct((), jnp.int32)
        return jax.jit(masks.top_k_masks).lower(scores, keep).as_text().count("\n")

    monkeypatch.setattr(ranking, "_machine", lambda: ranking._Machine(2, alone=True))
    assert lines(100) - lines(50) < 50 * 20


def _plan(shapes, stacked):
    """How arrays are packed on one device; stacked ones have layers of their own."""
    layers = tuple(shape[0] if stacked else None for shape in shapes)
    segments = packing.Segments(layers, tuple(range(sum(n or 1 for n in layers))))
    found = []

    def planned(*arrays):
        found.append(packing.plan(arrays, segments, alone=True))

    jax.eval_shape(planned, *(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes))
    return found[0]


def test_counts_of_all_rows_can_be_added_up():
    """Low words are below 4096, and their sums must be below 2**31."""
    shapes = [(2**14, 256)] * 9 + [(128, 2**15)] * 520
    plan = _plan(shapes, stacked=True)
    # Of each segment: a row of a common array, or a layer of one that is not copied.
    sizes = []
    for members, used in zip(plan.members, plan.used, strict=True):
        number, size = shapes[members[0].index]
        sizes += [size] * number if used is None else used
    assert plan.lengths[-2:] == (128, 4096)
    assert sum(sizes) == sum(number * size for number, size in shapes)
    assert sum(min(size, 4095) for size in sizes) < 2**31


@pytest.mark.parametrize(
    ("shapes", "stacked", "length"),
    [
        ([(5000, 100)] * 6, True, 128),
        ([(300, 2**13)] * 6, True, 128),
        ([(20, 2**15)] * 6, True, 4096),
        ([(700, 700)] * 6, False, 4096),
        ([(30, 30)] * 6, False, 128),
    ],
)
def test_rows_are_as_long_as_suits_a_layer(shapes, stacked, length):
    """Long where few of them do, short where long ones would be filled up."""
    plan = _plan(shapes, stacked)
    assert plan.lengths == (length,)
    entries, used = sum(np.prod(s) for s in shapes), plan.used[0]
    assert sum(used) == entries
    assert len(used) * length < 1.3 * entries


SPECS = [P("data"), P(None, "data"), P()]


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("spec", rows(SPECS, SPECS[:1]))
@pytest.mark.parametrize("distribution", [masks.global_, masks.erk])
def test_sharded_scores_give_the_masks_of_one_device(kind, spec, distribution, rng):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,))
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape).round(1), jnp.float32)
    scores = {"flat": draw(16, 24), "stack": draw(8, 16, 3)}

    def cut(scores):
        return masks.scored_masks(
            scores,
            keep_ratio=0.3,
            distribution=distribution,
            min_keep_ratio=0.01,
            layers={"stack": 8},
        )

    want = cut(scores)
    sharded = jax.device_put(scores, NamedSharding(mesh, spec))
    for got in (jax.jit(cut)(sharded), cut(sharded)):
        for name, mask in got.items():
            np.testing.assert_array_equal(mask, want[name])


def _most_moved(text):
    """The largest number of entries that devices send each other at once."""
    lines = re.findall(r".*(?:all-gather|all-to-all|permute)[\w-]*\(.*", text)
    shapes = re.findall(r"\[([0-9,]+)\]", " ".join(lines))
    return max((np.prod([int(n) for n in s.split(",")]) for s in shapes), default=0)


@pytest.mark.parametrize("spec", [P("data"), P(None, "data")])
def test_no_device_gathers_scores(spec, rng):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, spec)
    scores = {"w": jax.ShapeDtypeStruct((256, 512), jnp.float32, sharding=sharding)}
    cut = jax.jit(
        lambda s: masks.scored_masks(s, keep_ratio=0.1, min_keep_ratio=1e-3)["w"],
        out_shardings=sharding,
    )
    text = cut.lower(scores).compile().as_text()
    assert _most_moved(text) < 1024


def test_leaves_of_one_shape_and_two_shardings_stay_where_they_are():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    scores = [
        jax.ShapeDtypeStruct((136, 128), jnp.float32, sharding=NamedSharding(mesh, s))
        for s in [P("data"), P(None, "data")] * 17
    ]
    text = jax.jit(lambda s: ranking.largest(s, 9)).lower(scores).compile().as_text()
    assert _most_moved(text) <= 8  # a count of each device


@pytest.mark.parametrize("spec", [P("data"), P()])
@pytest.mark.parametrize("count", rows([1, 4], [4]))
def test_what_is_alive_and_forced_may_be_sharded_otherwise(spec, count, rng):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Explicit,))
    scores = [jnp.asarray(rng.normal(size=(16, 8)), jnp.float32) for _ in range(2)]
    scores *= count
    alive = [None, scores[1] > 0] * count
    forced = [scores[0] < 0, scores[1] < -9] * count
    want = ranking.largest(scores, 40, alive=alive, forced=forced)
    with jax.set_mesh(mesh):
        placed = [jax.device_put(x, spec) for x in scores]
        for other in (P(), P("data"), P(None, "data")):
            place = lambda x, p=other: None if x is None else jax.device_put(x, p)
            masks = {"alive": alive, "forced": forced}
            masks = {name: [place(x) for x in found] for name, found in masks.items()}
            got = ranking.largest(placed, 40, **masks)
            for ours, theirs in zip(got, want, strict=True):
                np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("shapes", [[(2**16, 2**15)], [(2**15, 2**15)] * 7])
def test_networks_of_more_than_two_billion_weights_have_a_size(shapes):
    scores = {
        f"w{i}": jax.ShapeDtypeStruct(shape, jnp.bfloat16)
        for i, shape in enumerate(shapes)
    }
    for distribution in (masks.global_, masks.erk):
        cut = lambda s, r, d=distribution: masks.scored_masks(
            s, keep_ratio=r, distribution=d, min_keep_ratio=1e-3
        )
        abstract = jax.eval_shape(lambda s, d=cut: d(s, 0.05), scores)
        assert [m.shape for m in abstract.values()] == shapes
        jax.eval_shape(cut, scores, jax.ShapeDtypeStruct((), jnp.float32))


def test_an_array_of_four_billion_weights_is_refused():
    with pytest.raises(ValueError, match=r"2\*\*32 entries.*\(65536, 65536\)"):
        jax.eval_shape(
            lambda s: masks.top_k_masks(s, 5),
            jax.ShapeDtypeStruct((2**16, 2**16), jnp.bfloat16),
        )


@pytest.mark.usefixtures("compiles_as_users_do")
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_memory_beside_scores_and_masks_is_eight_bytes_for_each_score(dtype):
    score = jax.ShapeDtypeStruct((1024, 1024), dtype)
    cut = jax.jit(lambda s: masks.top_k_masks(s, 1000))
    used = cut.lower(score).compile().memory_analysis()
    assert used.temp_size_in_bytes <= 8.1 * 2**20
