"""The folder of a run: which config it belongs to."""

import json
from pathlib import Path
from typing import Any

from experiments.configs import leaves
from experiments.logging.files import write_atomically
from experiments.plans.method import Config

# Fields that change what is printed, not what is computed.
_COSMETIC = frozenset({"run.progress", "title"})


def config_as_json(config: Config) -> dict[str, Any]:
    """Returns the config as JSON values; the method by its name."""
    return json.loads(json.dumps(config.to_dict(), default=lambda plan: plan.name))


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
        one = dict(leaves(ours))
        other = dict(leaves(json.loads(path.read_text())))
        for field in sorted((one.keys() | other.keys()) - _COSMETIC):
            if one.get(field) != other.get(field):
                raise ValueError(
                    f"`workdir={str(workdir)!r}` belongs to another config: {field!r} "
                    f"is {other.get(field)!r} there and {one.get(field)!r} here. "
                    "Choose another workdir, or the values in its `config.json`."
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
