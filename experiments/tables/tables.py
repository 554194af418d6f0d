"""From the runs of a sweep to a table in README.md, a CSV file and a page to compare.

Command:
    python -m experiments table --workdir=runs/sweep --name=digits_cnn

reads every finished `summary.json` below the workdir and writes

- `results/digits_cnn.csv`, a row for every run: small, and kept under version control;
- `comparison.html` and `comparison.png` in the workdir;
- into README.md, between the lines `<!-- results:digits_cnn begin -->` and
  `<!-- results:digits_cnn end -->`, accuracy by config and sparsity: mean ± sample
  standard deviation over the seeds.

Of runs that prune channels the columns are budgets, and there is no page; `--times`
adds how long the methods take. Of cells (`python -m experiments seeds`) the columns are
networks and sizes, rows of `results/NAME_recorded.csv` stand beside them, and a picture
is written to `results/NAME.svg`.

Without `--workdir` the CSV file is read instead and only README.md is written, so that
a clone without the runs can check its table. No number is typed by hand anywhere.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.logging.files import write_atomically
from experiments.logging.summary import CELL_SUFFIX, read_summaries
from experiments.report.plots.rendering import png, svg
from experiments.tables import (
    cells_table,
    channel_table,
    comparison_page,
    results,
    sparsity_table,
)

PAGE_FILE = "comparison.html"
PICTURE_FILE = "comparison.png"


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the tables from the command line, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments table",
        description="Compare the finished runs of a sweep.",
        allow_abbrev=False,
    )
    results.add_arguments(parser)
    parser.add_argument(
        "--page-only", action="store_true", help="write neither CSV nor README"
    )
    parser.add_argument(
        "--times",
        action="store_true",
        help="show how long methods that prune channels took, each alone on a machine",
    )
    parsed = parser.parse_args(arguments)
    if parsed.page_only and parsed.workdir is None:
        parser.error("argument --page-only: needs --workdir")
    try:
        if _is_of_cells(parsed):
            _write_cells(parsed)
        elif _prunes_channels(parsed):
            if parsed.page_only:
                parser.error("argument --page-only: runs that prune channels have none")
            _write_channels(parsed)
        else:
            if parsed.times:
                parser.error("argument --times: for runs that prune channels")
            _write(parsed)
    except (OSError, ValueError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def _is_of_cells(parsed: argparse.Namespace) -> bool:
    """Whether the runs are of many seeds in one program each."""
    if parsed.workdir is None:
        return "recorded" in results.columns(parsed)
    return any(Path(parsed.workdir).rglob(f"*{CELL_SUFFIX}"))


def _write_cells(parsed: argparse.Namespace) -> None:
    """Write CSV, README.md and picture, or nothing if README.md has no place."""
    kind = cells_table.Row
    rows, unread = results.load(parsed, kind, cells_table.read_cells)
    folder = Path(parsed.results)
    recorded = folder / f"{parsed.name}_recorded.csv"
    known = results.from_csv(recorded.read_text(), kind) if recorded.exists() else []
    markdown = cells_table.to_markdown([*rows, *known], parsed.name)
    results.save(parsed, kind, rows, markdown)
    picture = svg(cells_table.draw([*rows, *known]))
    write_atomically(folder / f"{parsed.name}.svg", picture)
    results.show(markdown, unread)


def _prunes_channels(parsed: argparse.Namespace) -> bool:
    """Whether the runs are of methods that prune channels."""
    if parsed.workdir is None:
        return "budget" in results.columns(parsed)
    finished, _ = read_summaries(parsed.workdir)
    return any(summary.get("channels") for summary in finished.values())


def _write_channels(parsed: argparse.Namespace) -> None:
    """Write CSV and README.md, or nothing if README.md has no place for the table."""
    kind = channel_table.Row
    rows, unfinished = results.load(parsed, kind, channel_table.read_runs)
    markdown = channel_table.to_markdown(rows, parsed.name, times=parsed.times)
    results.save(parsed, kind, rows, markdown)
    results.show(markdown, unfinished)


def _write(parsed: argparse.Namespace) -> None:
    """Write all files, or nothing if README.md has no place for the table."""
    kind = sparsity_table.Row
    rows, unfinished = results.load(parsed, kind, sparsity_table.read_runs)
    markdown = sparsity_table.to_markdown(rows, parsed.name)
    written = []
    if not parsed.page_only:
        written += results.save(parsed, kind, rows, markdown)
    if parsed.workdir is not None:
        workdir = Path(parsed.workdir)
        picture = png(comparison_page.draw(rows))
        text = comparison_page.render(
            rows, workdir=workdir, name=parsed.name, unfinished=unfinished
        )
        for file, data in ((PICTURE_FILE, picture), (PAGE_FILE, text)):
            write_atomically(workdir / file, data)
            written.append(workdir / file)
    results.show(markdown, unfinished)
    for file in written:
        print(file)
