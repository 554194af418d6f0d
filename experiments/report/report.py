"""What remains of a run: one page for the browser, and its pictures.

`write_report` makes `report.html` and `plots/*.png` from the `summary.json` and
`metrics.jsonl` of a run. The page holds its styles and pictures itself, runs no script
and loads nothing.

To make the report of a run again:

```
python -m experiments report --workdir=DIR
```
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.logging.files import read_json, write_atomically
from experiments.logging.metrics_file import METRICS_FILE, read_metrics
from experiments.logging.summary import SUMMARY_FILE
from experiments.report import run_page, trail_table
from experiments.report.plots import bars, rendering, run
from experiments.report.sensitivity_report import SENSITIVITY_FILE

REPORT_FILE = "report.html"
PLOTS_FOLDER = "plots"


def write_report(workdir: str | Path) -> Path:
    """Make the plots and the page of a run; return the path of `report.html`.

    Raises:
      FileNotFoundError: If there is no `summary.json`.
      ValueError: If a file does not hold what it should.
      OSError: Naming the file, if one cannot be written.
    """
    workdir = Path(workdir)
    summary = read_json(workdir / SUMMARY_FILE)
    metrics = workdir / METRICS_FILE
    records = read_metrics(metrics) if metrics.exists() else []
    figures = run.figures(summary, records)
    sensitivity = workdir / SENSITIVITY_FILE
    found = read_json(sensitivity) if sensitivity.exists() else None
    if found:
        figures["sensitivity"] = bars.sensitivity(found["groups"])
    folder = workdir / PLOTS_FOLDER
    folder.mkdir(exist_ok=True)
    for name, figure in figures.items():
        write_atomically(folder / f"{name}.png", rendering.png(figure))
    path = workdir / REPORT_FILE
    write_atomically(path, run_page.render(summary, figures, workdir, found))
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Make a report again from the command line, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments report",
        description="Make the report of a finished or stopped run again.",
    )
    parser.add_argument("--workdir", required=True, help="the folder of the run")
    workdir = Path(parser.parse_args(arguments).workdir)
    try:
        path = write_report(workdir)
    except (OSError, ValueError) as error:
        print(f"No report of {workdir}: {error}", file=sys.stderr)
        return 1
    print(trail_table.as_text(read_json(workdir / SUMMARY_FILE)))
    print(f"\n{path}")
    return 0
