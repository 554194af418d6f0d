"""Files that leave the library."""

import itertools
import json
import os
import struct
import subprocess
import sys
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprune import io
from jaxprune.channels import random_channel_masks, trace_channels
from jaxprune.masks import apply_masks, top_k_masks
from tests.support import architectures
from tests.support.channel_checks import size
from tests.support.rows import rows

RUN = """
import sys, numpy as np, jax.export
program = jax.export.deserialize(open(sys.argv[1], "rb").read())
np.save(sys.argv[3], program.call(np.load(sys.argv[2])))
loaded = [name for name in sys.modules if name.split(".")[0] in ("jaxprune", "flax")]
assert not loaded, loaded
"""


def small_network(name):
    function, variables, (x,) = architectures.architectures()[name]()
    graph = trace_channels(function, variables, x)
    masks = random_channel_masks(jax.random.key(0), graph, 0.5)
    return graph.compact(masks, variables), x


@pytest.mark.parametrize(
    "name",
    rows(
        ["resnet18", "mlp", "mobilenet_v3", "groupnorm_resnet", "gpt"],
        ["mlp", "gpt"],
    ),
)
def test_programs_take_any_number_of_examples(name):
    small, x = small_network(name)
    data = io.export_program(small.apply_fn, small.trees[0], x)
    program = jax.export.deserialize(bytearray(data))
    assert set(program.platforms) == {"cpu", "cuda"}
    for count in (1, 2, 6):
        images = jnp.concatenate([x, x, x])[:count]
        want = jax.jit(small.apply_fn)(small.trees[0], images)
        np.testing.assert_allclose(program.call(images), want, rtol=1e-4, atol=1e-5)


def test_programs_run_in_a_fresh_process(tmp_path):
    small, x = small_network("resnet18")
    data = io.export_program(small.apply_fn, small.trees[0], x)
    (tmp_path / "net").write_bytes(data)
    np.save(tmp_path / "x.npy", x)
    names = [str(tmp_path / name) for name in ("net", "x.npy", "y.npy")]
    subprocess.run([sys.executable, "-c", RUN, *names], check=True, cwd=tmp_path)
    want = jax.jit(small.apply_fn)(small.trees[0], x)
    np.testing.assert_allclose(np.load(names[2]), want, rtol=1e-4, atol=1e-5)


def wide_network():
    """About 4 MB of float32, in which half of the channels are removed."""
    sizes = (64, 700, 800, 500, 10)
    params = {
        f"w{i}": jax.random.normal(jax.random.key(i), shape) / shape[0] ** 0.5
        for i, shape in enumerate(itertools.pairwise(sizes))
    }

    def mlp(params, x):
        for i in range(3):
            x = jnp.tanh(x @ params[f"w{i}"])
        return x @ params["w3"]

    x = jnp.ones((1, 64))
    graph = trace_channels(mlp, params, x)
    masks = random_channel_masks(jax.random.key(9), graph, 0.5)
    return mlp, params, graph.compact(masks, params), x


def folder_size(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_files_shrink_as_the_parameters_do(tmp_path):
    mlp, params, small, x = wide_network()
    (tree,) = small.trees
    ratio = size(tree) / size(params)
    assert 0.25 < ratio < 0.3
    sizes = {
        "checkpoint": [
            folder_size(io.save(tmp_path / name, 0, one))
            for name, one in (("small", tree), ("dense", params))
        ],
        "program": [
            len(io.export_program(f, p, x))
            for f, p in ((small.apply_fn, tree), (mlp, params))
        ],
        "weights": [
            io.save_weights(tmp_path / "weights", one) for one in (tree, params)
        ],
    }
    for name, (after, before) in sizes.items():
        assert abs(after / before / ratio - 1) < 0.03, (name, after, before)


def test_a_sparse_file_is_a_tenth_of_the_dense_one(tmp_path):
    _, params, _, _ = wide_network()
    scores = jax.tree.map(jnp.abs, params)
    pruned = apply_masks(params, top_k_masks(scores, size(params) // 20))
    sparse = io.save_sparse(tmp_path / "sparse", pruned)
    # One bit for every weight, 32 for each of the 5 % left: 0.081 of float32.
    assert 0.08 < sparse / (4 * size(params)) < 0.085
    loaded = io.load_sparse(tmp_path / "sparse")
    for name, leaf in pruned.items():
        assert loaded[name].tobytes() == np.asarray(leaf).tobytes()


def test_scalar_inputs_cannot_be_exported():
    with pytest.raises(ValueError, match=r"inputs\[0\] is a scalar"):
        io.export_program(lambda p, x: x, {}, jnp.float32(1))


def test_weights_come_back_with_original_indices(tmp_path):
    small, _ = small_network("resnet18")
    size = io.save_weights(tmp_path / "w.safetensors", small.trees[0], small.kept)
    assert size == (tmp_path / "w.safetensors").stat().st_size
    arrays, kept = io.load_weights(tmp_path / "w.safetensors")
    for (name, indices), leaf in zip(
        small.kept.items(), jax.tree.leaves(small.trees[0]), strict=True
    ):
        np.testing.assert_array_equal(arrays[name], leaf)
        for axis, left in enumerate(indices):
            if name in kept and kept[name][axis] is not None:
                assert kept[name][axis] == left.tolist()
            else:
                assert left.tolist() == list(range(leaf.shape[axis]))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_sparse_files_are_small_and_exact(tmp_path, rng, dtype):
    dense = rng.standard_normal((300, 400)).astype(jnp.dtype(dtype))
    pruned = np.where(rng.random(dense.shape) < 0.05, dense, 0).astype(dense.dtype)
    pruned[0, :3] = [-0.0, np.inf, np.nan]
    params = {"a": {"w": pruned}, "b": dense, "n": np.int32(3), "m": pruned != 0}
    size = io.save_sparse(tmp_path / "s", params)
    arrays = io.load_sparse(tmp_path / "s")
    for name, want in (("a/w", pruned), ("b", dense), ("m", pruned != 0)):
        assert arrays[name].dtype == want.dtype
        assert arrays[name].tobytes() == want.tobytes()
    assert arrays["n"] == 3
    if dtype == "float32":
        alone = io.save_sparse(tmp_path / "alone", {"w": pruned})
        assert alone <= 0.10 * pruned.nbytes
    assert size < sum(np.asarray(x).nbytes for x in jax.tree.leaves(params))


# Files from strangers.


def _file(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def _entry(dtype, shape, start, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def _sparse(shape, mask, values, data, places=("w.mask", "w.values")):
    sparse = json.dumps({"w": [shape, *places]})
    return _file(
        {"__metadata__": {"sparse": sparse}, "w.mask": mask, "w.values": values}, data
    )


F, U = "F32", "U8"
HOSTILE = {
    "empty": b"",
    "text": b"no such thing",
    "header longer than the file": struct.pack("<Q", 2**63) + b"{}",
    "no JSON": _file(b"{'"),
    "a deep header": _file(b"[" * 100_000),
    "a list": _file([1, 2]),
    "an entry that is a number": _file({"w": 3}),
    "unknown dtype": _file({"w": _entry("Q9", [1], 0, 1)}, b"a"),
    "a dtype that is a list": _file({"w": _entry([], [1], 0, 1)}, b"a"),
    "no shape": _file({"w": {"dtype": U, "data_offsets": [0, 1]}}, b"a"),
    "a negative size": _file({"w": _entry(U, [-1], 0, 1)}, b"a"),
    "a size that is true": _file({"w": _entry(U, [True], 0, 1)}, b"a"),
    "a huge size": _file({"w": _entry(U, [2**40, 2**40], 0, 1)}, b"a"),
    "offsets beyond the end": _file({"w": _entry(U, [9], 0, 9)}, b"a"),
    "offsets that go back": _file({"w": _entry(U, [1], 1, 0)}, b"a"),
    "offsets of another size": _file({"w": _entry(F, [1], 0, 3)}, b"abc"),
    "overlap": _file({"a": _entry(U, [2], 0, 2), "b": _entry(U, [2], 1, 3)}, b"abc"),
    "a hole": _file({"a": _entry(U, [1], 0, 1), "b": _entry(U, [1], 2, 3)}, b"abc"),
    "more data": _file({"a": _entry(U, [1], 0, 1)}, b"abc"),
    "a name twice": _file(
        b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
        b'"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        b"a",
    ),
    "metadata of numbers": _file({"__metadata__": {"sparse": 3}}),
    "empty, with huge axes": _file({"w": _entry(F, [2**62, 2**62, 0], 0, 0)}),
    "UTF-16": _file("{}".encode("utf-16")),
    "a byte order mark": _file(b"\xef\xbb\xbf{}"),
    "a boolean of 2": _file({"w": _entry("BOOL", [1], 0, 1)}, b"\x02"),
}
SPARSE = {
    "a sparse list": _file({"__metadata__": {"sparse": "[]"}}),
    "an entry without places": _file({"__metadata__": {"sparse": '{"w": [[8]]}'}}),
    "places that are not there": _file(
        {"__metadata__": {"sparse": '{"w": [[8], "a", "b"]}'}}
    ),
    "eight gigabytes": _sparse(
        [2_000_000_000], _entry(U, [1], 0, 1), _entry(F, [0], 1, 1), b"\0"
    ),
    "sizes that overflow": _sparse(
        [2**62, 4], _entry(U, [0], 0, 0), _entry(F, [0], 0, 0), b""
    ),
    "one value for eight bits": _sparse(
        [8], _entry(U, [1], 0, 1), _entry(F, [1], 1, 5), b"\xff\0\0\x80?"
    ),
    "bits beyond the end": _sparse(
        [3], _entry(U, [1], 0, 1), _entry(F, [1], 1, 5), b"\x01\0\0\x80?"
    ),
    "a mask of floats": _sparse(
        [8], _entry(F, [1], 0, 4), _entry(F, [0], 4, 4), b"\0\0\0\0"
    ),
    "one place for both": _sparse(
        [8],
        _entry(U, [1], 0, 1),
        _entry(F, [0], 1, 1),
        b"\0",
        places=("w.mask", "w.mask"),
    ),
    "nothing, with huge axes": _sparse(
        [0, 2**62], _entry(U, [0], 0, 0), _entry(F, [0], 0, 0), b""
    ),
    "a place that is a number": _sparse(
        [8], _entry(U, [1], 0, 1), _entry(F, [0], 1, 1), b"\0", places=(1, 2)
    ),
}


@pytest.mark.parametrize("name", [*HOSTILE, *SPARSE])
def test_files_that_are_not_whole_are_refused_by_name(name, tmp_path):
    path = tmp_path / "strange"
    path.write_bytes({**HOSTILE, **SPARSE}[name])
    calls = [io.load_sparse] if name in SPARSE else [io.load_sparse, io.load_weights]
    tracemalloc.start()
    for call in calls:
        with pytest.raises(ValueError, match=rf"`{call.__name__}\('.*strange'\)`"):
            call(path)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_every_cut_of_a_file_is_refused(tmp_path):
    path = tmp_path / "file"
    io.save_sparse(path, {"w": np.eye(8, dtype=np.float32), "b": np.ones(2)})
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="must be a whole safetensors file"):
            io.load_sparse(path)


@pytest.mark.parametrize(
    ("save", "load"),
    [(io.save_sparse, io.load_sparse), (io.save_weights, io.load_weights)],
)
def test_a_flipped_bit_is_never_a_wrong_value(save, load, tmp_path):
    path = tmp_path / "file"
    tree = {"w": np.eye(8, dtype=np.float32), "b": np.ones(2)}
    save(path, tree)
    whole = path.read_bytes()
    name = whole.index(b"crc32")  # Under another one the checksum is not looked for.
    for place in {*range(len(whole))} - {*range(name, name + len("crc32"))}:
        broken = bytearray(whole)
        broken[place] ^= 1 << place % 8
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=rf"`{load.__name__}\(.*file'\)`: must"):
            load(path)


def test_a_file_of_another_function_is_no_sparse_file(tmp_path):
    io.save_weights(tmp_path / "w", {"w": np.ones(3)})
    with pytest.raises(ValueError, match=r"`load_sparse\(.*use `load_weights`"):
        io.load_sparse(tmp_path / "w")


def test_names_that_look_alike_are_told_apart(tmp_path):
    w = np.zeros((8, 8), np.float32)
    w[0, 0] = 3
    tree = {"w": w, "w.mask": np.arange(8, dtype=np.uint8), "w.values": np.ones(1)}
    io.save_sparse(tmp_path / "s", tree)
    loaded = io.load_sparse(tmp_path / "s")
    assert loaded.keys() == tree.keys()
    for name, leaf in tree.items():
        np.testing.assert_array_equal(loaded[name], leaf)
    for call in (io.save_sparse, io.save_weights):
        with pytest.raises(ValueError, match=rf"`{call.__name__}`.*'__metadata__'"):
            call(tmp_path / "m", {"__metadata__": np.ones(2), "a": np.zeros(2)})
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    "kept",
    [{"b": [[1, 0]]}, {"a": 5}, {"a": []}, {"a": [[0, 1]]}, {"a": [[-1]]}],
)
def test_indices_that_do_not_fit_their_array_are_refused(kept, tmp_path):
    header = {"__metadata__": {"kept": json.dumps(kept)}, "a": _entry(U, [1], 0, 1)}
    (tmp_path / "w").write_bytes(_file(header, b"a"))
    with pytest.raises(ValueError, match=r"`load_weights\('.*w'\)`: .* do not fit"):
        io.load_weights(tmp_path / "w")


def test_indices_of_another_tree_are_not_saved(tmp_path):
    with pytest.raises(ValueError, match=r"`save_weights\(kept=\{'w'"):
        io.save_weights(tmp_path / "w", {"w": np.ones((3, 2))}, {"w": ([0, 2], [0, 1])})
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("save", "load"),
    [
        (io.save_sparse, io.load_sparse),
        (io.save_weights, lambda path: io.load_weights(path)[0]),
    ],
)
def test_arrays_of_the_other_byte_order_keep_their_values(save, load, tmp_path):
    array = np.zeros((8, 8), ">f4")
    array[1, 2], array[3, 4] = 3.0, -0.5
    save(tmp_path / "w", {"w": array, "n": np.arange(3, dtype=">i8")})
    loaded = load(tmp_path / "w")
    np.testing.assert_array_equal(loaded["w"], array)
    np.testing.assert_array_equal(loaded["n"], [0, 1, 2])


@pytest.mark.parametrize("save", [io.save_sparse, io.save_weights])
@pytest.mark.parametrize("leaf", [jax.random.key(0), jnp.tanh, "text"])
def test_leaves_that_the_format_does_not_hold_are_refused_by_name(save, leaf, tmp_path):
    with pytest.raises(ValueError, match=rf"`{save.__name__}`: leaf 'act' has dtype"):
        save(tmp_path / "w", {"act": leaf})


def test_a_file_is_replaced_when_the_new_one_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "w"
    io.save_weights(path, {"w": np.zeros(3)})
    monkeypatch.setattr(os, "fsync", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        io.save_weights(path, {"w": np.ones(3)})
    assert io.load_weights(path)[0]["w"].tolist() == [0, 0, 0]
    assert [p.name for p in tmp_path.iterdir()] == ["w"]
