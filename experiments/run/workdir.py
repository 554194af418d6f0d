"""The folder of a run: which config it belongs to, and which process."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import jax

from experiments.configs import default, leaves
from experiments.logging.files import read_json, write_atomically
from experiments.plans.method import Config
from experiments.run import hosts

LATENCY_FILE = "latency.json"

# Fields that change what is printed, not what is computed.
_COSMETIC = frozenset({"run.progress", "title"})


def config_as_json(config: Config) -> dict[str, Any]:
    """Returns the config as JSON values; the method by its name."""
    return json.loads(json.dumps(config.to_dict(), default=lambda plan: plan.name))


@contextlib.contextmanager
def claim(workdir: Path, config: Config) -> Iterator[None]:
    """Writes the config into a workdir, and keeps other processes out of it.

    The system frees the lock when the process ends, however it ends.

    Raises:
      ValueError: if another process is at work in `workdir`, or it holds another
        config, whose first difference is named, or checkpoints without a config.
      OSError: if the folder cannot be written.
    """
    new = not workdir.exists()
    with contextlib.ExitStack() as stack:

        def enter() -> int:
            try:
                workdir.mkdir(parents=True, exist_ok=True)
                stack.enter_context(filelock.FileLock(workdir / ".lock", timeout=0))
                _check_and_write(workdir, config)
            except filelock.Timeout as error:
                raise ValueError(
                    f"`workdir={str(workdir)!r}` is in use: another run holds its "
                    "lock. Wait for that run, stop it, or choose another workdir."
                ) from error
            except OSError as error:
                raise OSError(
                    f"`workdir={str(workdir)!r}` cannot be written: {error}. Choose a "
                    "folder on a disk with room, in which you may write."
                ) from error
            return 0

        hosts.from_first(enter)
        try:
            yield
        except ValueError:
            # A config that cannot be run leaves nothing behind.
            if new and jax.process_index() == 0 and not _has_begun(workdir):
                shutil.rmtree(workdir, ignore_errors=True)
            raise


def _has_begun(workdir: Path) -> bool:
    return any(workdir.glob("checkpoints/*"))


def _check_and_write(workdir: Path, config: Config) -> None:
    """Writes the config, unless a run of it or of another one has begun."""
    path, ours = workdir / "config.json", config_as_json(config)
    begun = _has_begun(workdir)
    if begun and not path.exists():
        raise ValueError(
            f"`workdir={str(workdir)!r}` holds checkpoints but no `config.json`. "
            "Choose another workdir."
        )
    if begun:
        # What a newer version added was at its default when the run began.
        defaults = dict(leaves(config_as_json(default.get_config(config.plan))))
        one, other = dict(leaves(ours)), dict(leaves(read_json(path)))
        for field in sorted((one.keys() | other.keys()) - _COSMETIC):
            theirs = other.get(field, defaults.get(field))
            if one.get(field) != theirs:
                raise ValueError(
                    f"`workdir={str(workdir)!r}` belongs to another config: {field!r} "
                    f"is {theirs!r} there and {one.get(field)!r} here. Choose another "
                    "workdir, or the values in its `config.json`."
                )
        return
    text = json.dumps(ours, indent=2) + "\n"
    if not path.exists() or path.read_text() != text:
        # Nothing is lost: what was measured for another config would be wrong here.
        (workdir / LATENCY_FILE).unlink(missing_ok=True)
        write_atomically(path, text)
