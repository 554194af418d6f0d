"""Files that leave the library: a program that runs anywhere, weights for any reader.

`export_program` writes the compact network as one file that needs nothing but JAX:

    data = export_program(small.apply_fn, small.trees[0], images)
    jax.export.deserialize(data).call(images)          # any number of images

`save_weights` writes arrays by name in the safetensors format (a JSON header, then raw
little-endian data; https://huggingface.co/docs/safetensors), with the original indices
of what is left. `save_sparse` writes pruned arrays as one bit for every entry and the
values that are not zero: a fraction of 1/32 + density of the size of float32. There is
no pickle anywhere, and nothing in a file is trusted: sizes, offsets and numbers of bits
are checked before memory is taken, and a checksum over all of it (CRC-32, in the
metadata) before anything is returned; files of other programs have none. Files appear
under their names when they are whole.
"""

import itertools
import json
import math
import os
import pathlib
import struct
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from jaxprune import tree as jtree
from jaxprune.base._checks import check_callable

Path = str | pathlib.Path

_CODES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}
_METADATA = "__metadata__"
_CHECKSUM = "crc32"
_DTYPES = {code: name for name, code in _CODES.items()}


def export_program(
    apply_fn: Callable[..., Any],
    params: Any,
    *inputs: Any,
    platforms: Sequence[str] = ("cpu", "cuda"),
) -> bytes:
    """Return `apply_fn(params, *inputs)`, with its parameters inside, as bytes.

    Args:
      apply_fn: a pure function, that of `compact` for instance.
      params: its parameters, which become constants of the program.
      *inputs: example arrays, all with the examples along their first axis; only their
        other sizes and their dtypes matter, the program takes any number of examples.
      platforms: where it will run: "cpu", "cuda", "rocm", "tpu".

    Returns:
      Bytes for `jax.export.deserialize`.

    Raises:
      ValueError: if an input has no first axis, or `apply_fn` needs to know its size.
      ImportError: if `flatbuffers` is missing (`pip install jaxprune[export]`).

    Examples:
      >>> program = export_program(
      ...     lambda w, x: x @ w, jnp.ones((3, 2)), jnp.ones((1, 3))
      ... )
      >>> jax_export.deserialize(program).call(jnp.ones((5, 3))).shape
      (5, 2)
    """
    check_callable("export_program", "apply_fn", apply_fn, "`small.apply_fn`")
    (examples,) = jax_export.symbolic_shape("examples")

    def specify(path, x):
        if x.ndim == 0:
            raise ValueError(
                f"`export_program`: inputs{jax.tree_util.keystr(path)} is a scalar, "
                "but inputs need a first axis, that of examples. Close over it."
            )
        return jax.ShapeDtypeStruct((examples, *x.shape[1:]), x.dtype)

    specs = jax.tree_util.tree_map_with_path(specify, inputs)
    program = jax.jit(lambda *inputs: apply_fn(params, *inputs))
    exported = jax_export.export(program, platforms=tuple(platforms))(*specs)
    return bytes(exported.serialize())


def save_weights(
    path: Path, tree: Any, kept: Mapping[str, Sequence[np.ndarray]] | None = None
) -> int:
    """Write the arrays of a tree by name, in the safetensors format.

    Args:
      path: the file.
      tree: a pytree of arrays.
      kept: `Compacted.kept`; the original indices of every axis that has lost some are
        written to the header as `{"kept": {leaf: [indices or null, ...]}}`.

    Returns:
      The size of the file in bytes.

    Raises:
      ValueError: if the format has no code for a dtype, two leaves have one name, one
        is called `__metadata__`, or `kept` does not fit the arrays.

    Examples:
      >>> directory = tempfile.TemporaryDirectory()
      >>> path = directory.name + "/weights.safetensors"
      >>> size = save_weights(path, {"w": jnp.arange(3.0)})
      >>> load_weights(path)
      ({'w': array([0., 1., 2.], dtype=float32)}, {})
      >>> directory.cleanup()
    """
    arrays = _arrays("save_weights", tree)
    runs = _runs(kept or {})
    misfit = _misfit(runs, arrays)
    if misfit is not None:
        raise ValueError(
            f"`save_weights(kept={{{misfit!r}: ...}})`: must be rising indices, as many"
            " for every axis as its array has. Pass the compact tree and the"
            " `Compacted.kept` that came with it."
        )
    return _write("save_weights", path, arrays, {"kept": json.dumps(runs)})


def _runs(kept):
    """Return index lists, null for an axis of which nothing went."""
    return {
        name: [
            None
            if np.array_equal(left, np.arange(len(left)))
            else np.asarray(left).tolist()
            for left in axes
        ]
        for name, axes in kept.items()
        if any(not np.array_equal(left, np.arange(len(left))) for left in axes)
    }


def load_weights(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what `save_weights` wrote, or any safetensors file.

    Args:
      path: the file.

    Returns:
      Arrays by name, and the original indices by name: for every axis a list, or None
      for one of which nothing went.

    Raises:
      ValueError: if the file is no safetensors file, naming the file.

    Examples:
      >>> directory = tempfile.TemporaryDirectory()
      >>> path = directory.name + "/weights.safetensors"
      >>> size = save_weights(path, {"w": jnp.ones((2, 2))}, {"w": ([0, 5], [0, 1])})
      >>> load_weights(path)[1]
      {'w': [[0, 5], None]}
      >>> directory.cleanup()
    """
    call = "load_weights"
    arrays, metadata = _read(call, path)
    kept = _json(call, path, metadata.get("kept", "{}"))
    misfit = _misfit(kept, arrays)
    if misfit is not None:
        raise _broken(call, path, f"the indices of {misfit!r} do not fit its array")
    return arrays, kept


def _misfit(kept: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str | None:
    """Return the first name with indices of other axes than those of its array."""
    for name, axes in kept.items():
        sizes = arrays[name].shape if name in arrays else None
        if not isinstance(axes, list) or (
            sizes is not None and len(axes) != len(sizes)
        ):
            return name
        for n, left in enumerate(axes):
            if left is None:
                continue
            rising = _are_sizes(left) and all(
                a < b for a, b in itertools.pairwise(left)
            )
            if not rising or (sizes is not None and len(left) != sizes[n]):
                return name
    return None


def save_sparse(path: Path, tree: Any) -> int:
    """Write the arrays of a tree, pruned ones as a bit mask and the values left.

        bytes of an array of n entries, v of them not zero:  n / 8 + v bytes per entry

    An array is written sparse where that is smaller. Every bit pattern but that of
    +0.0 counts as a value, so that loading gives the same bits.

    Args:
      path: the file.
      tree: a pytree of arrays.

    Returns:
      The size of the file in bytes.

    Raises:
      ValueError: as `save_weights`.

    Examples:
      >>> directory = tempfile.TemporaryDirectory()
      >>> path = directory.name + "/sparse.safetensors"
      >>> size = save_sparse(path, {"w": jnp.zeros(800).at[3].set(2.0)})
      >>> size < 800 and load_sparse(path)["w"][3]
      np.float32(2.0)
      >>> directory.cleanup()
    """
    named = _arrays("save_sparse", tree)
    stored, sparse = {}, {}
    for name, array in named.items():
        present = _bits(array) != 0
        size = present.size / 8 + present.sum() * array.itemsize
        if array.ndim and size < array.nbytes:
            places = [_free(f"{name}.{part}", named) for part in ("mask", "values")]
            sparse[name] = [list(array.shape), *places]
            stored[places[0]] = np.packbits(present.ravel())
            stored[places[1]] = array[present]
        else:
            stored[name] = array
    return _write("save_sparse", path, stored, {"sparse": json.dumps(sparse)})


def _arrays(call: str, tree: Any) -> dict[str, np.ndarray]:
    """Return the leaves by name as little-endian arrays that the format can hold."""
    arrays = {}
    for name, leaf in jtree.named_leaves(tree).items():
        dtype = getattr(leaf, "dtype", None)
        if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.extended):
            leaf = np.asarray(leaf)
            dtype = leaf.dtype
        if getattr(dtype, "name", None) not in _CODES:
            raise ValueError(
                f"`{call}`: leaf {name!r} has dtype {dtype}, the format codes for "
                f"{list(_CODES)} only. Cast it, or leave it out."
            )
        arrays[name] = leaf.astype(dtype.newbyteorder("<"), copy=False)
    return arrays


def _free(name: str, taken: Mapping[str, Any]) -> str:
    """Return a name that no leaf has."""
    while name in taken:
        name += "_"
    return name


def load_sparse(path: Path) -> dict[str, np.ndarray]:
    """Read what `save_sparse` wrote, bit for bit.

    Args:
      path: the file.

    Returns:
      Arrays by name.

    Raises:
      ValueError: if the file is no file of `save_sparse`, naming the file.

    Examples:
      >>> directory = tempfile.TemporaryDirectory()
      >>> path = directory.name + "/sparse.safetensors"
      >>> size = save_sparse(path, {"w": jnp.zeros(100).at[7].set(-0.0)})
      >>> load_sparse(path)["w"][7]
      np.float32(-0.0)
      >>> directory.cleanup()
    """
    call = "load_sparse"
    stored, metadata = _read(call, path)
    if "sparse" not in metadata:
        raise _broken(call, path, "`save_sparse` did not write it; use `load_weights`")
    sparse = _json(call, path, metadata["sparse"])
    arrays = {}
    for name, entry in sparse.items():
        if not isinstance(entry, list) or len(entry) != 3:
            raise _broken(call, path, f"the entry of {name!r} is {entry!r}")
        shape = _shape(call, path, name, entry[0])
        mask, values = (stored.pop(place, None) for place in map(str, entry[1:]))
        if mask is None or values is None or name in stored or name in arrays:
            raise _broken(call, path, f"{name!r} has no mask, no values, or is twice")
        count = math.prod(shape)
        if mask.dtype != np.uint8 or mask.shape != (-(-count // 8),):
            raise _broken(call, path, f"the mask of {name!r} is not of {count} bits")
        bits = np.unpackbits(mask).astype(bool)
        if bits[count:].any() or values.shape != (int(bits.sum()),):
            raise _broken(
                call,
                path,
                f"{name!r} has {values.shape} values for {int(bits.sum())} bits set",
            )
        arrays[name] = np.zeros(shape, values.dtype)
        arrays[name][bits[:count].reshape(shape)] = values
    return stored | arrays


def _bits(array: np.ndarray) -> np.ndarray:
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(f"u{array.dtype.itemsize}").reshape(array.shape)


def _write(call: str, path: Path, arrays: Mapping[str, np.ndarray], metadata) -> int:
    header: dict[str, Any] = {_METADATA: metadata}
    start = 0
    for name, array in arrays.items():
        if name == _METADATA:
            raise ValueError(
                f"`{call}`: no leaf must be called {_METADATA!r}, which the format "
                "keeps for itself. Rename it."
            )
        header[name] = {
            "dtype": _CODES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [start, start + array.nbytes],
        }
        start += array.nbytes
    data = [array.tobytes() for array in arrays.values()]
    header[_METADATA] = {**metadata, _CHECKSUM: _checksum(header, data)}
    text = _text(header)
    text += b" " * (-len(text) % 8)
    parts = [struct.pack("<Q", len(text)), text, *data]
    return _write_atomically(pathlib.Path(path), parts)


def _text(header: Mapping[str, Any]) -> bytes:
    return json.dumps(header, separators=(",", ":")).encode()


def _checksum(header: Mapping[str, Any], data: Sequence[Any]) -> str:
    """Return that of the header without the checksum, and of the data behind it."""
    found = zlib.crc32(_text(header))
    for part in data:
        found = zlib.crc32(part, found)
    return f"{found:08x}"


def _write_atomically(path: pathlib.Path, parts: Sequence[bytes]) -> int:
    """Write a file beside its name, then give it the name."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        # `mkstemp` makes files that nobody else may read.
        mask = os.umask(0)
        os.umask(mask)
        pathlib.Path(name).chmod(0o666 & ~mask)
        pathlib.Path(name).replace(path)
    except BaseException:
        pathlib.Path(name).unlink(missing_ok=True)
        raise
    return sum(map(len, parts))


def _read(call: str, path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the arrays of a safetensors file and its metadata, all checked."""
    blob = pathlib.Path(path).read_bytes()
    length = struct.unpack("<Q", blob[:8])[0] if len(blob) >= 8 else None
    if length is None or length > len(blob) - 8:
        raise _broken(call, path, f"it has {len(blob)} bytes, too few for its header")
    header = _json(call, path, blob[8 : 8 + length])
    data = memoryview(blob)[8 + length :]
    metadata = header.get(_METADATA, {})
    if not isinstance(metadata, dict) or not all(
        isinstance(value, str) for value in metadata.values()
    ):
        raise _broken(call, path, "its metadata is not of strings")
    stated = metadata.pop(_CHECKSUM, None)
    if stated is not None and stated != _checksum(header, [data]):
        raise _broken(call, path, "its checksum is that of other contents")
    header.pop(_METADATA, None)
    arrays, ends = {}, []
    for name, entry in header.items():
        dtype, shape, start, end = _entry(call, path, name, entry, len(data))
        arrays[name] = np.frombuffer(data[start:end], dtype).reshape(shape).copy()
        if dtype == np.bool_ and (arrays[name].view(np.uint8) > 1).any():
            raise _broken(call, path, f"{name!r} has booleans other than 0 and 1")
        ends.append((start, end))
    reached = 0
    for start, end in sorted(ends):
        if start != reached:
            raise _broken(call, path, f"its data overlaps or has holes at byte {start}")
        reached = end
    if reached != len(data):
        raise _broken(call, path, f"{len(data) - reached} bytes belong to no array")
    return arrays, metadata


def _entry(call, path, name: str, entry: Any, size: int):
    """Return dtype, shape and place of one array, checked."""
    if not isinstance(entry, dict):
        raise _broken(call, path, f"the entry of {name!r} is {entry!r}")
    code, offsets = entry.get("dtype"), entry.get("data_offsets")
    if not isinstance(code, str) or code not in _DTYPES:
        raise _broken(call, path, f"the dtype of {name!r} is {code!r}")
    shape = _shape(call, path, name, entry.get("shape"))
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise _broken(call, path, f"the offsets of {name!r} are {offsets!r}")
    (start, end), dtype = offsets, jnp.dtype(_DTYPES[code])
    if not start <= end <= size or end - start != math.prod(shape) * dtype.itemsize:
        place = f"{name!r} of shape {shape} stands at {offsets} of {size} bytes"
        raise _broken(call, path, place)
    return dtype, shape, start, end


def _shape(call, path, name: str, shape: Any) -> tuple[int, ...]:
    # NumPy counts the bytes of an empty array too, without the axes of no entry.
    if (
        not _are_sizes(shape)
        or len(shape) > 32
        or math.prod(n for n in shape if n) >= 2**60
    ):
        raise _broken(call, path, f"the shape of {name!r} is {shape!r}")
    return tuple(shape)


def _are_sizes(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(
        isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 2**63
        for n in values
    )


def _json(call: str, path: Path, text: bytes | str) -> dict[str, Any]:
    """Return an object in JSON whose keys differ."""

    def unique(pairs):
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a name stands twice")
        return found

    try:
        text = text if isinstance(text, str) else text.decode()
        found = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise _broken(call, path, str(error)) from error
    if not isinstance(found, dict):
        raise _broken(call, path, f"its header is a {type(found).__name__}")
    return found


def _broken(call: str, path: Path, why: str) -> ValueError:
    return ValueError(
        f"`{call}({str(path)!r})`: must be a whole safetensors file of this library: "
        f"{why}. Write it again, or take it from where it came again."
    )
