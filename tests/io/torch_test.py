"""The layout of PyTorch: its own outputs, exact inverses, one message for all mistakes.

`tests/golden/record_torch_logits.py` recorded what PyTorch's layers compute.
"""

import functools
import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxprune import io
from tests.support.torch_weights import draw, inputs

GOLDEN = json.loads(
    (pathlib.Path(__file__).parent.parent / "golden" / "torch_layers.json").read_text()
)


class Flatten(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(3, (1, 1), name="conv")(x)
        return nn.Dense(4, name="dense")(x.reshape(x.shape[0], -1))


def attention_names():
    names = {}
    for part, layer in enumerate(("query", "key", "value")):
        for ours, theirs, summed in (("kernel", "weight", 1), ("bias", "bias", 0)):
            names[f"params/{layer}/{ours}"] = io.TorchTensor(
                f"in_proj_{theirs}", io.dense_general(summed), part
            )
    names["params/out/kernel"] = io.TorchTensor("out_proj.weight", io.dense_general(2))
    return names | {"params/out/bias": "out_proj.bias"}


PLAIN = {"params/kernel": "weight", "params/bias": "bias"}
# By the name of the layer in the golden file: Flax's layer, and names of its leaves.
LAYERS = {
    "linear": (nn.Dense(4), PLAIN),
    "conv1d": (nn.Conv(6, (3,), padding=1), PLAIN),
    "conv2d": (nn.Conv(6, (3, 2), strides=2, padding="VALID"), PLAIN),
    "conv3d": (nn.Conv(4, (3, 2, 2), padding="VALID"), PLAIN),
    "groups": (nn.Conv(6, (3, 3), padding="VALID", feature_group_count=2), PLAIN),
    "depthwise": (
        nn.Conv(8, (3, 3), padding="VALID", feature_group_count=4, use_bias=False),
        {"params/kernel": "weight"},
    ),
    "transposed": (
        nn.ConvTranspose(6, (3, 3), (2, 2), padding="VALID", transpose_kernel=True),
        PLAIN,
    ),
    "norm": (
        nn.BatchNorm(use_running_average=True),
        {
            "params/scale": "weight",
            "params/bias": "bias",
            "batch_stats/mean": "running_mean",
            "batch_stats/var": "running_var",
        },
    ),
    "embedding": (nn.Embed(5, 3), {"params/embedding": "weight"}),
    "flatten": (
        Flatten(),
        {
            "params/conv/kernel": "0.weight",
            "params/conv/bias": "0.bias",
            "params/dense/kernel": io.TorchTensor(
                "2.weight", io.after_flatten(3, 4, 5)
            ),
            "params/dense/bias": "2.bias",
        },
    ),
    "attention": (nn.MultiHeadDotProductAttention(2), attention_names()),
}


def layer(name):
    """A layer, its names, its inputs, its shapes and its tensors."""
    module, names = LAYERS[name]
    golden = GOLDEN[name]
    x = np.array([3, 1]) if golden["inputs"] is None else inputs(*golden["inputs"])
    like = jax.eval_shape(module.init, jax.random.key(0), x)
    tensors = {n: draw(n, tuple(shape)) for n, shape in golden["tensors"].items()}
    return module, names, x, like, tensors


@pytest.mark.parametrize("name", LAYERS)
def test_layers_compute_what_those_of_pytorch_do_and_come_back_to_the_bit(name):
    module, names, x, like, tensors = layer(name)
    variables = io.from_torch(tensors, names, like)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, like)
    wanted = np.array(GOLDEN[name]["outputs"])
    np.testing.assert_allclose(module.apply(variables, x), wanted, rtol=1e-5, atol=1e-5)
    back = io.to_torch(variables, names)
    assert set(back) == {n for n in tensors if n != "num_batches_tracked"}
    for key, array in back.items():
        np.testing.assert_array_equal(array, tensors[key])
        assert array.dtype == tensors[key].dtype
        assert array.flags.writeable
        assert array.flags.c_contiguous
    again = io.from_torch(back, names, like)
    jax.tree.map(np.testing.assert_array_equal, again, variables)


def test_every_recorded_layer_is_tested():
    assert set(GOLDEN) - {"versions"} == set(LAYERS)


def test_modules_of_nnx_are_trees_too():
    _, _, x, _, tensors = layer("conv2d")
    module = nnx.Conv(4, 6, (3, 2), strides=2, padding="VALID", rngs=nnx.Rngs(0))
    state = nnx.state(module, nnx.Param)
    nnx.update(
        module, io.from_torch(tensors, {"kernel": "weight", "bias": "bias"}, state)
    )
    wanted = np.array(GOLDEN["conv2d"]["outputs"])
    np.testing.assert_allclose(module(x), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(), (3,), (2, 3), (2, 1, 3)])
def test_a_flattened_map_may_have_any_number_of_axes(size, rng):
    maps = rng.normal(size=(5, 4, *size))  # channels first
    weight = rng.normal(size=(7, 4 * math.prod(size)))
    names = {"kernel": io.TorchTensor("w", io.after_flatten(4, *size))}
    like = {"kernel": np.zeros(weight.shape[::-1])}
    kernel = io.from_torch({"w": weight}, names, like)["kernel"]
    np.testing.assert_allclose(
        np.moveaxis(maps, 1, -1).reshape(5, -1) @ kernel,
        maps.reshape(5, -1) @ weight.T,
        rtol=1e-12,
        atol=1e-12,
    )
    np.testing.assert_array_equal(io.to_torch({"kernel": kernel}, names)["w"], weight)


def test_parts_of_different_sizes_are_joined_in_their_order(rng):
    joint = rng.normal(size=(8 + 2 + 2, 5))  # four heads of queries for one of keys
    names = {
        "value": io.TorchTensor("qkv", io.dense_general(1), 2),
        "query": io.TorchTensor("qkv", io.dense_general(1), 0),
        "key": io.TorchTensor("qkv", io.dense_general(1), 1),
    }
    like = {"key": np.ones((5, 1, 2)), "query": np.ones((5, 4, 2))}
    like["value"] = np.ones((5, 1, 2))
    tree = io.from_torch({"qkv": joint}, names, like)
    np.testing.assert_array_equal(tree["query"], joint[:8].T.reshape(5, 4, 2))
    np.testing.assert_array_equal(tree["value"], joint[10:].T.reshape(5, 1, 2))
    np.testing.assert_array_equal(io.to_torch(tree, names)["qkv"], joint)


DENSE = {"kernel": "fc.weight", "bias": "fc.bias"}


def dense(dtype=np.float32):
    return {
        "fc.weight": np.arange(6.0, dtype=dtype).reshape(2, 3),
        "fc.bias": np.ones(2),
    }


def blank(dtype=np.float32):
    return {"kernel": np.zeros((3, 2), dtype), "bias": np.zeros(2, dtype)}


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16, np.float32, np.float64])
def test_leaves_are_as_in_the_given_tree(dtype):
    like = blank(dtype)
    tree = io.from_torch(dense(), DENSE, like)
    assert all(isinstance(leaf, np.ndarray) for leaf in tree.values())
    assert {leaf.dtype for leaf in tree.values()} == {np.dtype(dtype)}
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, np.float32), like)
    tree = io.from_torch(dense(dtype), DENSE, like)
    assert all(isinstance(leaf, jax.Array) for leaf in tree.values())
    assert {leaf.dtype for leaf in tree.values()} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(tree["kernel"], dense()["fc.weight"].T)


def test_whole_numbers_keep_their_dtype():
    tensors, like = {"n": np.int64([2**40])}, {"count": np.zeros(1, np.int64)}
    found = io.from_torch(tensors, {"count": "n"}, like)["count"]
    assert found.dtype == np.int64
    assert found[0] == 2**40


def test_leaves_keep_their_shardings():
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2])
    sharding = NamedSharding(mesh, P(None, "data"))
    like = {"kernel": jax.device_put(np.zeros((3, 2), np.float32), sharding)}
    tree = io.from_torch({"w": np.ones((2, 3))}, {"kernel": "w"}, like)
    assert tree["kernel"].sharding == sharding


def test_the_result_shares_no_memory_with_the_tensors():
    tensors = {
        "fc.weight": np.ones((2, 3), np.float32),
        "fc.bias": np.ones(2, np.float32),
    }
    like = {"kernel": np.zeros((3, 2), np.float32), "bias": jnp.zeros(2)}
    tree = io.from_torch(tensors, DENSE, like)
    back = io.to_torch(tree, DENSE)
    for array in (*tensors.values(), *back.values()):
        array[...] = 7
    assert np.all(tree["kernel"] == 1)
    assert np.all(tree["bias"] == 1)


def test_both_directions_may_be_traced():
    names = {
        **{"kernel": "fc.weight", "bias": "fc.bias"},
        **{"a": io.TorchTensor("ab"), "b": io.TorchTensor("ab", part=1)},
    }
    tree = {**blank(), "a": np.ones((1, 2)), "b": np.ones((2, 2))}
    tree = jax.tree.map(jnp.asarray, tree)
    round_trip = jax.jit(lambda t: io.from_torch(io.to_torch(t, names), names, t))
    jax.tree.map(np.testing.assert_array_equal, round_trip(tree), tree)
    stacked = jax.tree.map(lambda x: jnp.stack([x, x + 1]), tree)
    vmapped = jax.vmap(lambda t: io.to_torch(t, names))(stacked)
    assert vmapped["fc.weight"].shape == (2, 2, 3)
    assert vmapped["ab"].shape == (2, 3, 2)
    slope = jax.grad(lambda t: io.to_torch(t, names)["fc.weight"][1, 2])(tree)
    assert slope["kernel"][2, 1] == 1


def test_scalars_numbers_and_empty_trees():
    assert io.from_torch({}, {}, {}) == {}
    assert io.to_torch({}, {}) == {}
    tree = io.from_torch({"s": np.float32(3)}, {"x": "s"}, {"x": 1.0})
    assert tree == {"x": 3.0}
    assert isinstance(tree["x"], float)
    assert io.to_torch({"x": jnp.float32(2)}, {"x": "s"})["s"].shape == ()
    empty = {"kernel": np.zeros((0, 4), np.float32)}
    assert io.to_torch(empty, {"kernel": "w"})["w"].shape == (4, 0)


def test_files_of_weights_are_a_way_to_exchange_them(tmp_path):
    path = tmp_path / "model.safetensors"
    io.save_weights(path, io.to_torch(io.from_torch(dense(), DENSE, blank()), DENSE))
    tensors, _ = io.load_weights(path)
    np.testing.assert_array_equal(tensors["fc.weight"], dense()["fc.weight"])


# ------------------------------------------------------------------------- mistakes


def test_all_mistakes_are_in_one_message():
    tensors = {
        "fc.weigth": np.ones((2, 3)),
        "fc.bias": np.ones(3),
        "step": np.int64(3),
        "bn.num_batches_tracked": np.int64(3),
    }
    names = {"kernel": "fc.weight", "biass": "other", "count": "step"}
    like = {**blank(), "count": np.float32(0), "scale": np.ones(2)}
    with pytest.raises(ValueError, match="from_torch") as error:
        io.from_torch(tensors, names, like)
    assert str(error.value).splitlines() == [
        "`from_torch(tensors, names, like)`: every leaf must be one tensor that fits "
        "it, and every tensor a leaf. Correct `names`, or name in `ignore` what is not "
        "needed.",
        "Leaves without a name, 2:",
        "  'bias'",
        "  'scale'",
        "Names of no leaf, 1:",
        "  'biass' (near: 'bias')",
        "Tensors that are missing, 1:",
        "  'fc.weight' for leaf 'kernel' (near: 'fc.weigth')",
        "Tensors that are left over, 2:",
        "  'fc.weigth'",
        "  'fc.bias'",
        "Tensors that do not fit, 1:",
        "  'step': dtype int64 where leaf 'count' has float32",
    ]


def test_long_lists_are_cut():
    like = {f"x{i}": np.ones(1) for i in range(300)}
    with pytest.raises(ValueError, match=r"(?s)without a name, 300.*and 292 more$"):
        io.from_torch({}, {}, like)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (np.ones((3, 2)), r"'w': shape \(3, 2\) where 'kernel' of \(3, 2\) must come"),
        (
            np.ones((2, 3, 1, 1)),
            r"shape \(2, 3, 1, 1\) where .* must come from \(2, 3\)",
        ),
        (np.ones((2, 3), np.int32), "dtype int32 where leaf 'kernel' has float32"),
        (np.ones((2, 3), complex), "dtype complex128"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tensor, message):
    like = {"kernel": np.zeros((3, 2), np.float32)}
    with pytest.raises(ValueError, match=message):
        io.from_torch({"w": tensor}, {"kernel": "w"}, like)


def test_layouts_that_do_not_fit_are_named():
    names = {"kernel": io.TorchTensor("w", io.after_flatten(4, 2))}
    tree = {"kernel": np.zeros((6, 2))}
    with pytest.raises(
        ValueError, match=r"do not fit.*\n.*layout does not fit leaf 'kernel'"
    ):
        io.from_torch({"w": np.ones((2, 6))}, names, tree)
    with pytest.raises(
        ValueError, match=r"cannot be made.*\n.*does not fit leaf 'kernel'"
    ):
        io.to_torch(tree, names)
    wrong = io.TorchLayout(lambda array, shape: array, lambda leaf: leaf.transpose())
    with pytest.raises(ValueError, match=r"gives \(2, 6\) where leaf 'kernel'"):
        io.from_torch(
            {"w": np.ones((2, 6))}, {"kernel": io.TorchTensor("w", wrong)}, tree
        )


@pytest.mark.parametrize(
    ("parts", "shapes"), [((0, 0), (2, 2)), ((0, 2), (2, 2)), ((1, 2), (2, 2))]
)
def test_a_tensor_is_read_once_part_by_part(parts, shapes):
    names = {
        leaf: io.TorchTensor("w", part=p) for leaf, p in zip("ab", parts, strict=True)
    }
    tree = {leaf: np.ones(n) for leaf, n in zip("ab", shapes, strict=True)}
    for call in (
        functools.partial(io.from_torch, {"w": np.ones(4)}, names, tree),
        functools.partial(io.to_torch, tree, names),
    ):
        with pytest.raises(ValueError, match=r"read once, part by part, 1:\n  'w': by"):
            call()


def test_parts_must_be_alike_but_for_their_first_axis():
    names = {"a": "w", "b": io.TorchTensor("w", part=1)}
    tree = {"a": np.ones((2, 3)), "b": np.ones((2, 4))}
    with pytest.raises(ValueError, match="are parts of the shapes"):
        io.to_torch(tree, names)
    with pytest.raises(ValueError, match=r"must come from \(4,\)"):
        io.from_torch({"w": np.ones(5)}, names, {"a": np.ones(2), "b": np.ones(2)})


def test_texts_and_values_of_other_types_are_refused():
    with pytest.raises(TypeError, match=r"`from_torch\(ignore='fc\.\*'\)`"):
        io.from_torch({}, {}, {}, ignore="fc.*")
    for call in (lambda n: io.from_torch({}, n, {}), lambda n: io.to_torch({}, n)):
        with pytest.raises(TypeError, match=r"names\['a'\] must be the name"):
            call({"a": ("w", None)})


def test_what_is_ignored_need_not_be_there_and_is_not_ignored_where_it_is_read():
    ignore = ["head.*", "*num_batches_tracked"]
    tensors = {**dense(), "head.weight": np.ones(3)}
    io.from_torch(tensors, DENSE, blank(), ignore=ignore)
    io.from_torch(dense(), DENSE, blank(), ignore=["fc.*"])
    with pytest.raises(ValueError, match=r"left over, 1:\n  'head.weight'"):
        io.from_torch(tensors, DENSE, blank())


class _Tensor:
    """As PyTorch's that need a gradient."""

    def __array__(self, *args, **kwargs):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.")


def test_tensors_that_are_no_arrays_are_named():
    with pytest.raises(
        ValueError, match=r"tensors\['w'\] must .*requires grad.*detach"
    ):
        io.from_torch({"w": _Tensor()}, {"a": "w"}, {"a": np.ones(1)})
