"""The folder of a run: which config it belongs to."""

import json
from pathlib import Path
from typing import Any

from experiments.logging.files import write_atomically
from experiments.plans.weight_plans import Config

# Fields that change what is shown, not what is computed.
_COSMETIC = frozenset({"progress"})


def config_as_json(config: Config) -> dict[str, Any]:
    """Returns the config as JSON values; functions by their qualified name."""
    text = json.dumps(
        config.to_dict(), default=lambda f: f"{f.__module__}.{f.__qualname__}"
    )
    return json.loads(text)


def claim(workdir: Path, config: Config) -> None:
    """Writes the config into a new workdir; refuses one that belongs to another.

    Raises:
      ValueError: if `workdir` holds another config, whose first difference is named,
        or checkpoints without a config.
      OSError: if the folder cannot be written.
    """
    path = workdir / "config.json"
    ours = config_as_json(config)
    if path.exists():
        theirs = json.loads(path.read_text())
        for field in sorted((ours.keys() | theirs.keys()) - _COSMETIC):
            if ours.get(field) != theirs.get(field):
                raise ValueError(
                    f"`workdir={str(workdir)!r}` belongs to another config: {field!r} "
                    f"is {theirs.get(field)!r} there, {ours.get(field)!r} was asked "
                    "for. Choose another workdir, or the values in its `config.json`."
                )
        return
    if any(workdir.glob("checkpoints/*")):
        raise ValueError(
            f"`workdir={str(workdir)!r}` holds checkpoints but no `config.json`. "
            "Choose another workdir."
        )
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(ours, indent=2) + "\n")
    except OSError as error:
        raise OSError(
            f"`workdir={str(workdir)!r}` cannot be written: {error}. Choose a folder "
            "on a disk with room, in which you may write."
        ) from error
