"""Checkpoints on disk, through Orbax; nothing else in the library touches the disk.

A directory of checkpoints holds one folder for each step, `DIRECTORY/<step>`. A
checkpoint appears under its name only when it is whole, and disappears from it at once:
whatever kills the process, a folder with a whole number for a name can be read. One
that is saved again stays until the new one is whole beside it. Each
carries a dictionary of metadata, so that a trail of ever sparser networks can be asked
for the smallest that is accurate enough, or the most accurate that is small enough.

Orbax is imported on first use.
"""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxprune import tree
from jaxprune.io._trail import most_accurate as most_accurate
from jaxprune.io._trail import smallest as smallest

_DISCARDED = ".discarded"
# The name of a whole checkpoint that is about to take the place of an older one.
_REPLACING = ".replacing"


def _orbax() -> Any:
    from orbax.checkpoint import v1

    return v1


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
    """Saves a pytree as `directory/<step>`, replacing a checkpoint of that step.

    Returns when the checkpoint is whole on disk. With several processes, all call it.
    A checkpoint of the same step is removed only when the new one is whole; at every
    moment one of the two can be read.

    Args:
      directory: where the checkpoints are; made if needed.
      step: not negative.
      state: a pytree of arrays.
      metadata: JSON values to store beside it.

    Returns:
      The folder.

    Raises:
      ValueError: if `step` is negative.
      OSError: if the disk is full or cannot be written; earlier checkpoints stay.
    """
    if step < 0:
        raise ValueError(f"`save(step={step})`: a step must not be negative.")
    directory = Path(directory).resolve()
    path = directory / str(step)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # Orbax writes beside the name that it is given and renames at the end.
        if not path.exists():
            _orbax().save(path, state, custom_metadata=metadata or {})
        else:
            new = path.with_name(f"{step}{_REPLACING}")
            if new.exists():
                discard(new)
            _orbax().save(new, state, custom_metadata=metadata or {})
            # No system renames over a folder with something in it; between the two
            # renames readers take the new one by the name that it has.
            old = _hide(path)
            new.rename(path)
            shutil.rmtree(old)
    except OSError:
        raise
    except ValueError as error:
        # TensorStore reports what the operating system said as a ValueError.
        raise OSError(
            f"`save({str(directory)!r}, step={step})`: the checkpoint could not be "
            "written; earlier ones are untouched. Is the disk full or read-only? "
            f"{error}"
        ) from error
    return path


def entries(directory: str | Path) -> tuple[Entry, ...]:
    """Lists the finished checkpoints of a directory, by step."""
    directory = Path(directory).resolve()
    if not directory.is_dir():
        return ()
    names = (p.name.removesuffix(_REPLACING) for p in directory.iterdir())
    steps = sorted({int(name) for name in names if name.isdecimal()})
    paths = (_readable(directory / str(step)) for step in steps)
    return tuple(
        _entry(path, step) for path, step in zip(paths, steps, strict=True) if path
    )


def _readable(path: Path) -> Path | None:
    """The folder that holds this checkpoint, or None if none is whole."""
    # A process may have been killed after it had moved the older one out of the way.
    for folder in (path, path.with_name(f"{path.name}{_REPLACING}")):
        if _is_finished(folder):
            return folder
    return None


def _is_finished(path: Path) -> bool:
    # Orbax takes any folder for a checkpoint of its first kind, even an empty one.
    marked = (path / "_CHECKPOINT_METADATA").is_file()
    return marked and _orbax().is_orbax_checkpoint(path)


def _entry(path: Path, step: int) -> Entry:
    metadata = _orbax().metadata(path).custom_metadata
    return Entry(
        path=path,
        step=step,
        metadata=dict(metadata) if isinstance(metadata, dict) else {},
    )


def latest(directory: str | Path) -> Entry | None:
    """Returns the finished checkpoint of the highest step, or None."""
    found = entries(directory)
    return found[-1] if found else None


def load(checkpoint: Entry | str | Path, like: Any) -> Any:
    """Loads a checkpoint into the structure, shapes, dtypes and shardings of `like`.

    Args:
      checkpoint: an `Entry`, or the path of one.
      like: a pytree of arrays or of `jax.ShapeDtypeStruct`s.

    Returns:
      A pytree of the structure of `like`.

    Raises:
      FileNotFoundError: if there is no finished checkpoint.
      ValueError: if leaves, shapes or dtypes differ; the first differing leaf is named.
    """
    path = checkpoint.path if isinstance(checkpoint, Entry) else Path(checkpoint)
    path = path.resolve()
    orbax = _orbax()
    found = _readable(path)
    if found is None:
        siblings = [entry.step for entry in entries(path.parent)]
        raise FileNotFoundError(
            f"`load({str(path)!r})`: no finished checkpoint there. Steps beside it: "
            f"{siblings}."
        )
    abstract = jax.tree.map(_abstract, like)
    _check_fits(path, orbax.metadata(found).metadata, abstract)
    return orbax.load(found, abstract)


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    default = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(
        jnp.shape(leaf),
        jnp.result_type(leaf),
        sharding=getattr(leaf, "sharding", None) or default,
    )


def _plain_names(state: Any) -> dict[str, Any]:
    # Orbax stores a NamedTuple as a dict and a tuple as a list, and an NNX variable as
    # a dict: names by the path, with the wrapper's `value` dropped, are the same.
    return {
        name.removesuffix("/value"): leaf
        for name, leaf in tree.named_leaves(state).items()
    }


def _check_fits(path: Path, stored: Any, wanted: Any) -> None:
    stored, wanted = _plain_names(stored), _plain_names(wanted)
    where = f"`load({str(path)!r})`: the checkpoint does not fit. "
    advice = " It was written by another network, method or configuration."
    for name in [*wanted, *stored]:
        if name not in stored:
            leaf = wanted[name]
            raise ValueError(
                f"{where}Leaf {name!r} of shape {leaf.shape} is not in it.{advice}"
            )
        if name not in wanted:
            raise ValueError(
                f"{where}It has a leaf {name!r} of shape {tuple(stored[name].shape)} "
                f"that is not asked for.{advice}"
            )
        ours, theirs = wanted[name], stored[name]
        if tuple(ours.shape) != tuple(theirs.shape):
            raise ValueError(
                f"{where}Leaf {name!r} has shape {tuple(theirs.shape)} in the "
                f"checkpoint, {tuple(ours.shape)} was asked for.{advice}"
            )
        if ours.dtype != theirs.dtype:
            raise ValueError(
                f"{where}Leaf {name!r} has dtype {theirs.dtype} in the checkpoint, "
                f"{ours.dtype} was asked for.{advice}"
            )


def discard(path: str | Path) -> None:
    """Removes a checkpoint: first its name, at once, then what it holds."""
    shutil.rmtree(_hide(Path(path)))


def _hide(path: Path) -> Path:
    """Takes a checkpoint its name; returns the one under which it may be removed."""
    hidden = path.with_name(f"{path.name}{_DISCARDED}")
    shutil.rmtree(hidden, ignore_errors=True)
    path.rename(hidden)
    return hidden


def tidy(
    directory: str | Path, *, keep_last: int | None = None, up_to: int | None = None
) -> None:
    """Removes checkpoints that are no longer wanted, and remains of killed processes.

    A replacement that was whole when its process was killed takes its place first.
    Call it from one process, while none is saving.

    Args:
      directory: the directory of checkpoints.
      keep_last: keep only this many of the highest steps.
      up_to: remove the checkpoints of later steps.
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
    found = entries(directory)
    if up_to is not None:
        for entry in found:
            if entry.step > up_to:
                discard(entry.path)
        found = tuple(entry for entry in found if entry.step <= up_to)
    if keep_last is not None:
        for entry in found[: max(len(found) - keep_last, 0)]:
            discard(entry.path)
