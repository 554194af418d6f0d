"""Checkpoints on disk, through Orbax.

A directory of checkpoints holds one folder for each step, `DIRECTORY/<step>`. A
checkpoint appears under its name only when it is whole, and disappears from it at once:
whatever kills the process, a folder with a whole number for a name can be read. One
that is saved again stays until the new one is whole beside it. Each carries a
dictionary of metadata, such as the accuracy of what was saved.

Orbax is imported on first use.
"""

import contextlib
import dataclasses
import json
import shutil
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxprune import tree
from jaxprune.base import PruningWarning
from jaxprune.base._checks import is_whole
from jaxprune.io import _leaves as leaves

_DISCARDED = ".discarded"
# The name of a whole checkpoint that is about to take the place of an older one.
_REPLACING = ".replacing"
# What a checkpoint holds: arrays by name; and, as metadata, a record of every leaf.
_ARRAYS, _LEAVES, _METADATA = "arrays", "leaves", "metadata"
_MARK = "_CHECKPOINT_METADATA"  # Orbax's file of what it knows of a checkpoint
_SUMS = "sums"  # checksums of the arrays, which Orbax does not check
_CHECKSUM = "crc32"  # of all that is metadata


def _orbax() -> Any:
    from orbax.checkpoint import v1

    return v1


class BrokenCheckpointError(ValueError):
    """A file of a checkpoint is not as it was written.

    Attributes:
      path: the folder of the checkpoint.

    Examples:
      >>> issubclass(BrokenCheckpointError, ValueError)
      True
    """

    def __init__(self, message: str, path: Path):
        super().__init__(message, path)  # both, so that `pickle` can copy it
        self.path = path

    def __str__(self) -> str:
        return self.args[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One finished checkpoint.

    Attributes:
      path: its folder.
      step: the step that the folder is named by.
      metadata: what was saved beside the arrays.
    """

    path: Path
    step: int
    metadata: dict[str, Any]


def save(
    directory: str | Path,
    step: int,
    state: Any,
    *,
    metadata: dict[str, Any] | None = None,
) -> Path:
    """Save a pytree as `directory/<step>`, replacing a checkpoint of that step.

    Returns when the checkpoint is whole on disk. With several processes, all call it.
    A checkpoint of the same step is removed only when the new one is whole; at every
    moment one of the two can be read.

    Args:
      directory: where the checkpoints are; made if needed.
      step: not negative.
      state: a pytree of arrays of any dtype and shape, sharded or not, typed PRNG
        keys, and numbers. It may be empty.
      metadata: JSON values to store beside it.

    Returns:
      The folder.

    Raises:
      ValueError: if `step` is no whole number or negative, or two leaves have one name.
      TypeError: if a leaf is no array, typed key or number, or `metadata` is not JSON.
      OSError: if the disk is full or cannot be written; earlier checkpoints stay.

    Examples:
      >>> import tempfile
      >>> import jax.numpy as jnp
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     folder = save(directory, 3, {"w": jnp.ones(2)}, metadata={"loss": 1.0})
      ...     latest(directory).metadata
      {'loss': 1.0}
    """
    if not is_whole(step) or step < 0:
        raise ValueError(
            f"`save(step={step!r})`: must be a whole number, at least 0. Pass the "
            "number of optimizer steps."
        )
    step = int(step)
    kept = leaves.records(f"save({str(directory)!r}, step={step})", state)
    named = tree.named_leaves(state)
    arrays = {
        name: leaves.stored(named[name], record)
        for name, record in kept.items()
        if leaves.is_stored(record)
    }
    # Orbax refuses an empty tree.
    held: Any = {_ARRAYS: arrays} if arrays else {"empty": np.zeros(1, np.int8)}
    custom: dict[str, Any] = {_LEAVES: kept, _METADATA: metadata or {}}
    custom[_SUMS] = _sums(arrays)
    try:
        custom[_CHECKSUM] = _checksum(custom)
    except TypeError as error:
        raise TypeError(
            f"`save(metadata={metadata!r})`: must hold JSON values: {error}. Pass "
            "Python's own numbers, `float(loss)`."
        ) from error
    directory = Path(directory).resolve()
    path = directory / str(step)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _write(path, held, custom)
    except ValueError as error:
        # TensorStore reports what the operating system said as a ValueError.
        raise OSError(
            f"`save({str(directory)!r}, step={step})`: the checkpoint could not be "
            "written; earlier ones are untouched. Is the disk full or read-only? "
            f"{error}"
        ) from error
    return path


def _sums(arrays: dict[str, Any]) -> dict[str, int]:
    """Return the checksum of every array, the same in all processes."""
    sums = np.array([leaves.checksum(x) for x in arrays.values()], np.uint32)
    if jax.process_count() > 1 and arrays:
        every = multihost_utils.process_allgather(sums)
        sums = np.asarray(np.sum(every, axis=0, dtype=np.uint32))
    return dict(zip(arrays, sums.tolist(), strict=True))


def _write(path: Path, held: Any, custom: dict[str, Any]) -> None:
    """Write a checkpoint; one of this name is removed when the new one is whole."""
    # Orbax writes beside the name that it is given and renames at the end.
    if not path.exists():
        _orbax().save(path, held, custom_metadata=custom)
        return
    new = path.with_name(f"{path.name}{_REPLACING}")
    if new.exists():
        discard(new)
    _orbax().save(new, held, custom_metadata=custom)
    # No system renames over a folder with something in it; between the two renames
    # readers take the new one by the name that it has.
    old = _hide(path)
    new.rename(path)
    shutil.rmtree(old)


def entries(directory: str | Path) -> tuple[Entry, ...]:
    """Return the finished checkpoints of a directory, by step.

    Args:
      directory: the directory of checkpoints.

    Returns:
      Their entries; none if there is no such directory. A checkpoint whose metadata
      are not as they were written is left out.

    Warns:
      PruningWarning: such a checkpoint was left out.

    Examples:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     _ = save(directory, 20, {}), save(directory, 3, {})
      ...     [entry.step for entry in entries(directory)]
      [3, 20]
    """
    where, found = f"entries({str(directory)!r})", []
    for step, path in _folders(directory).items():
        try:
            found.append(_entry(where, step, path))
        except BrokenCheckpointError as error:  # it must not hide the others
            warnings.warn(str(error), PruningWarning, stacklevel=2)
    return tuple(found)


def _folders(directory: str | Path) -> dict[int, Path]:
    """Return the folders of the finished checkpoints of a directory, by step."""
    directory = Path(directory).resolve()
    if not directory.is_dir():
        return {}
    names = (p.name.removesuffix(_REPLACING) for p in directory.iterdir())
    steps = sorted({int(name) for name in names if name.isdecimal()})
    found = {step: _readable(directory / str(step)) for step in steps}
    return {step: path for step, path in found.items() if path is not None}


def _readable(path: Path) -> Path | None:
    """Return the folder of this checkpoint, or None if none is complete."""
    # A process may have been killed after it had moved the older one out of the way.
    for folder in (path, path.with_name(f"{path.name}{_REPLACING}")):
        if _is_finished(folder):
            return folder
    return None


def _is_finished(path: Path) -> bool:
    # Orbax takes any folder for a checkpoint of its first kind, even an empty one.
    marked = (path / _MARK).is_file()
    return marked and _orbax().is_orbax_checkpoint(path)


def _entry(where: str, step: int, path: Path) -> Entry:
    metadata = _custom(where, path).get(_METADATA)
    return Entry(path=path, step=step, metadata=dict(metadata or {}))


def _custom(where: str, folder: Path) -> dict[str, Any]:
    """Return what `save` wrote beside the arrays; {} if another program saved."""
    with _reading(where, folder):
        # Orbax takes a file that cannot be read for an empty one.
        json.loads((folder / _MARK).read_bytes())
        found = _orbax().metadata(folder).custom_metadata
    found = dict(found) if isinstance(found, dict) else {}
    stated = found.pop(_CHECKSUM, None)
    if stated is not None and stated != _checksum(found):
        raise _broken(
            where, folder, "the checksum of its metadata is of other contents"
        )
    return found


def _broken(where: str, folder: Path, why: str) -> BrokenCheckpointError:
    return BrokenCheckpointError(
        f"`{where}`: the checkpoint {str(folder)!r} must be whole, and cannot be read: "
        f"{why}. Take an earlier one, as `load_latest` does.",
        folder,
    )


def _checksum(custom: dict[str, Any]) -> str:
    # Keys that are numbers come back as text, in another order.
    read = json.loads(json.dumps(custom))
    return f"{zlib.crc32(json.dumps(read, sort_keys=True).encode()):08x}"


@contextlib.contextmanager
def _reading(where: str, folder: Path) -> Iterator[None]:
    """Name the checkpoint where Orbax meets a file that is not as it was written."""
    try:
        yield
    except (OSError, MemoryError, jax.errors.JaxRuntimeError):
        raise  # the machine's, not the file's
    except Exception as error:
        raise _broken(where, folder, f"{type(error).__name__}: {error}") from error


def latest(directory: str | Path) -> Entry | None:
    """Return the finished checkpoint of the highest step.

    Args:
      directory: the directory of checkpoints.

    Returns:
      Its entry, or None if there is none; `load(None)` says so.

    Examples:
      >>> latest("no such directory") is None
      True
    """
    found = _folders(directory)
    if not found:
        return None
    step = max(found)
    return _entry(f"latest({str(directory)!r})", step, found[step])


def load(checkpoint: Entry | str | Path | None, like: Any) -> Any:
    """Load a checkpoint into the structure, shapes, dtypes and shardings of `like`.

    Args:
      checkpoint: an `Entry`, or the path of one.
      like: a pytree of arrays, of `jax.ShapeDtypeStruct`s, of typed keys and numbers:
        the saved state, or what has its structure. NumPy's arrays and numbers come
        back as such, everything else as JAX arrays. A number fits an array of shape ()
        of the same kind, and the reverse.

    Returns:
      A pytree of the structure of `like`.

    Raises:
      FileNotFoundError: if there is no finished checkpoint.
      ValueError: if leaves, shapes or dtypes differ, the first of which is named, or if
        a sharding does not divide its leaf.
      BrokenCheckpointError: a file is not as it was written, as checksums of the
        metadata and of every array say.
      TypeError: if `like` holds something else.

    Examples:
      >>> import tempfile
      >>> import jax, jax.numpy as jnp
      >>> state = {"w": jnp.ones(3), "key": jax.random.key(0), "step": 7}
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     folder = save(directory, 7, state)
      ...     again = load(latest(directory), state)
      >>> again["w"].tolist(), again["step"]
      ([1.0, 1.0, 1.0], 7)
    """
    path, found = _finished("load", checkpoint)
    where = f"load({str(path)!r})"
    wanted, saved = leaves.records(where, like), _saved(where, found)
    kept: dict[str, leaves.Record] = saved[_LEAVES]
    _check_fits(where, kept, wanted)
    named = tree.named_leaves(like)
    templates = {
        name: leaves.template(named[name], record)
        for name, record in kept.items()
        if leaves.is_stored(record)
    }
    _check_shardings(where, templates)
    arrays: dict[str, Any] = {}
    if templates:
        with _reading(where, found):
            arrays = _orbax().load(found, {_ARRAYS: templates})[_ARRAYS]
        for name, total in _sums(arrays).items():
            if saved[_SUMS][name] != total:
                why = f"leaf {name!r} has another checksum than it was saved with"
                raise _broken(where, found, why)
    # Names in a tree are unique, so they say where every leaf belongs.
    return tree.replace(
        like,
        {
            name: leaves.restored(arrays.get(name), named[name], record)
            for name, record in kept.items()
        },
    )


def load_latest(directory: str | Path, like: Any) -> tuple[Entry, Any] | None:
    """Load the newest checkpoint whose files are all as they were written.

    Args:
      directory: the directory of checkpoints.
      like: see `load`.

    Returns:
      Its entry and what it holds; None if there is no finished checkpoint.

    Raises:
      BrokenCheckpointError: if there are checkpoints, and none is whole.
      ValueError, TypeError: see `load`.

    Warns:
      PruningWarning: for each newer checkpoint that is broken.

    Examples:
      >>> import tempfile
      >>> import jax.numpy as jnp
      >>> state = {"w": jnp.ones(3)}
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     _ = save(directory, 7, state), save(directory, 8, state)
      ...     entry, again = load_latest(directory, state)
      >>> entry.step, again["w"].tolist()
      (8, [1.0, 1.0, 1.0])
    """
    broken = None
    for path in reversed(_folders(directory).values()):
        try:
            return read_entry("load_latest", path), load(path, like)
        except BrokenCheckpointError as error:
            warnings.warn(str(error), PruningWarning, stacklevel=2)
            broken = error
    if broken is not None:
        raise broken
    return None


def read_entry(call: str, checkpoint: Entry | str | Path | None) -> Entry:
    """Return the entry of a finished checkpoint, for messages of another function."""
    path, found = _finished(call, checkpoint)
    step = int(path.name) if path.name.isdecimal() else 0
    return _entry(f"{call}({str(path)!r})", step, found)


def _finished(call: str, checkpoint: Entry | str | Path | None) -> tuple[Path, Path]:
    """Return the path of a checkpoint, and the folder that holds it."""
    if checkpoint is None:
        raise FileNotFoundError(
            f"`{call}(None)`: must be a checkpoint; `latest` found no finished one in "
            "its directory. Start anew, or look for the directory with `entries`."
        )
    path = checkpoint.path if isinstance(checkpoint, Entry) else Path(checkpoint)
    path = path.resolve()
    found = _readable(path)
    if found is None:
        siblings = list(_folders(path.parent))
        raise FileNotFoundError(
            f"`{call}({str(path)!r})`: no finished checkpoint there. Steps beside it: "
            f"{siblings}."
        )
    return path, found


def _saved(where: str, folder: Path) -> dict[str, Any]:
    """Return what `save` wrote beside the arrays."""
    found = _custom(where, folder)
    if _LEAVES not in found:
        raise ValueError(
            f"`{where}`: the checkpoint must be one of `save`, which lists its leaves. "
            "Load it with Orbax."
        )
    return found


def _check_fits(where: str, stored, wanted) -> None:
    where = f"`{where}`: the checkpoint does not fit. "
    advice = " It was written by another network, method or configuration."
    for name in [*wanted, *stored]:
        if name not in stored:
            shape = tuple(wanted[name]["shape"])
            raise ValueError(
                f"{where}Leaf {name!r} of shape {shape} is not in it.{advice}"
            )
        if name not in wanted:
            raise ValueError(
                f"{where}It has a leaf {name!r} of shape "
                f"{tuple(stored[name]['shape'])} that is not asked for.{advice}"
            )
        difference = leaves.differs(stored[name], wanted[name])
        if difference is not None:
            raise ValueError(f"{where}Leaf {name!r} {difference}.{advice}")


def _check_shardings(where: str, templates: dict[str, Any]) -> None:
    """Refuse shardings that do not divide a leaf, before anything is read."""
    for name, template in templates.items():
        sharding = getattr(template, "sharding", None)
        if sharding is None:
            continue
        try:
            sharding.shard_shape(template.shape)
        except ValueError as error:
            raise ValueError(
                f"`{where}`: the sharding asked for must divide leaf {name!r} of shape "
                f"{template.shape}: {error}. Load it with another sharding."
            ) from error


def discard(path: str | Path) -> None:
    """Remove a checkpoint: first its name, at once, then what it holds.

    Args:
      path: its folder.

    Raises:
      FileNotFoundError: if there is none.

    Examples:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     discard(save(directory, 3, {}))
      ...     entries(directory)
      ()
    """
    shutil.rmtree(_hide(Path(path)))


def _hide(path: Path) -> Path:
    """Rename a checkpoint to a name under which it may be removed; return that."""
    hidden = path.with_name(f"{path.name}{_DISCARDED}")
    shutil.rmtree(hidden, ignore_errors=True)
    path.rename(hidden)
    return hidden


def tidy(
    directory: str | Path, *, keep_last: int | None = None, up_to: int | None = None
) -> None:
    """Remove checkpoints that are no longer wanted, and remains of killed processes.

    A replacement that was whole when its process was killed takes its place first.
    Call it from one process, while none is saving.

    Args:
      directory: the directory of checkpoints.
      keep_last: keep only this many of the highest steps.
      up_to: remove the checkpoints of later steps.

    Examples:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     folders = [save(directory, step, {}) for step in (1, 2, 3)]
      ...     tidy(directory, keep_last=1)
      ...     [entry.step for entry in entries(directory)]
      [3]
    """
    directory = Path(directory).resolve()
    if not directory.is_dir():
        return
    for path in directory.iterdir():
        if path.name.endswith(_DISCARDED) or ".orbax-checkpoint-tmp" in path.name:
            shutil.rmtree(path, ignore_errors=True)
    for path in directory.glob(f"*{_REPLACING}"):
        final = path.with_suffix("")
        if not final.name.isdecimal():
            continue
        if final.exists():
            discard(final)
        path.rename(final)
    found = _folders(directory)
    unwanted = [step for step in found if up_to is not None and step > up_to]
    if keep_last is not None:
        kept = [step for step in found if step not in unwanted]
        unwanted += kept[: max(len(kept) - keep_last, 0)]
    for step in unwanted:
        discard(found[step])
