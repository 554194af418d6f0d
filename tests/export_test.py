"""Files that leave the library."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprune import export
from jaxprune.channel_masks import random_channel_masks
from jaxprune.compaction import compact
from jaxprune.graph import trace_channels
from tests import architectures

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
    return compact(function, graph, masks, variables), x


@pytest.mark.parametrize(
    "name", ["resnet18", "mlp", "mobilenet_v3", "groupnorm_resnet", "gpt"]
)
def test_programs_take_any_number_of_examples(name):
    small, x = small_network(name)
    data = export.export_program(small.apply_fn, small.trees[0], x)
    program = jax.export.deserialize(bytearray(data))
    assert set(program.platforms) == {"cpu", "cuda"}
    for count in (1, 2, 6):
        images = jnp.concatenate([x, x, x])[:count]
        want = small.apply_fn(small.trees[0], images)
        np.testing.assert_allclose(program.call(images), want, rtol=1e-4, atol=1e-5)


def test_programs_run_in_a_fresh_process(tmp_path):
    small, x = small_network("resnet18")
    data = export.export_program(small.apply_fn, small.trees[0], x)
    (tmp_path / "net").write_bytes(data)
    np.save(tmp_path / "x.npy", x)
    names = [str(tmp_path / name) for name in ("net", "x.npy", "y.npy")]
    subprocess.run([sys.executable, "-c", RUN, *names], check=True, cwd=tmp_path)
    want = small.apply_fn(small.trees[0], x)
    np.testing.assert_allclose(np.load(names[2]), want, rtol=1e-4, atol=1e-5)


def test_scalar_inputs_cannot_be_exported():
    with pytest.raises(ValueError, match=r"inputs\[0\] is a scalar"):
        export.export_program(lambda p, x: x, {}, jnp.float32(1))


def test_weights_come_back_with_original_indices(tmp_path):
    small, _ = small_network("resnet18")
    size = export.save_weights(tmp_path / "w.safetensors", small.trees[0], small.kept)
    assert size == (tmp_path / "w.safetensors").stat().st_size
    arrays, kept = export.load_weights(tmp_path / "w.safetensors")
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
    size = export.save_sparse(tmp_path / "s", params)
    arrays = export.load_sparse(tmp_path / "s")
    for name, want in (("a/w", pruned), ("b", dense), ("m", pruned != 0)):
        assert arrays[name].dtype == want.dtype
        assert arrays[name].tobytes() == want.tobytes()
    assert arrays["n"] == 3
    if dtype == "float32":
        alone = export.save_sparse(tmp_path / "alone", {"w": pruned})
        assert alone <= 0.10 * pruned.nbytes
    assert size < sum(np.asarray(x).nbytes for x in jax.tree.leaves(params))


def test_other_files_are_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"no such thing")
    with pytest.raises(ValueError, match="no safetensors file"):
        export.load_weights(tmp_path / "x")
