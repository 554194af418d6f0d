"""What a run says of itself when it ends, in `summary.json`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SUMMARY_FILE = "summary.json"


def channel_limits(summary: Mapping[str, Any]) -> dict[str, float]:
    """The limits of a run that prunes channels, by cost; none for other runs."""
    budget = summary.get("budget") or {}
    return {name: x for name, x in budget.items() if name != "weights"}


def read_summaries(
    workdir: str | Path,
) -> tuple[dict[Path, dict[str, Any]], list[Path]]:
    """Read what the runs of a sweep say.

    Args:
      workdir: the folder of the sweep, of three levels of folders, then runs.

    Returns:
      The content of `summary.json` by the folder of every finished run, and the
      folders of those begun but not finished.
    """
    finished, unfinished = {}, []
    for folder in sorted(p.parent for p in Path(workdir).glob("*/*/*/config.json")):
        try:
            summary = json.loads((folder / SUMMARY_FILE).read_bytes())
        except FileNotFoundError:
            summary = {"status": "killed"}
        if summary["status"] == "finished":
            finished[folder] = summary
        else:
            unfinished.append(folder)
    return finished, unfinished
