"""Statistics of what weights see, against NumPy and against the product itself."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxprune.calibration import calibrate, calibrator, input_norms

RNG = np.random.default_rng(0)


def _draw(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def _check(inputs, rows, which=...):
    """Compare sums with those of rows, shape (rows, matrices, inputs)."""
    rows = np.asarray(rows, np.float64)
    rows = rows if rows.ndim == 3 else rows.reshape(-1, 1, rows.shape[-1])
    close = {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(inputs.square_sum[which], (rows**2).sum(0), **close)
    np.testing.assert_allclose(inputs.abs_sum[which], abs(rows).sum(0), **close)
    np.testing.assert_array_equal(inputs.count[which], len(rows))
    gram = np.einsum("rgk,rgl->gkl", rows, rows)
    np.testing.assert_allclose(inputs.gram[which], gram, **close)


def test_sums_over_batches_are_those_of_all_rows():
    x, params = _draw(3, 5, 6), {"w": _draw(6, 4)}
    statistics = calibrate(lambda p, x: x @ p["w"], params, [x, 2 * x], gram=True)
    (inputs,) = statistics.inputs["w"]
    _check(inputs, np.concatenate([x.reshape(-1, 6), 2 * x.reshape(-1, 6)]))
    norms = input_norms(statistics)["w"]
    assert norms.shape == (6, 4)
    np.testing.assert_allclose(norms[:, 1], np.sqrt(inputs.square_sum[0]), rtol=1e-6)


@pytest.mark.parametrize("spec", ["bthd,hdo->bto", "gecd,edf->gecf", "bi,oi->bo"])
def test_einsums_of_several_axes_are_products_of_their_matrices(spec):
    sizes = dict(zip("bthdogecfi", (2, 3, 4, 5, 6, 2, 3, 4, 5, 6), strict=True))
    left, right, _ = spec.replace("->", ",").split(",")
    x = _draw(*(sizes[c] for c in left))
    w = _draw(*(sizes[c] for c in right))
    statistics = calibrate(lambda w, x: jnp.einsum(spec, x, w), w, [x], gram=True)
    (inputs,), (use,) = statistics.inputs[""], statistics.uses[""]
    batch = "e" if "e" in left else ""
    inner = [c for c in right if c in left and c not in batch]
    rows = np.einsum(
        f"{left}->{''.join(c for c in left if c not in right)}{batch}{''.join(inner)}",
        x,
    )
    size = math.prod(sizes[c] for c in inner)
    rows = rows.reshape(-1, sizes[batch] if batch else 1, size)
    _check(inputs, rows)
    np.testing.assert_array_equal(use.leaf(use.matrices(w)), w)
    assert use.matrices(w).shape[1] == size


CONVOLUTIONS = {
    "same": {},
    "groups": {"feature_group_count": 2, "strides": 2, "padding": "VALID"},
    "depthwise": {"feature_group_count": 4, "kernel_dilation": 2},
    "transposed": {"strides": 2, "padding": [(2, 1), (0, 3)], "input_dilation": 2},
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_rows_of_a_convolution_are_its_patches(name):
    layer = nn.Conv(8, (3, 2), use_bias=False, **CONVOLUTIONS[name])
    x = _draw(2, 7, 6, 4)
    variables = jax.jit(layer.init)(jax.random.key(0), x)
    kernel = variables["params"]["kernel"]
    groups = layer.feature_group_count
    apply = jax.jit(layer.apply)
    # What one tap and channel of a kernel sees is what a kernel of a single one gives.
    rows = []
    for place in itertools.product(*map(range, kernel.shape[:3])):
        one = jnp.zeros_like(kernel).at[place].set(1)
        seen = apply({"params": {"kernel": one}}, x)
        rows.append(np.asarray(seen).reshape(-1, groups, 8 // groups)[..., 0])
    rows = np.stack(rows, axis=-1)
    statistics = calibrate(layer.apply, variables, [x], gram=True)
    (inputs,) = statistics.inputs["params/kernel"]
    (use,) = statistics.uses["params/kernel"]
    _check(inputs, rows)
    outputs = np.einsum("rgk,gko->rgo", rows, use.matrices(kernel))
    want = np.asarray(apply(variables, x)).reshape(len(rows), groups, -1)
    np.testing.assert_allclose(outputs, want, atol=1e-5)
    np.testing.assert_array_equal(use.leaf(use.matrices(kernel)), kernel)


def _deep(params, x):
    """Scans, remat, loops, branches, a table that is looked up and multiplied."""

    @jax.checkpoint
    def layer(h, w):
        return jnp.tanh(jnp.einsum("bi,io->bo", h, w)), None

    x = x + params["table"][jnp.zeros(len(x), jnp.int32)]
    h, _ = jax.lax.scan(layer, x, params["layers"])
    h = jax.lax.fori_loop(0, 3, lambda i, h: jnp.tanh(h @ params["loop"]), h)
    state = (0, h)
    step = lambda s: (s[0] + 1, jnp.tanh(s[1] @ params["while"]))
    _, h = jax.lax.while_loop(lambda s: s[0] < 2, step, state)
    left, right = lambda h: h @ params["left"], lambda h: h @ params["right"]
    h = jax.lax.cond(jnp.sum(h) < 1e6, left, right, h)
    return jax.jit(lambda h, t: h @ t.T)(h, params["table"])


DEEP = {
    "layers": _draw(3, 4, 4),
    **{name: _draw(4, 4) for name in ("loop", "while", "left", "right")},
    "table": _draw(7, 4),
}


def test_scans_loops_branches_and_calls_are_entered():
    x = _draw(8, 4)
    statistics = calibrate(_deep, DEEP, [x], gram=True)
    seen = {name: sums[0] for name, sums in statistics.inputs.items()}
    h = np.asarray(x + DEEP["table"][:1], np.float64)
    for layer in range(3):
        _check(seen["layers"], h, layer)
        h = np.tanh(h @ DEEP["layers"][layer])
    for name, steps in (("loop", 3), ("while", 2)):
        rows = []
        for _ in range(steps):
            rows.append(h)
            h = np.tanh(h @ DEEP[name])
        _check(seen[name], np.concatenate(rows))
    _check(seen["left"], h)
    assert not np.any(seen["right"].gram)
    assert not np.any(seen["right"].count)
    _check(seen["table"], h @ DEEP["left"])


def test_leaves_are_followed_through_layout_masks_and_casts():
    x = _draw(8, 4)

    def network(p, x):
        mask = (p["masked"] > 0).astype(jnp.float32)
        q, k = jnp.split(p["cut"], 2, axis=1)
        both = jnp.concatenate([p["up"], p["down"]], axis=0)
        return (
            x @ (p["masked"] * mask).astype(jnp.bfloat16).astype(jnp.float32),
            x @ q + (2 * x) @ k,
            jnp.concatenate([x, 3 * x], axis=-1) @ both,
            jax.vmap(lambda w, x: x @ w, in_axes=(2, 0))(
                p["heads"], jnp.stack([x, -x])
            ),
            x @ p["shared"] + (4 * x) @ p["shared"],
            x @ (p["a"] @ p["b"]),
            x * p["bias"],
        )

    shapes = {"masked": (4, 3), "cut": (4, 6), "up": (4, 2), "down": (4, 2)}
    shapes |= {"heads": (4, 3, 2), "shared": (4, 2), "a": (4, 1), "b": (1, 4)}
    shapes["bias"] = (1, 4)
    params = {name: _draw(*shape) for name, shape in shapes.items()}
    statistics = calibrate(network, params, [x])
    norms = jax.jit(input_norms)(statistics)
    size = np.linalg.norm(np.asarray(x, np.float64), axis=0)[:, None]
    ones = np.ones((1, 3))
    close = lambda name, want: np.testing.assert_allclose(norms[name], want, rtol=1e-5)
    close("masked", size * ones)
    close("cut", np.concatenate([size * ones, 2 * size * ones], axis=1))
    close("up", size * np.ones((1, 2)))
    close("down", 3 * size * np.ones((1, 2)))
    close("heads", np.broadcast_to(size[..., None], (4, 3, 2)))
    close("shared", np.sqrt(17) * size * np.ones((1, 2)))
    assert set(statistics.missing) == {"a", "b", "bias"}
    assert [len(statistics.inputs[name]) for name in ("cut", "shared")] == [2, 1]
    assert not statistics.uses["masked"][0].view.exact
    assert "nothing of 'a': multiplied with other weights" in str(statistics)


def test_ragged_products_count_the_rows_of_each_group():
    x, sizes = _draw(8, 4), jnp.array([3, 0, 5])
    network = lambda w, x: jax.lax.ragged_dot(x, w, sizes)
    (inputs,) = calibrate(network, _draw(3, 4, 2), [x], gram=True).inputs[""]
    for group, rows in enumerate((x[:3], x[3:3], x[3:])):
        one = jax.tree.map(lambda leaf, g=group: leaf[g], inputs)
        np.testing.assert_allclose(one.gram, rows.T @ rows, atol=1e-5)
        np.testing.assert_allclose(one.square_sum, np.sum(rows**2, axis=0), atol=1e-5)
        np.testing.assert_allclose(one.abs_sum, np.sum(abs(rows), axis=0), atol=1e-5)
        assert one.count == len(rows)


def test_modules_of_nnx_and_recurrent_ones_of_linen():
    model = nnx.MultiHeadAttention(2, 4, rngs=nnx.Rngs(0), decode=False)
    graph, state = nnx.split(model)
    x = _draw(3, 5, 4)
    seen = calibrate(lambda s, x: nnx.merge(graph, s)(x), state, [x], gram=True).inputs
    assert set(seen) == {f"{name}/kernel" for name in ("query", "key", "value", "out")}
    _check(seen["query/kernel"][0], x.reshape(-1, 4))
    rnn = nn.RNN(nn.SimpleCell(5))
    variables = jax.jit(rnn.init)(jax.random.key(0), x)
    seen = calibrate(rnn.apply, variables, [x], gram=True).inputs
    _check(seen["params/cell/i/kernel"][0], x.reshape(-1, 4))
    assert seen["params/cell/h/kernel"][0].count.tolist() == [15]


def test_low_precision_is_summed_in_float32_and_double_in_double():
    x = jnp.full((3000, 1), 1.01, jnp.bfloat16)
    network = lambda w, x: x @ w
    w = jnp.ones((1, 1), jnp.bfloat16)
    (inputs,) = calibrate(network, w, [x], gram=True).inputs[""]
    want = 3000 * float(x[0, 0]) ** 2
    np.testing.assert_allclose(inputs.square_sum, [[want]], rtol=1e-5)
    np.testing.assert_allclose(inputs.gram, [[[want]]], rtol=1e-5)
    with jax.enable_x64(True):
        (inputs,) = calibrate(network, np.ones((1, 1)), [np.ones((2, 1))]).inputs[""]
        assert inputs.square_sum.dtype == jnp.float64


def _assert_equal(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), got, want)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_sharded_batches_are_summed_whole(kind):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(kind,))
    x = _draw(8, 4)
    network = lambda p, x: jnp.tanh(x @ p["loop"]) @ p["left"]
    want = calibrate(network, DEEP, [x], gram=True)
    with jax.set_mesh(mesh):
        sharded = jax.device_put(x, NamedSharding(mesh, P("data")))
        whole = jax.device_put(DEEP, NamedSharding(mesh, P()))
        _assert_equal(calibrate(network, whole, [sharded], gram=True), want)


@pytest.mark.parametrize("check", [True, False])
def test_shards_of_a_batch_are_added_over_the_mapped_axis(check):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    x = _draw(8, 4)
    network = lambda p, x: _deep({**p, "right": p["left"]}, x)
    begin = calibrator(network, gram=True).init(DEEP, x)
    step = calibrator(network, gram=True, axis_name="data").update
    mapped = jax.shard_map(
        step,
        mesh=mesh,
        in_specs=(P(), P(), P("data")),
        out_specs=P(),
        check_vma=check,
    )
    _assert_equal(
        jax.jit(mapped)(begin, DEEP, x), calibrate(network, DEEP, [x], gram=True)
    )


def test_init_and_update_are_pure_and_compile_once():
    x = _draw(8, 4)
    calibration = calibrator(_deep, where=("l*", "table"))
    begin = calibration.init(jax.eval_shape(lambda: DEEP), jax.eval_shape(lambda: x))
    assert set(begin.inputs) == {"layers", "loop", "left", "table"}
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(begin))
    update = jax.jit(calibration.update)
    once = update(begin, DEEP, x)
    twice = update(once, DEEP, x)
    update(calibration.init(DEEP, x), DEEP, x)
    assert update._cache_size() == 1
    _assert_equal(twice, calibrate(_deep, DEEP, [x, x], where=("l*", "table")))


def test_statistics_cost_less_than_a_third_of_a_forward_pass(compiles_as_users_do):
    x = jax.ShapeDtypeStruct((4, 16, 16, 3), jnp.float32)
    network = nn.Sequential(
        [
            nn.Conv(16, (3, 3)),
            nn.Conv(32, (1, 1)),
            nn.Conv(32, (3, 3), feature_group_count=32),
            nn.Conv(16, (1, 1)),
            nn.Conv(16, (3, 3)),
        ]
    )
    variables = jax.eval_shape(network.init, jax.random.key(0), x)
    calibration = calibrator(network.apply)
    begin = calibration.init(variables, x)
    flops = [
        jax.jit(fn).lower(*args).compile().cost_analysis()["flops"]
        for fn, args in (
            (network.apply, (variables, x)),
            (calibration.update, (begin, variables, x)),
        )
    ]
    assert flops[1] < 1.3 * flops[0]


def test_what_is_not_followed_is_named_with_the_reason():
    def network(p, x):
        x = jax.lax.fori_loop(0, 3, lambda i, x: jnp.tanh(x @ p["layers"][i]), x)
        return x + p["table"][jnp.argmax(x, axis=1)]

    missing = calibrate(network, DEEP, [_draw(8, 4)], where=("layers", "table")).missing
    assert "cut where the program says, by `dynamic_slice`" in missing["layers"]
    assert "looked up by values that depend on the inputs" in missing["table"]
    assert not calibrate(lambda p, x: x, {}, [_draw(2)]).inputs


def test_misuse_is_refused():
    x = _draw(2, 4)
    calibration = calibrator(lambda p, x: x @ p["loop"], where="loop")
    other = calibrator(lambda p, x: x @ p["left"], where="left").init(DEEP, x)
    with pytest.raises(ValueError, match=r"with \['loop'\]; got those of \['left'\]"):
        calibration.update(other, DEEP, x)
    with pytest.raises(ValueError, match="at least one batch"):
        calibrate(lambda p, x: x @ p["loop"], DEEP, [])
    with pytest.raises(TypeError, match="must be a function"):
        calibrator(3)
    with pytest.raises(ValueError, match="must be 1 or 2"):
        input_norms(other, order=3)


@pytest.mark.parametrize(
    "passed",
    [
        jax.lax.optimization_barrier,
        jax.lax.stop_gradient,
        lambda x: checkpoint_name(x, "weights"),
        lambda x: jax.lax.reduce_precision(x, 8, 10),
        lambda x: jax.device_put(x, jax.devices()[0]),
    ],
    ids=["barrier", "stop_gradient", "name", "precision", "device"],
)
def test_a_weight_that_is_passed_on_is_followed_as_it_is(passed):
    x, params = _draw(8, 4), {"w": _draw(4, 3)}
    plain = calibrate(lambda p, x: x @ p["w"], params, [x])
    found = calibrate(lambda p, x: x @ passed(p["w"]), params, [x])
    _assert_equal(found.inputs["w"], plain.inputs["w"])
    assert found.uses["w"][0].view.exact
