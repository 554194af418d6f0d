"""Checkpoints: bit for bit, whole or not there, refused with a reason."""

import json
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import chex
import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxprune
from jaxprune.io import _checkpoint as checkpoint
from jaxprune.io import _leaves as leaves

ROOT = Path(__file__).resolve().parents[2]


def _params(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    return {
        "dense": {
            "kernel": jnp.asarray(rng.normal(size=(16, 8)), dtype),
            "bias": jnp.asarray(rng.normal(size=8), dtype),
        }
    }


def _unusual():
    """Values that only a copy bit for bit keeps."""
    bits = np.array([0x7FC00001, 0xFF800000, 0x80000000, 1], np.uint32)
    return {"kernel": jnp.asarray(bits.view(np.float32).reshape(2, 2))}


def _trained(tx, params):
    update = jax.jit(tx.update)
    state = tx.init(params)
    for _ in range(3):
        _, state = update(params, state, params)
    return state


def _adam_chain():
    params = _params()
    masks = jaxprune.magnitude(sparsity=0.5).masks(params, {})
    tx = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(0.1), jaxprune.freeze_pruned(masks)
    )
    return _trained(tx, params)


def _partition():
    trainable = {"params": _params(), "variables": {"dense/kernel": jnp.float32(0.3)}}
    tx = optax.partition(
        {"weights": optax.sgd(0.1, momentum=0.9), "sites": optax.adam(0.1)},
        {"params": "weights", "variables": "sites"},
    )
    return _trained(tx, trainable)


def _multi_steps():
    return _trained(optax.MultiSteps(optax.adam(0.1), 2), _params())


def _module_state():
    class Net(nnx.Module):
        def __init__(self):
            self.first = nnx.Linear(3, 4, rngs=nnx.Rngs(0))
            self.second = nnx.Linear(4, 2, rngs=nnx.Rngs(1))

    return nnx.state(Net(), nnx.Param)


STATES = {
    "float32": _params,
    "bfloat16": lambda: _params(jnp.bfloat16),
    "float16": lambda: _params(jnp.float16),
    "not numbers": _unusual,
    "adam chain": _adam_chain,
    "partition with masked nodes": _partition,
    "multi steps": _multi_steps,
    "masks": lambda: jaxprune.ltp().masks(_params(), jaxprune.ltp().init(_params())),
    "int32": lambda: {"step": jnp.int32(7), "seen": jnp.arange(5)},
    "empty dicts": lambda: {"a": {}, "variables": {}, "w": jnp.ones(2), "z": ()},
    "nnx state": _module_state,
    "frozen dict": lambda: flax.core.freeze(_params()),
    "budget": lambda: jaxprune.dual_ascent(
        jaxprune.at_most(lambda k: jnp.float32(1), 0.5)
    ).init({}),
}


def _bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize("name", STATES)
@pytest.mark.parametrize("abstract", [False, True])
def test_what_is_loaded_is_what_was_saved_bit_for_bit(name, abstract, tmp_path):
    state = STATES[name]()
    path = checkpoint.save(tmp_path, 3, state)
    like = jax.eval_shape(lambda: state) if abstract else state
    loaded = checkpoint.load(path, like)
    assert path == tmp_path / "3"
    assert jax.tree.structure(loaded) == jax.tree.structure(state)
    chex.assert_trees_all_equal_shapes_and_dtypes(loaded, state)
    assert _bits(loaded) == _bits(state)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(loaded))


def test_shardings_are_restored_on_eight_devices(tmp_path):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    split, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
    shardings = {"dense": {"kernel": split, "bias": whole}}
    params = jax.device_put(_params(), shardings)
    path = checkpoint.save(tmp_path, 0, params)
    loaded = checkpoint.load(path, params)
    got = jax.tree.map(lambda leaf: leaf.sharding, loaded)
    assert got == shardings
    assert _bits(loaded) == _bits(params)
    # And to another layout than it was saved from.
    other = {"dense": {"kernel": NamedSharding(mesh, P(None, "data")), "bias": split}}
    like = jax.tree.map(
        lambda leaf, s: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=s),
        params,
        other,
    )
    moved = checkpoint.load(path, like)
    assert jax.tree.map(lambda leaf: leaf.sharding, moved) == other
    assert _bits(moved) == _bits(params)
    one = checkpoint.load(path, _params())
    assert len(one["dense"]["kernel"].devices()) == 1


def test_metadata_comes_back(tmp_path):
    metadata = {"accuracy_hard": 0.993, "kept_weights": 12, "nested": {"a": [1, None]}}
    checkpoint.save(tmp_path, 5, _params(), metadata=metadata)
    checkpoint.save(tmp_path, 40, _params())
    first, second = checkpoint.entries(tmp_path)
    assert (first.step, first.path, first.metadata) == (5, tmp_path / "5", metadata)
    assert second.metadata == {}
    assert checkpoint.latest(tmp_path) == second


def test_metadata_that_is_not_json_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"`save\(metadata=.*`float\(loss\)`"):
        checkpoint.save(tmp_path, 0, {}, metadata={"loss": jnp.ones(())})
    assert not checkpoint.entries(tmp_path)


def test_a_sharding_that_does_not_divide_a_leaf_is_not_blamed_on_the_file(tmp_path):
    checkpoint.save(tmp_path, 1, {"w": jnp.arange(3.0)})
    mesh = jax.make_mesh((2,), ("x",))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    like = {"w": jax.ShapeDtypeStruct((3,), jnp.float32, sharding=split)}
    with pytest.raises(ValueError, match=r"must divide leaf 'w' of shape \(3,\)"):
        checkpoint.load(tmp_path / "1", like)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("_CHECKPOINT_METADATA", '"value": 7', '"value": 5'),
        ("_CHECKPOINT_METADATA", "0.75", "0.95"),
        ("_CHECKPOINT_METADATA", '{"item', "{"),
        ("state/_METADATA", "}", ""),
        ("state/array_metadatas/process_0", "}", ""),
    ],
)
def test_a_file_that_was_changed_is_refused_by_the_name_of_its_folder(
    file, old, new, tmp_path
):
    state = {"step": 7, "w": jnp.ones(3)}
    path = checkpoint.save(tmp_path, 3, state, metadata={10: 0.75, 2: 1})
    assert checkpoint.load(path, state)["step"] == 7
    text = (path / file).read_text()
    assert old in text
    (path / file).write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=r"`load\('.*/3'\)`: .* must be whole"):
        checkpoint.load(path, state)
    if "CHECKPOINT" in file:
        with pytest.raises(ValueError, match=r"`latest\(.*/3' must be"):
            checkpoint.latest(tmp_path)
        checkpoint.save(tmp_path, 1, state)
        with pytest.warns(jaxprune.base.PruningWarning, match=r"entries\(.*/3' mu"):
            assert [entry.step for entry in checkpoint.entries(tmp_path)] == [1]


def test_entries_are_by_step_and_leave_out_what_is_no_checkpoint(tmp_path):
    assert checkpoint.entries(tmp_path / "nowhere") == ()
    assert checkpoint.latest(tmp_path) is None
    for step in (10, 9, 100):
        checkpoint.save(tmp_path, step, {"w": jnp.float32(step)})
    (tmp_path / "200").mkdir()  # a folder of someone else
    (tmp_path / "300").write_text("a file")
    (tmp_path / "notes").mkdir()
    shutil.copytree(tmp_path / "100", tmp_path / "400.orbax-checkpoint-tmp")
    shutil.copytree(tmp_path / "100", tmp_path / "500.discarded")
    assert [e.step for e in checkpoint.entries(tmp_path)] == [9, 10, 100]
    assert checkpoint.latest(tmp_path).step == 100


def test_saving_a_step_again_replaces_it(tmp_path):
    checkpoint.save(tmp_path, 1, {"w": jnp.ones(3)}, metadata={"run": 1})
    checkpoint.save(tmp_path, 1, {"v": jnp.zeros((2, 2))}, metadata={"run": 2})
    (entry,) = checkpoint.entries(tmp_path)
    assert entry.metadata == {"run": 2}
    loaded = checkpoint.load(entry, {"v": jnp.ones((2, 2))})
    assert _bits(loaded) == _bits({"v": jnp.zeros((2, 2))})
    assert [p.name for p in tmp_path.iterdir()] == ["1"]


def test_a_negative_step_is_refused(tmp_path):
    with pytest.raises(ValueError, match="step=-1"):
        checkpoint.save(tmp_path, -1, _params())
    assert list(tmp_path.iterdir()) == []


def test_discard_hides_a_checkpoint_before_it_removes_it(tmp_path, monkeypatch):
    path = checkpoint.save(tmp_path, 1, _params())
    remove, seen = shutil.rmtree, []

    def rmtree(target, *args, **kwargs):
        # Whenever anything is being removed, nothing is left under the name.
        if Path(target).exists():
            seen.append((path.exists(), checkpoint.entries(tmp_path)))
        remove(target, *args, **kwargs)

    monkeypatch.setattr(checkpoint.shutil, "rmtree", rmtree)
    checkpoint.discard(path)
    assert seen == [(False, ())]
    assert list(tmp_path.iterdir()) == []


def test_discard_copes_with_the_remains_of_one_that_was_killed(tmp_path):
    path = checkpoint.save(tmp_path, 1, _params())
    shutil.copytree(path, tmp_path / "1.discarded")
    checkpoint.discard(path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        checkpoint.discard(path)


def _small_trail(directory, steps):
    directory.mkdir()
    source = checkpoint.save(directory, steps[0], {"w": jnp.ones(2)})
    for step in steps[1:]:
        shutil.copytree(source, directory / str(step))
    return directory


def test_tidy_keeps_the_last_and_removes_later_steps_and_leftovers(tmp_path):
    trail = _small_trail(tmp_path / "trail", [1, 2, 3, 10, 20])
    for leftover in ("30.orbax-checkpoint-tmp", "4.discarded"):
        shutil.copytree(trail / "1", trail / leftover)
    for notes in ("notes", "notes.replacing"):
        (trail / notes).mkdir()
    steps = lambda: [e.step for e in checkpoint.entries(trail)]
    checkpoint.tidy(trail)
    assert steps() == [1, 2, 3, 10, 20]
    names = {p.name for p in trail.iterdir()}
    assert names == {"1", "2", "3", "10", "20", "notes", "notes.replacing"}
    checkpoint.tidy(trail, up_to=10)
    assert steps() == [1, 2, 3, 10]
    checkpoint.tidy(trail, keep_last=2)
    assert steps() == [3, 10]
    checkpoint.tidy(trail, keep_last=1, up_to=9)
    assert steps() == [3]
    checkpoint.tidy(trail, keep_last=0)
    assert steps() == []
    checkpoint.tidy(tmp_path / "nowhere", keep_last=1)


def _first_layer(kernel):
    return {"conv": {"kernel": kernel}, "dense": {"bias": jnp.ones(3)}}


@pytest.mark.parametrize(
    ("like", "message"),
    [
        (
            _first_layer(np.ones((2, 4), np.float32)),
            r"'conv/kernel' has shape \(2, 3\) in the checkpoint, \(2, 4\) was asked",
        ),
        (
            _first_layer(np.ones((3, 2), np.float32)),
            r"'conv/kernel' has shape \(2, 3\) in the checkpoint, \(3, 2\) was asked",
        ),
        (
            _first_layer(np.ones((2, 3), np.float16)),
            r"'conv/kernel' has dtype float32 in the checkpoint, float16 was asked",
        ),
        (
            {**_first_layer(np.ones((2, 3), np.float32)), "head": {"w": np.ones(5)}},
            r"'head/w' of shape \(5,\) is not in it",
        ),
        (
            {"conv": {"kernel": np.ones((2, 3), np.float32)}},
            r"a leaf 'dense/bias' of shape \(3,\) that is not asked for",
        ),
    ],
    ids=["shape", "transposed", "dtype", "missing leaf", "extra leaf"],
)
def test_a_checkpoint_that_does_not_fit_is_refused_and_stays(like, message, tmp_path):
    state = _first_layer(jnp.arange(6.0).reshape(2, 3))
    path = checkpoint.save(tmp_path, 1, state)
    with pytest.raises(ValueError, match=message) as caught:
        checkpoint.load(path, like)
    assert str(path) in str(caught.value)
    assert "another network, method or configuration" in str(caught.value)
    assert _bits(checkpoint.load(path, state)) == _bits(state)


def test_the_first_of_several_differing_leaves_is_named(tmp_path):
    names = [f"layer{i}" for i in range(5)]
    path = checkpoint.save(tmp_path, 1, {name: jnp.ones(3) for name in names})
    like = {name: jnp.ones(3 if i < 2 else 4) for i, name in enumerate(names)}
    with pytest.raises(ValueError, match="'layer2'") as caught:
        checkpoint.load(path, like)
    assert "layer3" not in str(caught.value)


def test_a_checkpoint_that_is_not_there_lists_those_that_are(tmp_path):
    for step in (1, 20):
        checkpoint.save(tmp_path, step, _params())
    (tmp_path / "5").mkdir()
    for step in (3, 5):
        with pytest.raises(FileNotFoundError, match=r"Steps beside it: \[1, 20\]"):
            checkpoint.load(tmp_path / str(step), _params())
    with pytest.raises(FileNotFoundError, match=r"\[\]"):
        checkpoint.load(tmp_path / "nowhere" / "1", _params())


# Killed in the middle, and disks that are full ---------------------------------------

_FLOATS = 1 << 20  # in each of four arrays: 16 MB, a tenth of a second to write

# Imports once, then forks a process that saves until it is killed, as often as asked.
_SAVER = f"""
import os, sys
import jax, numpy as np
from orbax.checkpoint import v1
from jaxprune.io import _checkpoint as checkpoint

noise = np.random.default_rng(0).normal(size={_FLOATS}).astype(np.float32)
print("ready", flush=True)
for line in sys.stdin:
    directory, first = line.split()
    child = os.fork()
    if child == 0:
        for step in range(int(first), int(first) + 1000):
            arrays = {{f"w{{i}}": noise + np.float32(step + i) for i in range(4)}}
            print("saving", os.getpid(), flush=True)
            checkpoint.save(directory, step, arrays, metadata={{"step": step}})
            print("saved", step, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    print("killed", flush=True)
"""


def test_a_save_that_is_killed_leaves_nothing_half_written_to_be_read(tmp_path):
    noise = np.random.default_rng(0).normal(size=_FLOATS).astype(np.float32)
    delays = random.Random(0)
    saver = subprocess.Popen(
        [sys.executable, "-c", _SAVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    )
    unfinished, whole, last, took = 0, 0, -1, 0.2
    try:
        assert saver.stdout.readline() == "ready\n"
        for attempt in range(8):
            print(tmp_path, last + 1, file=saver.stdin, flush=True)
            word, pid = saver.stdout.readline().split()
            assert word == "saving"
            if attempt % 2:  # let one through, then kill the one behind it
                began = time.monotonic()
                assert saver.stdout.readline().startswith("saved")
                took = time.monotonic() - began
                assert saver.stdout.readline().startswith("saving")
            time.sleep(delays.uniform(0, min(took, 1.0)))
            os.kill(int(pid), signal.SIGKILL)
            while (line := saver.stdout.readline()) != "killed\n":
                assert line.split()[0] in ("saved", "saving")
            names = {p.name for p in tmp_path.iterdir()}
            unfinished += any(not name.isdecimal() for name in names)
            entry = checkpoint.latest(tmp_path)
            if entry is None:
                continue
            whole += 1
            assert entry.step >= last
            last = entry.step
            assert entry.metadata == {"step": last}
            like = {f"w{i}": jax.ShapeDtypeStruct((_FLOATS,), "f4") for i in range(4)}
            loaded = checkpoint.load(entry, like)
            for i in range(4):
                want = noise + np.float32(last + i)
                np.testing.assert_array_equal(np.asarray(loaded[f"w{i}"]), want)
            checkpoint.tidy(tmp_path, keep_last=1)
            assert [p.name for p in tmp_path.iterdir()] == [str(last)]
    finally:
        saver.kill()
        saver.communicate()
    # The kills did hit what they were aimed at, and did leave something to load.
    assert unfinished >= 2
    assert whole >= 2


# Forks a process that saves step 3 again and kills itself just before it renames or
# removes something for the n-th time.
_REPLACER = """
import os, shutil, signal, sys
import numpy as np
from orbax.checkpoint import v1
from jaxprune.io import _checkpoint as checkpoint

def fatal(call, calls):
    def counted(*args, **kwargs):
        calls.append(call)
        if len(calls) == deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **kwargs)
    return counted

new = {"w": np.full(5, 2.0, np.float32)}
print("ready", flush=True)
for line in sys.stdin:
    directory, deadly = line.split()
    deadly = int(deadly)
    child = os.fork()
    if child == 0:
        calls = []
        os.rename, shutil.rmtree = fatal(os.rename, calls), fatal(shutil.rmtree, calls)
        checkpoint.save(directory, 3, new, metadata={"run": 2})
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_one_of_the_two_can_be_read_whenever_a_replacement_is_killed(tmp_path):
    old = {"w": np.full(5, 1.0, np.float32)}
    saver = subprocess.Popen(
        [sys.executable, "-c", _REPLACER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    )
    read, renamed = [], []
    try:
        assert saver.stdout.readline() == "ready\n"
        for deadly in range(1, 20):
            directory = tmp_path / str(deadly)
            checkpoint.save(directory, 3, old, metadata={"run": 1})
            print(directory, deadly, file=saver.stdin, flush=True)
            code = int(saver.stdout.readline())
            for _ in range(2):  # as it was left, and tidied up
                (entry,) = checkpoint.entries(directory)
                run = entry.metadata["run"]
                for source in (entry, directory / "3"):
                    loaded = checkpoint.load(source, old)
                    np.testing.assert_array_equal(loaded["w"], float(run))
                renamed.append(entry.path.name)
                checkpoint.tidy(directory)
            assert [p.name for p in directory.iterdir()] == ["3"]
            read.append(run)
            if code == 0:
                break
            assert code == -signal.SIGKILL
            # What is saved next finds nothing in its way.
            checkpoint.save(directory, 3, old, metadata={"run": 3})
            assert checkpoint.latest(directory).metadata == {"run": 3}
    finally:
        saver.kill()
        saver.communicate()
    assert code == 0  # It came through in the end,
    assert read == sorted(read)  # first the old one is there, then the new one,
    assert {1, 2} == set(read)
    assert "3.replacing" in renamed  # and between the renames it was hit as well.


_FULL = """
import json, resource, sys
import numpy as np
from jaxprune.io import _checkpoint as checkpoint

directory, how = sys.argv[1:]
small = {"w": np.arange(3, dtype=np.float32)}
large = {"w": np.random.default_rng(0).normal(size=1 << 20).astype(np.float32)}
checkpoint.save(directory, 1, small)
if how == "limit":  # Python ignores SIGXFSZ: writing then fails with EFBIG.
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
said = []
for step in (2, 3):
    try:
        checkpoint.save(directory, step, large)
    except OSError as error:
        said.append(str(error))
latest = checkpoint.latest(directory)
loaded = checkpoint.load(latest, small)
checkpoint.tidy(directory)
checkpoint.save(directory, 4, small)  # and it goes on when there is room again
steps = [entry.step for entry in checkpoint.entries(directory)]
kept = np.asarray(loaded["w"]).tolist()
print(json.dumps({"said": said, "step": latest.step, "kept": kept, "steps": steps}))
"""


def _save_to_a_full_disk(directory, how):
    done = subprocess.run(
        [sys.executable, "-c", _FULL, str(directory), how],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found["said"]) == 2
    for step, message in zip((2, 3), found["said"], strict=True):
        assert f"`save({str(directory)!r}, step={step})`" in message
        assert "disk full" in message
    assert (found["step"], found["kept"]) == (1, [0.0, 1.0, 2.0])
    assert found["steps"] == [1, 4]
    return found["said"][0]


def test_a_write_that_the_system_refuses_is_an_os_error_and_loses_nothing(tmp_path):
    assert "File too large" in _save_to_a_full_disk(tmp_path, "limit")


def test_a_full_disk_is_an_os_error_and_loses_nothing(tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if (
        not shutil.which("mount")
        or subprocess.run(mount, capture_output=True).returncode
    ):
        pytest.skip("a small file system can be mounted by root only")
    try:
        message = _save_to_a_full_disk(tmp_path, "mount")
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert "No space left on device" in message


def test_a_directory_that_cannot_be_made_is_an_os_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        checkpoint.save(tmp_path / "file" / "trail", 1, _params())


# Kinds of leaves.


class Pair(NamedTuple):
    first: Any
    second: Any


def _kinds():
    """Trees of every kind of leaf, by name."""
    numbers = {"int": -(2**40), "float": 0.1, "bool": True, "complex": 1 + 2j}
    odd = {"inf": float("inf"), "zero": -0.0, "long": 2**80, "np": np.int64(2**40)}
    dtypes = {
        name: np.ones(3, name)
        for name in ("int8", "uint16", "int64", "float16", "float64", "complex128")
    }
    small = {name: jnp.ones(3, name) for name in ("bfloat16", "float8_e4m3fn", "int4")}
    unnamed = {name: jnp.ones(3, name) for name in ("uint2", "uint4", "float8_e4m3")}
    rngs = nnx.state(nnx.Dropout(0.5, rngs=nnx.Rngs(3)))
    return {
        "a typed key": {"key": jax.random.key(3), "w": jnp.ones(3)},
        "keys": jax.random.split(jax.random.key(3), (2, 3)),
        "another sort of key": jax.random.key(3, impl="rbg"),
        "an NNX state with keys": rngs,
        "numbers": numbers,
        "odd numbers": odd,
        "NumPy": dtypes,
        "small dtypes": {**small, **unnamed},
        "no entries": {"w": jnp.ones((0, 3)), "host": np.ones((2, 0), np.int8)},
        "nothing": {},
        "no leaves": {"a": {}, "b": (), "c": None},
        "a single leaf": jnp.ones(3),
        "a single number": 5,
        "a NamedTuple": Pair(jnp.ones(2), Pair(None, [3, ()])),
        "names that look alike": {
            "a.b": jnp.ones(1),
            "a": {"b": jnp.zeros(1), ".zarray": jnp.full(1, 2)},
            "": jnp.full(1, 3),
            "ä b": jnp.full(1, 4),
        },
        "an optimizer's state": optax.adam(1e-3).init({"w": jnp.ones(3)}),
    }


KINDS = _kinds()


def _plain(leaf):
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return str(leaf.dtype), np.asarray(jax.random.key_data(leaf)).tolist()
    if isinstance(leaf, jax.Array | np.ndarray):
        return str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes()
    return type(leaf), repr(leaf)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_leaf_comes_back_as_it_was(name, tmp_path):
    state = KINDS[name]
    checkpoint.save(tmp_path, 1, state)
    got = checkpoint.load(checkpoint.latest(tmp_path), state)
    assert jax.tree.structure(got) == jax.tree.structure(state)
    for mine, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(state), strict=True):
        assert isinstance(mine, jax.Array) == isinstance(theirs, jax.Array)
        assert _plain(mine) == _plain(theirs)


def test_counters_are_numbers_before_the_first_step_and_arrays_after(tmp_path):
    path = checkpoint.save(tmp_path, 1, {"step": jnp.int32(7), "lr": 0.5})
    got = checkpoint.load(path, {"step": 0, "lr": jnp.float32(0)})
    assert got["step"] == 7
    assert type(got["step"]) is int
    assert got["lr"].dtype == jnp.float32
    assert float(got["lr"]) == 0.5
    with pytest.raises(ValueError, match=r"'step' has dtype int32.*float was asked"):
        checkpoint.load(path, {"step": 0.0, "lr": 0.5})
    path = checkpoint.save(tmp_path, 2, {"step": 2**40})
    with pytest.raises(ValueError, match=r"1099511627776 .* must fit the dtype int32"):
        checkpoint.load(path, {"step": jnp.int32(0)})


def test_abstract_wide_dtypes_stay_on_the_host(tmp_path):
    path = checkpoint.save(tmp_path, 1, {"w": np.full(2, 0.1)})
    got = checkpoint.load(path, {"w": jax.ShapeDtypeStruct((2,), np.float64)})
    assert got["w"].tolist() == [0.1, 0.1]


def test_what_cannot_be_saved_is_refused_by_name(tmp_path):
    with pytest.raises(TypeError, match=r"`save\(.*'note' must be an array.*str 'hi'"):
        checkpoint.save(tmp_path, 1, {"w": jnp.ones(2), "note": "hi"})
    assert not checkpoint.entries(tmp_path)


@pytest.mark.parametrize(
    "leaf",
    [
        np.zeros(2, jax.dtypes.float0),
        np.array([1, None], object),
        np.zeros(2, [("x", "f4")]),
        np.datetime64("2020"),
        np.array(["a"]),
    ],
)
def test_an_array_of_no_dtype_of_jax_is_refused_before_anything_is_written(
    leaf, tmp_path
):
    with pytest.raises(TypeError, match=r"`save\(.*leaf 'a' must be of a dtype of JAX"):
        checkpoint.save(tmp_path / "new", 1, {"a": leaf})
    assert not (tmp_path / "new").exists()


def test_a_name_without_an_encoding_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`save\(.*must be Unicode text"):
        checkpoint.save(tmp_path, 1, {"\ud800": jnp.ones(2)})


def test_another_sort_of_key_is_refused(tmp_path):
    path = checkpoint.save(tmp_path, 1, {"key": jax.random.key(0)})
    with pytest.raises(ValueError, match=r"'key' has dtype key<fry>.*key<rbg>"):
        checkpoint.load(path, {"key": jax.random.key(0, impl="rbg")})
    with pytest.raises(ValueError, match=r"'key' has shape \(\).*\(2,\) was asked"):
        checkpoint.load(path, {"key": jnp.zeros(2, jnp.uint32)})


def test_the_latest_of_an_empty_directory_is_no_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"load\(None\).*`latest` found no"):
        checkpoint.load(checkpoint.latest(tmp_path), {})


def _flip(path):
    """Flips a bit in the middle of the largest file of a checkpoint, its arrays."""
    files = (file for file in path.rglob("*") if file.is_file())
    largest = max(files, key=lambda file: file.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)


def _noise(seed):
    rng = np.random.default_rng(seed)
    return {"a": jnp.asarray(rng.normal(size=(64, 65)), jnp.float32), "b": jnp.ones(3)}


def test_one_flipped_bit_of_an_array_is_named(tmp_path):
    path = checkpoint.save(tmp_path, 3, _noise(0))
    _flip(path)
    message = r"load\('.*/3'\)`: .* must be whole.*leaf 'a' has another checksum"
    with pytest.raises(checkpoint.BrokenCheckpointError, match=message) as error:
        checkpoint.load(path, _noise(1))
    copied = pickle.loads(pickle.dumps(error.value))
    for one in (error.value, copied):
        assert one.path == path.resolve()
        assert re.search(message, str(one))


def test_load_latest_takes_the_newest_that_is_whole(tmp_path):
    assert checkpoint.load_latest(tmp_path, _noise(0)) is None
    for step in (1, 2, 3, 4):
        path = checkpoint.save(tmp_path, step, _noise(step), metadata={"at": step})
        if step == 3:
            _flip(path)
        if step == 4:
            (path / "_CHECKPOINT_METADATA").write_text("{")
    with pytest.warns(jaxprune.base.PruningWarning) as warned:
        entry, found = checkpoint.load_latest(tmp_path, _noise(0))
    assert entry.metadata == {"at": 2}
    chex.assert_trees_all_equal(found, _noise(2))
    assert [str(w.message).split("'")[3][-2:] for w in warned] == ["/4", "/3"]
    for step in (1, 2):
        _flip(tmp_path / str(step))
    with (
        pytest.warns(jaxprune.base.PruningWarning),
        pytest.raises(checkpoint.BrokenCheckpointError, match="/1' must be whole"),
    ):
        checkpoint.load_latest(tmp_path, _noise(0))


@pytest.mark.parametrize(
    "dtype",
    [np.float32, np.float64, np.int8, np.bool_, np.complex64, jnp.bfloat16, jnp.int4],
)
def test_the_checksum_is_that_of_the_formula_however_an_array_is_sharded(dtype):
    x = (5 * np.random.default_rng(0).normal(size=(8, 16, 3))).astype(dtype)
    unsigned = f"u{min(x.dtype.itemsize, 4)}"
    words = x.reshape(-1).view(unsigned).tolist()
    expected = sum(word * (2 * i + 1) for i, word in enumerate(words)) % 2**32
    assert leaves.checksum(x) == expected
    mesh = jax.make_mesh((2, 4), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
    for spec in (P(), P("a"), P(None, "b"), P("b", "a"), P(("a", "b"))):
        with jax.enable_x64(True):
            y = jax.device_put(x, NamedSharding(mesh, spec))
        assert leaves.checksum(y) == expected


def test_the_checksum_of_many_entries_and_of_none():
    x = np.arange(3 * 2**20, dtype=np.float32)
    words = x.view(np.uint32).astype(np.uint64)
    factors = 2 * np.arange(len(words), dtype=np.uint64) + 1
    expected = int(np.sum(words * factors % 2**32)) % 2**32
    assert leaves.checksum(x) == leaves.checksum(x.reshape(3, -1)) == expected
    assert leaves.checksum(np.float32(2)) == int(np.float32(2).view(np.uint32))
