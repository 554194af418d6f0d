"""The numbers of a run that two equal runs have in common: all but the times."""

from pathlib import Path
from typing import Any

from experiments.logging.metrics_file import read_metrics
from experiments.run.advance import INPUT_SECONDS


def numbers(workdir: Path) -> list[dict[str, Any]]:
    """The metrics of a run without the seconds that its steps waited for a batch."""
    lines = read_metrics(workdir / "metrics.jsonl")
    assert sum(line.pop(INPUT_SECONDS, None) is not None for line in lines) > 3
    return lines
