"""A page that compares the runs of a sweep: a picture, a table, and every run."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from experiments.logging.formatting import MISSING, percent
from experiments.report import pages
from experiments.report.plots.rendering import inline_svg
from experiments.tables import table
from experiments.tables.rows import COSTS, Row, shown

_DRAWN = (
    "Mean over the seeds, with bars of one sample standard deviation. Accuracy is "
    "logarithmic in the errors made."
)


def render(
    rows: Sequence[Row], *, workdir: Path, name: str, unfinished: Sequence[Path] = ()
) -> str:
    """Make the page that compares the runs of a sweep.

    Args:
      rows: the runs; at least one that prunes.
      workdir: the folder of the sweep, for the command on the page.
      name: the name of the results.
      unfinished: what is not among the rows.

    Returns:
      The page; it loads and runs nothing.
    """
    labels = table.labels_of(rows)
    header, texts, best = table.lay_out(rows)
    lines = [[labels[config], *cells] for config, cells in texts.items()]
    ours = [row for row in rows if not row.recorded]
    versions = sorted({row.jaxprune for row in ours})
    facts = [
        f"{len(ours)} runs",
        f"{len({row.seed for row in ours})} seeds",
        f"jaxprune {', '.join(versions)}",
    ]
    badge = ("finished", "good")
    if unfinished:
        badge = (f"{len(unfinished)} unfinished", "warn")
    words = ["python", "-m", "experiments", "table"]
    command = shlex.join([*words, f"--workdir={workdir}", f"--name={name}"])
    caption = pages.text(f"{table.caption(rows)} The best mean is marked.")
    caption = re.sub(r"`([^`]*)`", r"<code>\1</code>", caption)
    picture = inline_svg(table.draw(rows), "comparison", label=_DRAWN)
    return pages.render(
        "Methods compared",
        subject=table.subject(rows),
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
        footer="Made by jaxprune from what every run says of itself.",
    )


def _cards(rows: Sequence[Row]) -> list[pages.Card]:
    """Show the best of the first columns, all those that print alike."""
    labels = table.labels_of(rows)
    header, texts, best = table.lay_out(rows)
    cards = []
    for number, size in enumerate(header[1:5], start=1):
        first = [list(texts)[row] for row, column in best if column == number]
        value = texts[first[0]][number - 1].partition(" ")[0]
        names = ", ".join(labels[config] for config in first)
        cards.append((f"Best at {size}", f"{value}%", names, ""))
    return cards


def _every_run(rows: Sequence[Row]) -> str:
    costs = [name for name in COSTS if any(getattr(r, name) is not None for r in rows)]
    header = ["config", "network", "size", "seed", "accuracy", *costs, "seconds"]
    lines = [
        [
            row.config,
            row.model,
            shown(row.size),
            str(row.seed),
            f"{100 * row.accuracy:.2f}%",
            *(MISSING if (x := getattr(row, c)) is None else percent(x) for c in costs),
            f"{row.seconds:.0f}",
        ]
        for row in rows
    ]
    return pages.details("Every run", pages.table(header, lines, left={0}))
