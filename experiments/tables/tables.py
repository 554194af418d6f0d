"""From finished runs to a table in the documentation, a CSV file, a picture and a page.

Command:
    python -m experiments table --workdir=runs/sweep --name=digits_cnn

reads every finished `summary.json` below the workdir, and cells (`python -m experiments
seeds --test`), and writes

- `docs/results/digits_cnn.csv`, a row for every run, kept under version control;
- `docs/results/digits_cnn.svg`, accuracy against size, if the document shows it;
- `comparison.html` in the workdir;
- into `docs/results/index.md`, between `<!-- results:digits_cnn begin -->` and
  `<!-- results:digits_cnn end -->`, accuracy by method, network and size: mean ± sample
  standard deviation over the seeds. `--times` adds how long the methods take.

Rows that were measured by another program are in `docs/results/NAME_recorded.csv`, with
the same columns. They stand beside the others, marked as recorded, and are not written.

Without `--workdir` the CSV file is read instead, and the document and the picture are
written, so that a clone without the runs can check its table. No number is typed by
hand anywhere.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from experiments.logging.files import write_atomically
from experiments.report.plots.rendering import svg
from experiments.tables import page, table
from experiments.tables.rows import check_together, from_csv, read, to_csv

PAGE_FILE = "comparison.html"


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the tables from the command line, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments table",
        description="Compare the finished runs of a sweep.",
        allow_abbrev=False,
    )
    parser.add_argument("--workdir", help="the folder of the sweep; else read the CSV")
    parser.add_argument(
        "--name", required=True, type=_name, help="of the results: NAME.csv"
    )
    parser.add_argument(
        "--results", default="docs/results", help="the folder of CSV files"
    )
    parser.add_argument(
        "--document",
        help="where the table goes; else index.md in the folder of CSV files",
    )
    parser.add_argument(
        "--page-only", action="store_true", help="write comparison.html alone"
    )
    parser.add_argument(
        "--times",
        action="store_true",
        help="show how long methods took, each alone on a machine",
    )
    parsed = parser.parse_args(arguments)
    if parsed.page_only and parsed.workdir is None:
        parser.error("argument --page-only: needs --workdir")
    try:
        _write(parsed)
    except (OSError, ValueError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def _write(parsed: argparse.Namespace) -> None:
    """Write all files, or nothing if the document has no place for the table."""
    folder = Path(parsed.results)
    document = Path(parsed.document or folder / "index.md")
    file = folder / f"{parsed.name}.csv"
    recorded = folder / f"{parsed.name}_recorded.csv"
    if parsed.workdir is None:
        rows, unfinished = from_csv(file), []
    else:
        rows, unfinished = read(parsed.workdir)
    every = rows
    if recorded.exists():
        every = pd.concat([rows, from_csv(recorded)], ignore_index=True)
    check_together(every, parsed.workdir or file)
    markdown = table.to_markdown(every, parsed.name, times=parsed.times)
    files = {}
    if not parsed.page_only:
        files[document] = insert(document.read_text(), parsed.name, markdown)
        picture = folder / f"{parsed.name}.svg"
        if f"/{picture.name}" in files[document]:
            files[picture] = svg(table.draw(every))
    if parsed.workdir is not None:
        workdir = Path(parsed.workdir)
        files[workdir / PAGE_FILE] = page.render(
            every, workdir=workdir, name=parsed.name, unfinished=unfinished
        )
        if not parsed.page_only:
            files[file] = to_csv(rows)
    for written, content in files.items():
        written.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(written, content)
    print(markdown, *files, sep="\n")
    for found in unfinished:
        print(f"Not finished, left out: {found}")


def insert(document: str, name: str, content: str) -> str:
    """Put content between the two markers of a name.

    Args:
      document: the text of the document.
      name: the name of the results.
      content: what is put there, in place of what was.

    Returns:
      The new text; the same again if the content is the same.

    Raises:
      ValueError: if the markers are not there, once each and in order.
    """
    begin, end = (f"<!-- results:{name} {mark} -->" for mark in ("begin", "end"))
    found = re.findall(rf"{re.escape(begin)}|{re.escape(end)}", document)
    if found != [begin, end]:
        raise ValueError(
            f"`insert(document, {name!r}, ...)` requires the markers `{begin}` and "
            f"`{end}` once each, in this order, on lines of their own; found "
            f"{len(found)} of them. Add both lines where the table belongs."
        )
    before, _, rest = document.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{content.strip()}\n{end}{after}"


def _name(text: str) -> str:
    if not re.fullmatch(r"\w[\w-]*", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"letters, digits, _ and -; got {text!r}")
    return text
