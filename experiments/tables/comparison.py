"""Runs side by side: accuracies by config and column, and what is said of them."""

import dataclasses
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from experiments.logging.formatting import MISSING

Key = TypeVar("Key")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """The runs of one config in one column of a table.

    Attributes:
      accuracies: of the runs, by seed.
    """

    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean of the accuracies."""
        return statistics.fmean(self.accuracies)

    @property
    def spread(self) -> float | None:
        """The sample standard deviation, with n - 1; None for a single run."""
        if len(self.accuracies) < 2:
            return None
        return statistics.stdev(self.accuracies)

    def __str__(self) -> str:
        """Mean ± spread, in percent."""
        spread = "" if self.spread is None else f" ± {100 * self.spread:.2f}"
        return f"{100 * self.mean:.2f}{spread}"


def gather(
    rows: Iterable[Any], column: Callable[[Any], Key]
) -> dict[str, dict[Key, Cell]]:
    """Gather rows by config and column; both come in the order of the rows."""
    found: dict[str, dict[Key, tuple[float, ...]]] = {}
    for row in rows:
        line = found.setdefault(row.config, {})
        line[column(row)] = (*line.get(column(row), ()), row.accuracy)
    return {
        config: {key: Cell(accuracies=values) for key, values in line.items()}
        for config, line in found.items()
    }


def lay_out(
    table: Mapping[str, Mapping[Key, Cell]],
    columns: Sequence[Key],
    *,
    usual: int | None = None,
) -> tuple[dict[str, list[str]], list[tuple[int, int]]]:
    """Lay out cells as texts, with the number of runs where it is not the usual one.

    Args:
      table: cells by config and column.
      columns: those to show, in order.
      usual: the usual number of runs of a cell; the largest if not given.

    Returns:
      The cells of every config that has one of the columns; and which of them hold the
      best mean of their column, by row and column. Column 0 is left for names.
    """
    counts = {len(cell.accuracies) for line in table.values() for cell in line.values()}
    usual = usual or max(counts)
    lines = {c: line for c, line in table.items() if any(x in line for x in columns)}
    texts = {config: [] for config in lines}
    best = []
    for number, column in enumerate(columns, start=1):
        # As printed: what a reader cannot tell apart is equal.
        means = [
            round(100 * line[column].mean, 2) if column in line else -1.0
            for line in lines.values()
        ]
        best += [(row, number) for row, m in enumerate(means) if m == max(means)]
        for config, line in lines.items():
            cell = line.get(column)
            count = len(cell.accuracies) if cell else usual
            note = f" ({count})" if count != usual else ""
            texts[config].append(f"{cell}{note}" if cell else MISSING)
    return texts, best


def describe(table: Mapping[str, Mapping[Any, Cell]], what: str) -> str:
    """Say what the cells are, and of how many seeds."""
    counts = {len(cell.accuracies) for line in table.values() for cell in line.values()}
    seeds = f"{max(counts)} seeds" if max(counts) > 1 else "one seed"
    about = f"Test accuracy in % of {what}: "
    about += "mean ± sample standard deviation of " if max(counts) > 1 else ""
    return f"{about}{seeds}{', or fewer where in parentheses' * (len(counts) > 1)}."


def method_names(rows: Iterable[Any]) -> dict[str, str]:
    """The titles of the methods by config, as papers write them.

    Two configs of one method go by their own names.
    """
    labels = {row.config: row.title for row in rows}
    names = list(labels.values())
    return {c: n if names.count(n) == 1 else c for c, n in labels.items()}


def subject(row: Any) -> str:
    """What was trained on what, such as `cnn on digits`."""
    return f"{row.model} on {row.dataset}"


def check_subject(rows: Iterable[Any], workdir: str | Path) -> None:
    """Raises ValueError if rows are of several networks or data sets."""
    subjects = sorted({subject(row) for row in rows})
    if len(subjects) > 1:
        raise ValueError(
            f"`read_runs({str(workdir)!r})` compares methods on one network and data "
            f"set; got {', '.join(subjects)}. Give each a sweep of its own."
        )
