"""Primitives beside the products: the axes that they work on stay, the others pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxprune.channels import Function, random_channel_masks, trace_channels
from jaxprune.channels._flow.reasons import Reason
from jaxprune.channels._flow.registry import PRIMITIVES, register
from tests.support.channel_checks import as_dtype, quick_jit, relative_difference
from tests.support.rows import rows

CHANNELS, ROWS, TIME = 8, 4, 6
PLACES = jnp.array([0, 1, 2, 0])
PERMUTATION = np.random.default_rng(0).permutation(CHANNELS)


@pytest.fixture(autouse=True)
def numpy_rank_promotion():
    """Networks of others rely on it."""
    with jax.numpy_rank_promotion("allow"):
        yield


def _spd(h):
    """Positive definite matrices over time, one for each channel."""
    h = h.swapaxes(1, 2)
    return h[..., None] * h[..., None, :] + 2 * jnp.eye(TIME, dtype=h.dtype)


def _sharded(h):
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec(None, None, "d")
    return lax.with_sharding_constraint(h, jax.sharding.NamedSharding(mesh, spec))


def _experts(h):
    tokens = h.reshape(ROWS * TIME, CHANNELS)
    weights = jnp.arange(2.0 * CHANNELS * 3, dtype=h.dtype).reshape(2, CHANNELS, 3)
    return lax.ragged_dot(tokens, weights, jnp.array([7, ROWS * TIME - 7]))


def _windows_moved(h):
    return jax.vmap(lambda u, i: lax.dynamic_slice_in_dim(u, i, 2))(h, PLACES)


def _windows_written(h):
    cache = jnp.zeros((9, CHANNELS), h.dtype)
    write = lax.dynamic_update_slice_in_dim
    return jax.vmap(lambda u, i: write(cache, u, i, 0))(h, PLACES)


def _half_swapped(h):
    return jnp.concatenate([h[..., CHANNELS // 2 :], h[..., : CHANNELS // 2]], -1)


# Each takes activations (rows, time, channels) and keeps the channels last.
BYSTANDERS = {
    "device_put": jax.device_put,
    "optimization_barrier": lax.optimization_barrier,
    "sharding_constraint": _sharded,
    "set one row": lambda h: h.at[0].set(0.0),
    "set one step": lambda h: h.at[:, 2].set(h[:, 0]),
    "add to some rows": lambda h: h.at[PLACES].add(1.0),
    "multiply some rows": lambda h: h.at[PLACES[:2]].multiply(2.0),
    "largest of some rows": lambda h: h.at[PLACES[:2]].max(h[:2]),
    "set known channels": lambda h: h.at[..., 2:5].set(1.0),
    "set one channel": lambda h: h.at[..., 3].set(1.0),
    "segment_sum": lambda h: jax.ops.segment_sum(h, PLACES, 3),
    "write to a cache": lambda h: jnp.zeros((ROWS, 9, CHANNELS)).at[:, 3].set(h[:, 0]),
    "vmapped dynamic_slice": _windows_moved,
    "vmapped dynamic_update_slice": _windows_written,
    "vmapped roll": lambda h: jax.vmap(lambda u, i: jnp.roll(u, i, 0))(h, PLACES),
    "dynamic_slice of known channels": lambda h: jnp.pad(
        lax.dynamic_slice_in_dim(h, 2, 5, 2), ((0, 0), (0, 0), (0, 3))
    ),
    "dynamic_update_slice of known channels": lambda h: lax.dynamic_update_slice_in_dim(
        h, h[..., :3], 2, 2
    ),
    "permuted channels": lambda h: h[..., PERMUTATION],
    "halves of channels swapped": _half_swapped,
    "fft": lambda h: jnp.fft.rfft(h, axis=1).real,
    "cumulative sum": lambda h: jnp.cumsum(h, axis=1),
    "sort": lambda h: jnp.sort(h, axis=1),
    "argsort": lambda h: jnp.take_along_axis(h, jnp.argsort(h, axis=1), axis=1),
    "top_k": lambda h: lax.top_k(h.swapaxes(1, 2), 3)[0].swapaxes(1, 2),
    "cholesky": lambda h: jnp.linalg.cholesky(_spd(h))[..., 0].swapaxes(1, 2),
    "eigh": lambda h: jnp.linalg.eigh(_spd(h))[0].swapaxes(1, 2),
    "solve": lambda h: jnp.linalg.solve(2 * jnp.eye(TIME, dtype=h.dtype), h),
    "triangular_solve": lambda h: lax.linalg.triangular_solve(
        jnp.broadcast_to(jnp.tri(TIME, dtype=h.dtype), (ROWS, TIME, TIME)),
        h,
        left_side=True,
        lower=True,
    ),
    "reduce_window by any function": lambda h: lax.reduce_window(
        h, np.ones((), h.dtype)[()], lax.mul, (1, 2, 1), (1, 2, 1), "VALID"
    ),
    "reduce by any function": lambda h: lax.reduce(
        h, np.ones((), h.dtype)[()], lambda x, y: x * y, (1,)
    ),
    "mean over a vmapped axis": lambda h: jax.vmap(
        lambda row: row - lax.pmean(row, "rows"), axis_name="rows"
    )(h),
    "sum and largest over a vmapped axis": lambda h: jax.vmap(
        lambda row: sum(lax.psum((row, 2 * row), "rows")) + lax.pmax(row, "rows"),
        axis_name="rows",
    )(h),
    "dropout with a key of its own": lambda h: (
        h * jax.random.bernoulli(jax.random.key(0), 0.5, h.shape)
    ),
}


def case(bystander, dtype):
    draw = np.random.default_rng(0).normal
    params = {"a": draw(size=(5, CHANNELS)), "b": draw(size=(CHANNELS, 3))}
    params = as_dtype({k: jnp.asarray(v) for k, v in params.items()}, dtype)
    x = jnp.asarray(draw(size=(ROWS, TIME, 5)), dtype)

    def function(params, x):
        return bystander(jnp.tanh(x @ params["a"])) @ params["b"]

    return function, params, x


def pruned(function, params, x):
    """The graph, the small function and its parameters, the masked function."""
    graph = trace_channels(function, params, x)
    assert not graph.unknown
    masks = random_channel_masks(jax.random.key(1), graph, 0.5)
    return graph, graph.compact(masks, params), graph.masked(masks)


def assert_small_equals_masked(function, params, x, tolerance):
    graph, small, run = pruned(function, params, x)
    assert graph.groups
    both = quick_jit(lambda p, q, x: (small.apply_fn(p, x), run(q, x)))
    mine, theirs = both(small.trees[0], params, x)
    assert relative_difference(mine, theirs) <= tolerance
    return graph


SIZES = {
    "set one channel": [7],
    # Three are read by nobody, three weights read zeros.
    "dynamic_slice of known channels": [3, 5, 3],
    "dynamic_update_slice of known channels": [3],  # Four are written to others.
}


TOLERANCES = {"float32": 1e-5, "float64": 1e-12}


@pytest.mark.parametrize("dtype", rows(TOLERANCES, ["float64"]))
def test_bystanders_let_channels_pass(dtype):
    tolerance, dtype = TOLERANCES[dtype], jnp.dtype(dtype)
    with jax.enable_x64(dtype == jnp.float64):
        cases = {name: case(BYSTANDERS[name], dtype) for name in BYSTANDERS}
        made = {name: pruned(*cases[name]) for name in BYSTANDERS}
        for name, (graph, *_) in made.items():
            sizes = [group.size for group in graph.groups.values()]
            assert sizes == SIZES.get(name, [CHANNELS]), name
        _, params, x = cases["sort"]

        @quick_jit  # One program: compiling is what costs time here.
        def everything(smaller, params, x):
            return {
                name: (small.apply_fn(smaller[name], x), run(params, x))
                for name, (_, small, run) in made.items()
            }

        smaller = {name: small.trees[0] for name, (_, small, _) in made.items()}
        for name, (mine, theirs) in everything(smaller, params, x).items():
            assert relative_difference(mine, theirs) <= tolerance, name


def _scanned(h, step):
    """Run over time; the first step is the carry."""
    steps = h.swapaxes(0, 1)
    carry, stacked = lax.scan(step, steps[0], steps[1:])
    return h + carry[:, None], stacked


# With sizes that are symbolic, of rows and of time.
SYMBOLIC = {
    "scan": lambda h: _scanned(h, lambda c, x: (jnp.tanh(c + x), None))[0],
    "scan that only counts": lambda h: _scanned(h, lambda c, x: (jnp.tanh(c), None))[0],
    "what a scan stacks": lambda h: _scanned(h, lambda c, x: (x, c))[1],
    "map over rows": lambda h: lax.map(jnp.tanh, h),
    "loop over time": lambda h: lax.fori_loop(
        0, h.shape[1], lambda i, c: c.at[:, i].set(jnp.tanh(h[:, i])), h
    ),
    "dynamic_slice of known channels": BYSTANDERS["dynamic_slice of known channels"],
    "dynamic_update_slice of known channels": BYSTANDERS[
        "dynamic_update_slice of known channels"
    ],
}


def test_bystanders_pass_channels_of_arrays_of_symbolic_size():
    shape = jax.export.symbolic_shape("rows, time, 5", constraints=["time >= 2"])
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    made = {name: pruned(*case(SYMBOLIC[name], jnp.float32)) for name in SYMBOLIC}
    assert all(graph.groups for graph, *_ in made.values())
    _, params, _ = case(jnp.tanh, jnp.float32)

    @quick_jit
    def everything(x):
        return {
            name: (small.apply_fn(small.trees[0], x), run(params, x))
            for name, (_, small, run) in made.items()
        }

    program = jax.export.export(everything)(x)
    for shape in ((1, 3, 5), (3, 9, 5)):
        x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        for name, (mine, theirs) in program.call(x).items():
            assert relative_difference(mine, theirs) <= 1e-5, name


def test_experts_with_ragged_rows_are_products():
    for dtype, tolerance in ((jnp.float32, 1e-5), (jnp.float64, 1e-12)):
        with jax.enable_x64(dtype == jnp.float64):
            function, params, x = case(_experts, dtype)
            params["b"] = params["b"][:3]
            graph = assert_small_equals_masked(function, params, x, tolerance)
            assert graph.groups["a:1"].size == CHANNELS


@pytest.mark.parametrize(
    "function",
    [
        lambda h: jnp.cumsum(h, axis=2),
        lambda h: jax.vmap(lambda c: c - lax.pmean(c, "c"), 2, 2, axis_name="c")(h),
        lambda h: jnp.fft.rfft(h, n=CHANNELS * 2 - 2, axis=2).real,
        lambda h: h.at[..., PLACES * jnp.argmax(h)].set(0.0),
        lambda h: jnp.take(h, jnp.argsort(h[0, 0]), axis=2),
    ],
)
def test_axes_that_are_worked_on_stay(function):
    function, params, x = case(function, jnp.float32)
    graph = trace_channels(function, params, x)
    (pin,) = [p for p in graph.pinned if (p.leaf, p.axis) == ("a", 1)]
    assert pin.kind is Reason.READ_WHOLE
    assert not graph.unknown


def test_gradients_pass_bystanders_with_functions_of_their_own():
    function, params, x = case(BYSTANDERS["solve"], jnp.float32)
    graph = trace_channels(function, params, x)
    masks = random_channel_masks(jax.random.key(1), graph, 0.5)
    small, run = graph.compact(masks, params), graph.masked(masks)

    def loss(function):
        return lambda p: jnp.sum(function(p, x) ** 2)

    mine = jax.grad(loss(small.apply_fn))(small.trees[0])
    theirs = jax.grad(loss(run))(params)
    theirs = {k: v[np.ix_(*small.kept[k])] for k, v in theirs.items()}
    assert relative_difference(mine, theirs) <= 1e-5


# Constants.


def test_a_constant_couples_nothing():
    def network(p, x):
        ones = jnp.ones(8)
        y = jnp.tanh(x @ p["a"]) * ones @ p["b"]
        return jax.jit(lambda h, c: jnp.tanh(h @ p["d"]) * c)(y, ones) @ p["e"]

    shapes = {"a": (5, 8), "b": (8, 6), "d": (6, 8), "e": (8, 3)}
    draw = np.random.default_rng(0).normal
    params = {k: jnp.asarray(draw(size=s), jnp.float32) for k, s in shapes.items()}
    graph = assert_small_equals_masked(network, params, jnp.ones((2, 5)), 1e-5)
    assert {name: group.size for name, group in graph.groups.items()} == {
        **{"a:1": 8, "b:1": 6, "d:1": 8}
    }


@pytest.mark.parametrize(
    "make",
    [
        lambda: (jnp.arange(2.0)[:, None] * jnp.arange(1.0, 5.0)).reshape(8),
        lambda: jnp.repeat(jnp.arange(2.0), 4),
        lambda: jnp.tile(jnp.arange(4.0), 2),
        lambda: jnp.arange(8.0) / jnp.arange(8.0).sum(),
        lambda: jnp.cumsum(jnp.ones(8)),
        lambda: jnp.zeros(8).at[3].set(1.0),
        lambda: lax.scan(lambda c, _: (c + 1, c), 0.0, length=8)[1],
        lambda: jax.nn.relu(jnp.linspace(-1, 1, 8)),
        lambda: jax.random.normal(jax.random.key(0), (8,)),
    ],
)
def test_how_a_constant_is_made_does_not_matter(make):
    function, params, x = case(lambda h: h * make() + h + make(), jnp.float32)
    graph = assert_small_equals_masked(function, params, x, 1e-5)
    assert graph.groups["a:1"].size == CHANNELS


def test_an_array_that_repeats_couples_nothing_where_it_does():
    def network(p, x):
        mask = jnp.broadcast_to(x.mean(1, keepdims=True), (8, 8))
        y = jnp.tanh(x @ p["a"]) * mask @ p["b"]
        return jax.jit(lambda h, mask: jax.nn.relu(h @ p["d"]) * mask)(y, mask) @ p["e"]

    shapes = {"a": (5, 8), "b": (8, 6), "d": (6, 8), "e": (8, 3)}
    draw = np.random.default_rng(0).normal
    params = {k: jnp.asarray(draw(size=s), jnp.float32) for k, s in shapes.items()}
    x = jnp.asarray(draw(size=(8, 5)), jnp.float32)  # some units are active
    graph = assert_small_equals_masked(network, params, x, 1e-5)
    assert {name: group.size for name, group in graph.groups.items()} == {
        **{"a:1": 8, "b:1": 6, "d:1": 8}
    }


def test_constants_pass_loops_and_derivatives():
    def network(p, x):
        scale = jnp.arange(1.0, 9.0)

        def step(h, w):
            return jax.nn.relu(h @ w * scale), None

        return lax.scan(step, jnp.tanh(x @ p["a"]) * scale, p["w"])[0] @ p["b"]

    draw = np.random.default_rng(0).normal
    shapes = {"a": (5, 8), "w": (3, 8, 8), "b": (8, 3)}
    params = {k: jnp.asarray(draw(size=s), jnp.float32) for k, s in shapes.items()}
    x = jnp.asarray(draw(size=(8, 5)), jnp.float32)  # some units are active
    graph = assert_small_equals_masked(network, params, x, 1e-5)
    assert [group.size for group in graph.groups.values()] == [8]


# Dead code, and leaves without use.


def attention_model(p, x):
    h = jax.nn.relu(x @ p["a"])
    return {"logits": h @ p["b"], "attention": jax.nn.softmax(h), "aux": h @ p["z"]}


def debugged(p, x):
    h = jax.nn.relu(x @ p["a"])
    jax.debug.print("{}", h.mean())
    jax.debug.callback(lambda _: None, h)
    return h @ p["b"]


def debugged_loop(p, x):
    def step(i, h):
        jax.debug.print("{}", h.mean())
        return h + i

    return lax.fori_loop(0, 3, step, jax.nn.relu(x @ p["a"])) @ p["b"]


@pytest.mark.parametrize(
    "function",
    [
        lambda p, x: attention_model(p, x)["logits"],
        lambda p, x: jax.jit(attention_model)(p, x)["logits"],
        lambda p, x: jax.checkpoint(attention_model)(p, x)["logits"],
        lambda p, x: lax.cond(x[0, 0] > 0, attention_model, attention_model, p, x)[
            "logits"
        ],
        debugged,
        debugged_loop,
        lambda p, x: jax.jit(debugged)(p, x),
    ],
)
def test_dead_code_neither_pins_nor_counts(function):
    from jaxprune.costs import macs

    params = {"a": jnp.ones((5, 8)), "b": jnp.ones((8, 3)), "z": jnp.ones((8, 99))}
    graph = assert_small_equals_masked(function, params, jnp.ones((4, 5)), 1e-5)
    assert {name: group.size for name, group in graph.groups.items()} == {"a:1": 8}
    assert macs(graph).dense == 4 * 5 * 8 + 4 * 8 * 3
    unused = [p for p in graph.pinned if p.leaf == "z"]
    assert {p.kind for p in unused} == {Reason.UNUSED}
    assert unused[0].reason == "the program does not use it"


def test_leaves_that_nothing_uses_stay_whole():
    def function(tree, x):
        h = jax.nn.relu(x @ tree["params"]["a"] * tree["state"]["average"])
        logits = h @ tree["params"]["b"][:, :3]
        return logits, {"state": tree["state"]}  # Returned as it came.

    tree_of = {
        "params": {"a": jnp.ones((5, 8)), "b": jnp.ones((8, 7)), "aux": jnp.ones(8)},
        "state": {"average": jnp.ones(8), "hidden": jnp.ones(8)},
    }
    graph = trace_channels(function, tree_of, jnp.ones((4, 5)))
    (group,) = graph.groups.values()
    members = {(member.leaf, member.axis) for member in group.members}
    assert members == {("params/a", 1), ("params/b", 0), ("state/average", 0)}
    unused = {(p.leaf, p.axis): len(p.indices) for p in graph.pinned if _unused(p)}
    assert unused == {("params/aux", 0): 8, ("state/hidden", 0): 8, ("params/b", 1): 4}


def _unused(pin):
    return pin.kind is Reason.UNUSED


def test_a_leaf_that_one_function_uses_follows_it_in_the_others():
    def average(tree, x):
        return jax.nn.relu(x @ tree["a"] * tree["average"]) @ tree["b"]

    def hidden(tree, x):
        return jax.nn.relu(x @ tree["a"] * tree["hidden"]) @ tree["b"]

    tree_of = {"a": jnp.ones((5, 8)), "b": jnp.ones((8, 3))}
    tree_of |= {"average": jnp.ones(8), "hidden": jnp.ones(8)}
    x = jnp.ones((4, 5))
    functions = {"eval": average, "train": Function(hidden, (x,))}
    graph = trace_channels(functions, tree_of, x)
    (group,) = graph.groups.values()
    small = graph.compact({group.name: np.arange(8) < 3}, tree_of)
    assert small.trees[0]["hidden"].shape == small.trees[0]["average"].shape == (3,)
    for function in small.functions.values():
        assert function(small.trees[0], x).tolist() == [[15.0] * 3] * 4


# Outputs that are updated leaves.


def renamed(p, x):
    h = jax.nn.relu(x @ p["a"]) @ p["mean"]
    return {"mean": h, "y": jnp.tanh(h) @ p["b"]}


def test_an_output_named_like_a_leaf_keeps_its_shape():
    params = {"a": jnp.ones((8, 12)), "mean": jnp.ones((12, 5)), "b": jnp.ones((5, 3))}
    x = jnp.ones((12, 8))
    for function in (renamed, lambda p, x: (x, renamed(p, x))):
        graph = trace_channels(function, params, x)
        assert {n: group.size for n, group in graph.groups.items()} == {"a:1": 12}


@pytest.mark.parametrize(
    ("updated", "wrap"),
    [
        (None, lambda y, state: (y, {"batch_stats": state})),
        ({"1": "batch_stats"}, lambda y, state: (y, state)),
        ({"new": "batch_stats"}, lambda y, state: {"new": state, "y": y}),
        ({"0/a/mean": "batch_stats/mean"}, lambda y, s: ({"a": s}, y)),
    ],
)
def test_updated_statistics_shrink_where_they_are_declared(updated, wrap):
    def function(variables, x):
        h = x @ variables["params"]["a"]
        mean = 0.9 * variables["batch_stats"]["mean"] + 0.1 * h.mean(0)
        return wrap((h - mean) @ variables["params"]["b"], {"mean": mean})

    variables = {
        "params": {"a": jnp.ones((5, 8)), "b": jnp.ones((8, 3))},
        "batch_stats": {"mean": jnp.ones(8)},
    }
    x = jnp.ones((4, 5))
    graph = trace_channels(function, variables, x, updated=updated)
    (group,) = graph.groups.values()
    masks = {group.name: np.arange(8) < 3}
    small = graph.compact(masks, variables)
    shapes = [y.shape for y in jax.tree.leaves(small.apply_fn(small.trees[0], x))]
    assert sorted(shapes) == [(3,), (4, 3)]
    if updated is not None:
        assert not trace_channels(function, variables, x, updated={}).groups


# Reasons.


def test_equations_of_an_unknown_layout_pin_with_the_reason(monkeypatch):
    def flow(flow, site, *values):
        return site.params["numbers_of_a_later_version"]

    monkeypatch.setitem(PRIMITIVES, "sin", PRIMITIVES["sin"]._replace(flow=flow))
    function, params, x = case(jnp.sin, jnp.float32)
    graph = trace_channels(function, params, x)
    (pin,) = [p for p in graph.pinned if (p.leaf, p.axis) == ("a", 1)]
    assert pin.kind is Reason.NO_RULE
    assert "`sin` lacks the parameter numbers_of_a_later_version" in pin.reason
    assert "sin" in graph.unknown


def test_a_primitive_has_one_record():
    with pytest.raises(ValueError, match="must have no rule yet"):
        register("sin", PRIMITIVES["cos"])


def test_keys_that_are_inputs_are_no_missing_rules():
    def function(p, x, key):
        h = jnp.tanh(x @ p["a"])
        return (
            h
            * jax.random.bernoulli(jax.random.wrap_key_data(key), 0.5, h.shape)
            @ (p["b"])
        )

    params = {"a": jnp.ones((5, 8)), "b": jnp.ones((8, 3))}
    key = jax.random.key_data(jax.random.key(0))
    graph = trace_channels(function, params, jnp.ones((4, 5)), key)
    assert not graph.unknown
    assert graph.groups["a:1"].size == 8


def test_norm_groups_over_depthwise_channels_are_units():
    def depthwise(x, w):
        return lax.conv_general_dilated(
            *(x, w, (1, 1), "SAME"),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=x.shape[-1],
        )

    def function(p, x):
        h = depthwise(depthwise(x, p["w0"]), p["w1"])
        h = h.reshape(2, 3, 3, 4, 8)
        h = (h - h.mean((1, 2, 4), keepdims=True)).reshape(2, 3, 3, 32)
        return jax.nn.relu(h).mean((1, 2)) @ p["out"]

    shapes = {"c": (3, 8), "w0": (3, 3, 1, 32), "w1": (3, 3, 1, 32), "out": (32, 3)}
    params = {k: jnp.ones(s) for k, s in shapes.items()}
    graph = trace_channels(
        lambda p, x: function(p, x @ p["c"]), params, jnp.ones((2, 3, 3, 3))
    )
    assert [group.size for group in graph.groups.values()] == [4]
    assert all("never shrinks" not in pin.reason for pin in graph.pinned)


def test_updated_leaves_that_are_not_there_are_refused():
    function, params, x = case(jnp.tanh, jnp.float32)
    with pytest.raises(ValueError, match=r"`trace_channels\(updated=.*'state'"):
        trace_channels(function, params, x, updated={"1": "state"})
