"""From the runs of a sweep to a table in README.md, a CSV file and a page to compare.

Command:
    python -m experiments.tables --workdir=runs/sweep --name=digits_cnn

reads every finished `summary.json` below the workdir and writes

- `results/digits_cnn.csv`, a row for every run: small, and kept under version control;
- `comparison.html` and `comparison.png` in the workdir;
- into README.md, between the lines `<!-- results:digits_cnn begin -->` and
  `<!-- results:digits_cnn end -->`, accuracy by config and sparsity: mean ± sample
  standard deviation over the seeds.

Without `--workdir` the CSV file is read instead and only README.md is written, so that
a clone without the runs can check its table. No number is typed by hand anywhere.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import comparison_page, results
from experiments.files import write_atomically
from experiments.plots.rendering import png
from experiments.sparsity_table import Row, read_runs, to_markdown

PAGE_FILE = "comparison.html"
PICTURE_FILE = "comparison.png"


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the tables from the command line.

    Args:
      arguments: those of the process if not given.

    Returns:
      The exit status.
    """
    parser = argparse.ArgumentParser(
        prog="python -m experiments.tables",
        description="Compare the finished runs of a sweep.",
        allow_abbrev=False,
    )
    results.add_arguments(parser)
    parser.add_argument(
        "--page-only", action="store_true", help="write neither CSV nor README"
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
    """Write all that was asked for, or nothing if README.md has no place for it."""
    rows, unfinished = results.load(parsed, Row, read_runs)
    markdown = to_markdown(rows, parsed.name)
    written = []
    if not parsed.page_only:
        written += results.save(parsed, Row, rows, markdown)
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


if __name__ == "__main__":
    sys.exit(main())
