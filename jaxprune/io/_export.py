"""Files that leave the library: a program that runs anywhere, weights for any reader.

`export_program` writes the compact network as one file that needs nothing but JAX:

    data = export_program(small.apply_fn, small.trees[0], images)
    jax.export.deserialize(data).call(images)          # any number of images

`save_weights` writes arrays by name in the safetensors format (a JSON header, then raw
little-endian data; https://huggingface.co/docs/safetensors), with the original indices
of what is left. `save_sparse` writes pruned arrays as one bit for every entry and the
values that are not zero: a fraction of 1/32 + density of the size of float32. There is
no pickle anywhere.
"""

import json
import pathlib
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from jaxprune import tree as jtree

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
_DTYPES = {code: name for name, code in _CODES.items()}


def export_program(
    apply_fn: Callable[..., Any],
    params: Any,
    *inputs: Any,
    platforms: Sequence[str] = ("cpu", "cuda"),
) -> bytes:
    """Serialises `apply_fn(params, *inputs)` with its parameters inside.

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
    """
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
    """Writes the arrays of a tree by name, in the safetensors format.

    Args:
      path: the file.
      tree: a pytree of arrays.
      kept: `Compacted.kept`; the original indices of every axis that has lost some are
        written to the header as `{"kept": {leaf: [indices or null, ...]}}`.

    Returns:
      The size of the file in bytes.
    """
    arrays = {name: np.asarray(x) for name, x in jtree.named_leaves(tree).items()}
    return _write(path, arrays, {"kept": json.dumps(_runs(kept or {}))})


def _runs(kept):
    """Index lists, null for an axis that is whole."""
    return {
        name: [
            None if np.array_equal(left, np.arange(len(left))) else left.tolist()
            for left in axes
        ]
        for name, axes in kept.items()
        if any(not np.array_equal(left, np.arange(len(left))) for left in axes)
    }


def load_weights(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads what `save_weights` wrote: arrays by name, and original indices by name.

    Raises:
      ValueError: if the file is no safetensors file.
    """
    arrays, header = _read(path)
    return arrays, json.loads(header.get("kept", "{}"))


def save_sparse(path: Path, tree: Any) -> int:
    """Writes the arrays of a tree, pruned ones as a bit mask and the values left.

    An array is written sparse where that is smaller. Every bit pattern but that of
    +0.0 counts as a value, so that loading gives the same bits.

    Args:
      path: the file.
      tree: a pytree of arrays.

    Returns:
      The size of the file in bytes.
    """
    stored, shapes = {}, {}
    for name, leaf in jtree.named_leaves(tree).items():
        array = np.asarray(leaf)
        present = _bits(array) != 0
        size = present.size / 8 + present.sum() * array.itemsize
        if array.ndim and size < array.nbytes:
            shapes[name] = list(array.shape)
            stored[f"{name}.mask"] = np.packbits(present.ravel())
            stored[f"{name}.values"] = array[present]
        else:
            stored[name] = array
    return _write(path, stored, {"sparse": json.dumps(shapes)})


def load_sparse(path: Path) -> dict[str, np.ndarray]:
    """Reads what `save_sparse` wrote: arrays by name, bit for bit.

    Raises:
      ValueError: if the file is no safetensors file.
    """
    stored, header = _read(path)
    shapes = json.loads(header.get("sparse", "{}"))
    arrays = {}
    for name, shape in shapes.items():
        count = int(np.prod(shape))
        mask = np.unpackbits(stored.pop(f"{name}.mask"), count=count).astype(bool)
        values = stored.pop(f"{name}.values")
        arrays[name] = np.zeros(shape, values.dtype)
        arrays[name][mask.reshape(shape)] = values
    return stored | arrays


def _bits(array: np.ndarray) -> np.ndarray:
    if array.dtype.itemsize not in (1, 2, 4, 8):
        return np.ones(array.shape, np.uint8)
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(f"u{array.dtype.itemsize}").reshape(array.shape)


def _write(path: Path, arrays: Mapping[str, np.ndarray], metadata) -> int:
    header: dict[str, Any] = {"__metadata__": metadata}
    start = 0
    for name, array in arrays.items():
        if array.dtype.name not in _CODES:
            raise ValueError(
                f"leaf {name!r} has dtype {array.dtype}, which the format has no code "
                f"for; it has {list(_CODES)}. Cast it, or leave it out."
            )
        header[name] = {
            "dtype": _CODES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [start, start + array.nbytes],
        }
        start += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    blob = b"".join(
        [struct.pack("<Q", len(text)), text, *(a.tobytes() for a in arrays.values())]
    )
    return pathlib.Path(path).write_bytes(blob)


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    blob = pathlib.Path(path).read_bytes()
    try:
        (length,) = struct.unpack("<Q", blob[:8])
        header = json.loads(blob[8 : 8 + length])
    except (struct.error, ValueError) as error:
        raise ValueError(f"{path} is no safetensors file: {error}") from error
    metadata, data, arrays = header.pop("__metadata__", {}), 8 + length, {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        flat = np.frombuffer(
            blob[data + start : data + end], jnp.dtype(_DTYPES[entry["dtype"]])
        )
        arrays[name] = flat.reshape(entry["shape"]).copy()
    return arrays, metadata
