"""What a run says of itself when it ends, in `summary.json`."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.logging.files import read_json

SUMMARY_FILE = "summary.json"
CELL_SUFFIX = ".cell.json"
"""How the file of a config at one size ends, whose seeds ran in one program."""

_LEVELS = ("*/*/*", "*/*/*/*")


def channel_limits(summary: Mapping[str, Any]) -> dict[str, float]:
    """The limits of a run that prunes channels, by cost; none for other runs."""
    budget = summary.get("budget") or {}
    return {name: x for name, x in budget.items() if name != "weights"}


def read_summaries(
    workdir: str | Path,
) -> tuple[dict[Path, dict[str, Any]], list[Path]]:
    """Read what the runs of a sweep say, in `CONFIG/POINT/SEED`.

    The name of a config may be that of a folder and of a file in it.

    Returns:
      The content of `summary.json` by the folder of every finished run, and the
      folders of those begun but not finished.
    """
    finished, unfinished = {}, []
    files = itertools.chain(
        *(Path(workdir).glob(f"{levels}/config.json") for levels in _LEVELS)
    )
    for folder in sorted(file.parent for file in files):
        try:
            summary = read_json(folder / SUMMARY_FILE)
        except FileNotFoundError:
            summary = {"status": "killed"}
        if summary["status"] == "finished":
            finished[folder] = summary
        else:
            unfinished.append(folder)
    return finished, unfinished


def config_of(folder: Path, workdir: str | Path) -> str:
    """Return the name of the config of a run, from its folder in that of the sweep.

    >>> config_of(Path("runs/sweep/digits/ltp/0.9/0"), "runs/sweep")
    'digits/ltp'
    """
    return folder.relative_to(workdir).parents[1].as_posix()
