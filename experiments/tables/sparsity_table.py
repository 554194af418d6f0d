"""Runs that prune weights, and their accuracy by config and sparsity as a table."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from experiments.logging.formatting import round_up
from experiments.logging.summary import config_of, read_summaries
from experiments.sweep.sweep_plan import DENSE
from experiments.tables import comparison
from experiments.tables.comparison import (
    Cell,
    check_subject,
    describe,
    gather,
    method_names,
    subject,
)
from experiments.tables.results import draw_markdown

Table = dict[str, dict[float | None, Cell]]
"""Cells by config and sparsity; the sparsity of a dense config is None."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One finished run.

    Attributes:
      config: the name of the config, from the folder of the run.
      method: the name of the function that plans it; `dense` if nothing was pruned.
      title: of the method, as papers write it.
      model: the name of the network.
      dataset: the name of the data set.
      sparsity: the target fraction of zeros; None if nothing was pruned.
      keep_ratio: the fraction of the prunable weights that is left.
      seed: the seed.
      accuracy: of the final network on the test data, a fraction.
      dense_accuracy: before pruning, if it was measured.
      seconds: how long the run took.
      jaxprune: the version of the library.
    """

    config: str
    method: str
    title: str
    model: str
    dataset: str
    sparsity: float | None
    keep_ratio: float
    seed: int
    accuracy: float
    dense_accuracy: float | None
    seconds: float
    jaxprune: str


def read_runs(workdir: str | Path) -> tuple[list[Row], list[Path]]:
    """Read the runs of a sweep.

    Args:
      workdir: the folder of the sweep, of `config/sparsity/seed` each with a run.

    Returns:
      A row for every finished run, in order, and the folders of those begun but not
      finished.

    Raises:
      ValueError: if no finished run prunes, or one does not compare: of another
        network or data set, or without a target.
    """
    finished, unfinished = read_summaries(workdir)
    rows = [_row(summary, folder, workdir) for folder, summary in finished.items()]
    if all(row.sparsity is None for row in rows):
        raise ValueError(
            f"`read_runs({str(workdir)!r})` requires the folder of a sweep, with "
            "finished runs that prune in config/sparsity/seed; there is none. Make "
            "them with `python -m experiments sweep`."
        )
    check_subject(rows, workdir)
    return sorted(rows, key=_order), unfinished


def tabulate(rows: Iterable[Row]) -> Table:
    """Gather the runs by config, in the order of their names, and sparsity."""
    return gather(sorted(rows, key=_order), lambda row: row.sparsity)


def to_markdown(rows: Sequence[Row], name: str) -> str:
    """Lay out accuracy by config and sparsity as a Markdown table.

    Args:
      rows: the runs; at least one.
      name: the name of the results, whose CSV file the caption refers to.

    Returns:
      A caption and the table. The best mean of each column is bold.
    """
    labels = method_names(rows)
    header, texts, best = lay_out(rows)
    lines = [[f"{labels[c]} (`{c}`)", *cells] for c, cells in texts.items()]
    command = "python -m experiments table"
    source = f"Every run: `results/{name}.csv`, read by `{command}`; best mean bold."
    return f"{caption(rows)} {source}\n\n{draw_markdown(header, lines, best)}\n"


def lay_out(
    rows: Sequence[Row],
) -> tuple[list[str], dict[str, list[str]], list[tuple[int, int]]]:
    """Lay out the table as texts: its header, and what `comparison.lay_out` returns."""
    sparsities = sorted({row.sparsity for row in rows if row.sparsity is not None})
    header = ["method", *(f"{100 * sparsity:.6g}%" for sparsity in sparsities)]
    return header, *comparison.lay_out(tabulate(rows), sparsities)


def caption(rows: Sequence[Row]) -> str:
    """What the numbers are, with names of configs between backquotes."""
    table = tabulate(rows)
    about = describe(table, f"{subject(rows[0])} by sparsity")
    dense = [f"`{c}`: {line[None]}" for c, line in table.items() if None in line]
    if dense:
        about += f" Dense, {'; '.join(dense)}."
    off = max(
        abs(row.keep_ratio - (1 - row.sparsity))
        for row in rows
        if row.sparsity is not None
    )
    within = f"Every keep ratio is within {round_up(100 * off)} points"
    return f"{about} {within} of its target."


def _row(summary: dict[str, Any], folder: Path, workdir: str | Path) -> Row:
    final, budget = summary["final"], summary["budget"]
    pruned = bool(summary["points"])
    if pruned and budget is None:
        raise ValueError(
            f"`read_runs(...)` compares at target sparsities; the size of the run in "
            f"{folder} was decided by a penalty weight."
        )
    method = summary["method"] if pruned else DENSE
    return Row(
        config=config_of(folder, workdir),
        method=method,
        title=summary.get("title", method),
        model=summary["model"],
        dataset=summary["dataset"],
        sparsity=round(1 - budget["weights"], 12) if pruned else None,
        keep_ratio=final["keep_ratio"],
        seed=summary["seed"],
        accuracy=final["accuracy"],
        dense_accuracy=summary["dense_accuracy"] if pruned else None,
        seconds=round(summary["seconds"], 1),
        jaxprune=summary["versions"]["jaxprune"],
    )


def _order(row: Row) -> tuple[str, float, int]:
    return row.config, -1.0 if row.sparsity is None else row.sparsity, row.seed
