"""A page that compares the runs of a sweep: a picture, a table, and every run."""

import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from experiments.logging.formatting import MISSING, percent
from experiments.report import pages
from experiments.report.plots.accuracy import accuracy_by_method
from experiments.report.plots.rendering import inline_svg
from experiments.tables import sparsity_table
from experiments.tables.comparison import Cell, method_names, subject
from experiments.tables.sparsity_table import Row, tabulate

_DRAWN = (
    "Mean over the seeds, with bars of one sample standard deviation; dots are single"
    " runs. Both axes are logarithmic: in the weights kept, and in the errors made."
)


def draw(rows: Iterable[Row]) -> Figure:
    """Draw accuracy against sparsity, a line for every config that prunes."""
    rows = list(rows)
    table, labels = tabulate(rows), method_names(rows)
    lines = {
        labels[config]: [
            {"sparsity": sparsity, **_point(cell)}
            for sparsity, cell in cells.items()
            if sparsity is not None
        ]
        for config, cells in table.items()
        if {*cells} != {None}
    }
    dense = [cells[None] for cells in table.values() if None in cells]
    return accuracy_by_method(
        lines, dense=_point(dense[0]) if len(dense) == 1 else None
    )


def render(
    rows: Sequence[Row], *, workdir: Path, name: str, unfinished: Sequence[Path] = ()
) -> str:
    """Make the page that compares the runs of a sweep.

    Args:
      rows: the runs; at least one.
      workdir: the folder of the sweep, for the command on the page.
      name: the name of the results.
      unfinished: folders of runs that are not among the rows.

    Returns:
      The page; it loads and runs nothing.
    """
    labels = method_names(rows)
    header, texts, best = sparsity_table.lay_out(rows)
    lines = [[labels[config], *cells] for config, cells in texts.items()]
    versions = sorted({row.jaxprune for row in rows})
    facts = [
        f"{len(rows)} runs",
        f"{len({row.seed for row in rows})} seeds",
        f"{sum(row.seconds for row in rows) / 60:.0f} min of computing",
        f"jaxprune {', '.join(versions)}",
    ]
    badge = ("finished", "good")
    if unfinished:
        badge = (f"{len(unfinished)} unfinished", "warn")
    words = ["python", "-m", "experiments", "table"]
    command = shlex.join([*words, f"--workdir={workdir}", f"--name={name}"])
    about = sparsity_table.caption(rows)
    caption = _code(f"{about} The best mean of each column is marked.")
    picture = inline_svg(draw(rows), "comparison", label=_DRAWN)
    return pages.render(
        "Methods compared",
        subject=subject(rows[0]),
        facts=" · ".join(facts),
        badge=badge,
        cards=_cards(rows),
        sections=[
            pages.section("Picture", pages.figure(picture, _DRAWN), "picture"),
            pages.section(
                "Table",
                pages.table(header, lines, left={0}, best=best)
                + pages.caption(caption),
                "table",
            ),
            _every_run(rows),
            pages.section(
                "Make it again", f"<pre>{pages.text(command)}</pre>", "again"
            ),
        ],
        footer="Made by jaxprune from the <code>summary.json</code> of every run.",
    )


def _cards(rows: Sequence[Row]) -> list[pages.Card]:
    """Show the best at every sparsity, all those that print alike."""
    table, labels = tabulate(rows), method_names(rows)
    cards = []
    for sparsity in sorted({r.sparsity for r in rows if r.sparsity is not None}):
        found = {c: line[sparsity] for c, line in table.items() if sparsity in line}
        printed = {config: f"{100 * cell.mean:.2f}%" for config, cell in found.items()}
        best = printed[max(found, key=lambda c: found[c].mean)]
        first = [labels[config] for config in printed if printed[config] == best]
        cards.append((f"Best at {100 * sparsity:.6g}%", best, ", ".join(first), ""))
    return cards


def _every_run(rows: Sequence[Row]) -> str:
    header = ["config", "sparsity", "seed", "keep ratio", "accuracy", "seconds"]
    lines = [
        [
            row.config,
            MISSING if row.sparsity is None else f"{100 * row.sparsity:.6g}%",
            str(row.seed),
            percent(row.keep_ratio),
            f"{100 * row.accuracy:.2f}%",
            f"{row.seconds:.0f}",
        ]
        for row in rows
    ]
    drawn = pages.table(header, lines, left={0})
    return pages.details("Every run", drawn)


def _point(cell: Cell) -> dict[str, Any]:
    return {
        "mean": cell.mean,
        "spread": cell.spread,
        "accuracies": list(cell.accuracies),
    }


def _code(text: str) -> str:
    """Make markup of a text with code between backquotes."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", pages.text(text))
