"""A page that compares the runs of a sweep: a picture, a table, and every run."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.logging.formatting import fraction
from experiments.logging.measure import Measure
from experiments.report import pages
from experiments.report.plots.rendering import inline_svg
from experiments.tables import table
from experiments.tables.rows import COSTS, Frame, measured_by, ours, shown

_DRAWN = (
    "Mean over the seeds, with bars of one sample standard deviation. Accuracy, if it "
    "is drawn, is logarithmic in the errors made."
)


def render(
    rows: Frame, *, workdir: Path, name: str, unfinished: Sequence[Path] = ()
) -> str:
    """Make the page that compares the runs of a sweep; it loads and runs nothing.

    It shows the command that made it, and says how many runs are unfinished.
    """
    texts, best = table.lay_out(rows)
    texts = texts.rename(table.labels_of(rows))
    texts.columns = table.headings(rows)
    measured, measure = ours(rows), measured_by(rows)
    facts = [
        f"{len(measured)} runs",
        f"{measured['seed'].nunique()} seeds",
        f"jaxprune {', '.join(sorted(measured['jaxprune'].unique()))}",
    ]
    badge = ("finished", "good")
    if unfinished:
        badge = (f"{len(unfinished)} unfinished", "warn")
    words = ["python", "-m", "experiments", "table"]
    command = shlex.join([*words, f"--workdir={workdir}", f"--name={name}"])
    caption = pages.text(f"{table.caption(rows)} The best mean is marked.")
    caption = re.sub(r"`([^`]*)`", r"<code>\1</code>", caption)
    picture = inline_svg(table.draw(rows), "comparison", label=_DRAWN)
    drawn = pages.table(
        texts.rename_axis("method").reset_index(),
        left=["method"],
        best=np.pad(best.to_numpy(), ((0, 0), (1, 0))),  # no name is the best
    )
    return pages.render(
        "Methods compared",
        subject=table.subject(rows),
        facts=" · ".join(facts),
        badge=badge,
        cards=[
            _card(size, texts.loc[best.iloc[:, column].to_numpy(), size], measure)
            for column, size in enumerate(texts.columns[:4])
        ],
        sections=[
            pages.section("Picture", pages.figure(picture, _DRAWN), "picture"),
            pages.section("Table", drawn + pages.caption(caption), "table"),
            _every_run(rows),
            pages.section(
                "Make it again", f"<pre>{pages.text(command)}</pre>", "again"
            ),
        ],
        footer="Made by jaxprune from what every run says of itself.",
    )


def _card(size: str, best: pd.Series, measure: Measure) -> pages.Card:
    """Show the best of a column, all those that print alike."""
    value = best.iloc[0].partition(" ")[0]
    return f"Best at {size}", value + measure.unit[0], ", ".join(best.index), ""


def _every_run(rows: Frame) -> str:
    """List all runs, with the costs that some of them state."""
    known = rows[[*COSTS]].dropna(axis="columns", how="all")
    measure = measured_by(rows)
    every = rows[["config", "model", "size", "seed", measure.key, *known, "seconds"]]
    every = every.assign(
        size=rows["size"].map(shown),
        **{measure.key: rows[measure.key].map(measure.show)},
        seconds=rows["seconds"].map("{:.0f}".format),
        **known.map(fraction),
    ).rename(columns={"model": "network", measure.key: measure.name})
    return pages.details("Every run", pages.table(every, left=["config"]))
