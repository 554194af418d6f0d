"""What a leaf of a pytree is on disk: the one place that knows the kinds of leaves.

    kind      leaf                                    on disk
    array     of JAX or NumPy, any shape and dtype    itself, or its bytes
    key       typed PRNG keys                         themselves
    number    Python's or NumPy's, of any size        a value in the metadata

A *record* says what a leaf is, in JSON; a checkpoint holds one for each leaf, by name.
Names are those of `tree.named_leaves`, kept flat, so that no two leaves meet on disk;
the structure of a tree is that of the tree it is loaded into.
"""

import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxprune import tree

# Dtypes of one byte that the file format has no name for.
_AS_BYTES = frozenset(
    {"float6_e2m3fn", "float6_e3m2fn", "float8_e4m3", "int1", "uint1", "uint2", "uint4"}
)
_PYTHON = {"bool": bool, "int": int, "float": float, "complex": complex}
_KINDS = {"bool": "b", "int": "i", "float": "f", "complex": "c"}

_AT_ONCE = 2**20  # words of a checksum, so that its factors stay in a processor's cache

Record = dict[str, Any]


def records(call: str, state: Any) -> dict[str, Record]:
    """Return the record of every leaf of a tree, by name.

    Args:
      call: the function that was called, for messages.
      state: a pytree of arrays, typed keys and numbers, possibly abstract.

    Raises:
      TypeError: if a leaf is something else, or of a dtype that JAX does not have.
      ValueError: if two leaves have one name, or a name is no Unicode text.
    """
    found = {}
    for name, leaf in tree.named_leaves(state).items():
        if isinstance(leaf, numbers.Number | np.generic):
            kind, shape, dtype = "number", (), _number_type(leaf)
        elif hasattr(leaf, "shape") and hasattr(leaf, "dtype"):
            key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            kind, shape, dtype = "key" if key else "array", leaf.shape, str(leaf.dtype)
        else:
            raise TypeError(
                f"`{call}`: leaf {name!r} must be an array, a typed key or a number, "
                f"it is the {type(leaf).__name__} {leaf!r}. Leave it out, or save it "
                "as metadata."
            )
        typed = getattr(leaf, "dtype", None)  # numbers of Python have none
        if typed is not None and not _is_known(typed):
            raise TypeError(
                f"`{call}`: leaf {name!r} must be of a dtype of JAX, it is of {dtype}. "
                "Leave it out, or convert it."
            )
        if not _is_unicode(name):
            raise ValueError(
                f"`{call}`: the name of leaf {name!r} must be Unicode text, files have "
                "no other names. Rename it."
            )
        found[name] = {"kind": kind, "shape": [int(n) for n in shape], "dtype": dtype}
        if kind == "number":
            found[name]["value"] = _written(leaf)
    return found


def _is_known(dtype: Any) -> bool:
    """Return whether JAX has a dtype; NumPy's other ones have no form on disk."""
    if any(jnp.issubdtype(dtype, kind) for kind in (np.bool_, jax.dtypes.prng_key)):
        return True
    widest = 16 if jnp.issubdtype(dtype, np.complexfloating) else 8
    return jnp.issubdtype(dtype, np.number) and dtype.itemsize <= widest


def _is_unicode(name: str) -> bool:
    """Return whether a name has an encoding; halves of surrogate pairs have none."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _number_type(leaf: Any) -> str:
    return str(leaf.dtype) if isinstance(leaf, np.generic) else type(leaf).__name__


def _written(leaf: Any) -> Any:
    """Return a number in JSON, exactly."""
    value = leaf.item() if isinstance(leaf, np.generic) else leaf
    if isinstance(value, complex):
        return [value.real.hex(), value.imag.hex()]
    return value.hex() if isinstance(value, float) else value


def _read(value: Any) -> Any:
    if isinstance(value, list):
        return complex(*(float.fromhex(part) for part in value))
    return float.fromhex(value) if isinstance(value, str) else value


def differs(stored: Record, wanted: Record) -> str | None:
    """Return in what a stored leaf differs from a wanted one, None if in nothing.

    A number fits an array of shape () of the same kind, and the reverse: counters are
    numbers before the first step, and arrays after it.
    """
    for field in ("shape", "dtype"):
        ours, theirs = wanted[field], stored[field]
        if field == "shape":
            ours, theirs = tuple(ours), tuple(theirs)
        elif _are_numbers(stored, wanted):
            continue
        if ours != theirs:
            return f"has {field} {theirs} in the checkpoint, {ours} was asked for"
    return None


def _are_numbers(stored: Record, wanted: Record) -> bool:
    """Return whether one leaf is a number and the other holds one of its sort."""
    either = "number" in (stored["kind"], wanted["kind"])
    return either and _sort(stored) == _sort(wanted)


def _sort(record: Record) -> str:
    """Return b, i, f or c: what sort of number a leaf holds."""
    if record["kind"] == "key":
        return record["dtype"]
    dtype = record["dtype"]
    kind = _KINDS.get(dtype)
    if kind is None:
        kind = "f" if jnp.issubdtype(dtype, jnp.floating) else jnp.dtype(dtype).kind
    return "i" if kind == "u" else kind


def is_stored(record: Record) -> bool:
    """Return whether a leaf has a file; numbers and empty arrays are records only."""
    return record["kind"] != "number" and 0 not in record["shape"]


def stored(leaf: Any, record: Record) -> Any:
    """Return what is handed to the disk for a leaf."""
    if record["dtype"] in _AS_BYTES:
        return np.asarray(leaf).view(np.uint8)
    return leaf


def checksum(leaf: Any) -> int:
    """Return the part of a checksum of an array that this process has, in [0, 2^32).

        sum_i bits_i (2 i + 1) mod 2^32,   i = position of the entry in the whole array

    The sum over all processes does not depend on how the array is sharded. Factors are
    odd, so that one flipped bit always changes it. Entries of eight bytes and more are
    several words, each with a factor of its own.
    """
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if isinstance(leaf, jax.Array):
        # Of the copies of a block, over all processes, one has the number 0.
        blocks = [
            (np.asarray(shard.data), shard.index)
            for shard in leaf.addressable_shards
            if shard.replica_id == 0
        ]
    else:
        leaf = np.asarray(leaf)
        blocks = [(leaf, (slice(None),) * leaf.ndim)]
    if jax.process_index() and getattr(leaf, "is_fully_addressable", True):
        return 0  # the array is whole in every process, and counts once
    return sum(_block_checksum(*block, leaf.shape) for block in blocks) % 2**32


def _block_checksum(block: np.ndarray, index: Any, shape: tuple[int, ...]) -> int:
    if not block.ndim:
        block, index, shape = block[np.newaxis], (slice(None),), (1,)
    unsigned = np.dtype(f"u{min(block.dtype.itemsize, 4)}")
    words = np.ascontiguousarray(block)[..., np.newaxis].view(unsigned)
    shape = (*shape, words.shape[-1])
    index = (*index, slice(None))
    rows = max(1, _AT_ONCE // max(1, words[0].size))
    total = 0
    for first in range(0, len(words), rows):
        some = words[first : first + rows]
        start = (index[0].start or 0) + first
        parts = (slice(start, start + len(some)), *index[1:])
        factors = _positions(parts, shape) * np.uint32(2) + np.uint32(1)
        total += int(np.sum(some * factors, dtype=np.uint32))
    return total


def _positions(index: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return the positions of a block's entries in the flat array, modulo 2^32."""
    found, stride = np.zeros((1,) * len(shape), np.uint32), 1
    for axis in reversed(range(len(shape))):
        along = np.arange(*index[axis].indices(shape[axis]), dtype=np.uint32)
        along = along * np.uint32(stride % 2**32)
        found = found + along.reshape(-1, *(1,) * (len(shape) - 1 - axis))
        stride *= shape[axis]
    return found


def template(leaf: Any, record: Record) -> Any:
    """Return the abstract form in which the disk hands a stored leaf back.

    Args:
      leaf: the leaf that it is loaded into.
      record: of the stored leaf.
    """
    shape, dtype = tuple(record["shape"]), record["dtype"]
    if record["kind"] == "key":
        dtype = getattr(leaf, "dtype", dtype)
    elif dtype in _AS_BYTES:
        return np.broadcast_to(np.uint8(0), shape)
    elif _on_host(leaf, dtype):
        return np.broadcast_to(np.zeros((), jnp.dtype(dtype)), shape)
    default = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    sharding = getattr(leaf, "sharding", None) or default
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def _on_host(leaf: Any, dtype: str) -> bool:
    """Return whether a leaf stays NumPy's: it is, or JAX has no such dtype here."""
    exact = jax.dtypes.canonicalize_dtype(jnp.dtype(dtype)) == jnp.dtype(dtype)
    return isinstance(leaf, np.ndarray | np.generic | numbers.Number) or not exact


def restored(found: Any, leaf: Any, record: Record) -> Any:
    """Return a leaf as the one that it is loaded into.

    Args:
      found: what the disk handed back; None for what has no file.
      leaf: the leaf that it is loaded into.
      record: of the stored leaf.

    Raises:
      ValueError: if a whole number is too large for the type that it is loaded into.
    """
    if record["kind"] == "number":
        found = np.asarray(_read(record["value"]))
    elif found is None:
        found = _nothing(record)
    elif record["dtype"] in _AS_BYTES:
        found = np.asarray(found).view(jnp.dtype(record["dtype"]))
    if isinstance(leaf, numbers.Number) and not isinstance(leaf, np.generic):
        kind: Any = type(leaf)
        return kind(found.item())
    if isinstance(leaf, np.ndarray | np.generic):
        return _as(np.asarray(found), leaf.dtype)[()]
    if isinstance(found, jax.Array):
        return found
    # NumPy's, where JAX has no such dtype.
    exact = jax.dtypes.canonicalize_dtype(leaf.dtype) == leaf.dtype
    found = _as(found, leaf.dtype)
    return jax.device_put(found, getattr(leaf, "sharding", None)) if exact else found


def _nothing(record: Record) -> Any:
    """Return an array without entries."""
    shape = tuple(record["shape"])
    if record["kind"] == "key":
        return jnp.broadcast_to(jax.random.key(0), shape)
    return np.zeros(shape, jnp.dtype(record["dtype"]))


def _as(array: np.ndarray, dtype: Any) -> np.ndarray:
    cast = array.astype(dtype)
    if array.dtype.kind in "iu" and (cast != array).any():
        raise ValueError(
            f"`load`: the number {array.item()} in the checkpoint must fit the dtype "
            f"{dtype} that was asked for. Ask for a wider one, or a Python int."
        )
    return cast
