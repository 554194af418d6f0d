"""From runs that prune channels to a budget to a table in README.md and a CSV file.

Command:
    python -m experiments.channel_table --workdir=runs/resnet20_channels \
        --name=resnet20_channels

reads every finished run in `config/budget/seed` and writes

- `results/resnet20_channels.csv`, a row for every run;
- into README.md, between the lines `<!-- results:resnet20_channels begin -->` and
  `<!-- results:resnet20_channels end -->`, accuracy by method and budget and, with
  `--times`, how long the methods take.

Without `--workdir` the CSV file is read instead, as in `experiments.tables`.
"""

import argparse
import dataclasses
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import results
from experiments.bisect import TRIALS_FILE
from experiments.comparison import (
    check_subject,
    describe,
    gather,
    lay_out,
    method_names,
)
from experiments.formatting import cost_name, round_up
from experiments.results import draw_markdown
from experiments.summary import read_summaries

Budget = tuple[tuple[str, float], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One finished run.

    Attributes:
      config: the name of the config, from the folder of the run.
      method: the function of `experiments.channel_plans`.
      model: the name of the network.
      dataset: the name of the data set.
      budget: the limits, such as `macs:0.5` or `macs:0.5+parameters:0.4`.
      macs: reached, as a fraction of the dense network's; so are the next two.
      parameters: see `macs`.
      bytes: see `macs`.
      latency: as fitted, see `macs`; None if it was no limit.
      seed: the seed.
      accuracy: of the final network on the test data, a fraction.
      dense_accuracy: before pruning, if it was measured.
      seconds: how long the run took.
      trial_seconds: how long the trials before it took that found its penalty.
      jaxprune: the version of the library.
    """

    config: str
    method: str
    model: str
    dataset: str
    budget: str
    macs: float
    parameters: float
    bytes: float
    latency: float | None
    seed: int
    accuracy: float
    dense_accuracy: float | None
    seconds: float
    trial_seconds: float
    jaxprune: str

    @property
    def limits(self) -> Budget:
        """Pairs of a cost and its limit."""
        pairs = [limit.split(":") for limit in self.budget.split("+")]
        return tuple((name, float(limit)) for name, limit in pairs)


def read_runs(workdir: str | Path) -> tuple[list[Row], list[Path]]:
    """Read the runs of a sweep.

    Args:
      workdir: the folder of the sweep, of `config/budget/seed` each with a run.

    Returns:
      A row for every finished run, in order, and the folders of those begun but not
      finished.

    Raises:
      ValueError: if no run is finished, one does not prune channels, or they are of
        several networks or data sets.
    """
    finished, unfinished = read_summaries(workdir)
    if not finished:
        raise ValueError(
            f"`read_runs({str(workdir)!r})` requires the folder of a sweep, with "
            "finished runs in config/budget/seed; there is none. Make them with "
            "`python -m experiments.sweep --budgets=...`."
        )
    rows = [_row(folder, summary) for folder, summary in finished.items()]
    check_subject(rows, workdir)
    return sorted(rows, key=_order), unfinished


def to_markdown(rows: Sequence[Row], name: str, *, times: bool = False) -> str:
    """Lay out accuracy by method and budget as a Markdown table.

    Args:
      rows: the runs, in order; at least one.
      name: the name of the results, whose CSV file the caption refers to.
      times: whether to show how long the methods take.

    Returns:
      A caption and the table. The best mean of each budget is bold.
    """
    budgets = sorted({row.limits for row in rows}, key=_looser_first)
    table = gather(rows, lambda row: row.limits)
    texts, best = lay_out(table, budgets)
    names = method_names(rows)
    header = ["method", *map(_shown, budgets)]
    lines = [[f"{names[c]} (`{c}`)", *cells] for c, cells in texts.items()]
    subject = f"{rows[0].model} on {rows[0].dataset} by budget"
    caption = f"{describe(table, subject)} {_held(rows)} "
    if times:
        header.append("wall time")
        for config, line in zip(texts, lines, strict=True):
            spent = [r.seconds + r.trial_seconds for r in rows if r.config == config]
            line.append(f"{statistics.fmean(spent):.0f} s")
        caption += (
            "Wall time is the mean over the runs of a method, of the whole flow: "
            "training, the trials that find a penalty, and fine-tuning. "
        )
    caption += (
        f"Every run: `results/{name}.csv`, read by `python -m "
        "experiments.channel_table`; best mean bold."
    )
    return f"{caption}\n\n{draw_markdown(header, lines, best)}\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the table from the command line.

    Args:
      arguments: those of the process if not given.

    Returns:
      The exit status.
    """
    parser = argparse.ArgumentParser(
        prog="python -m experiments.channel_table",
        description="Compare the finished runs of a sweep that prunes channels.",
        allow_abbrev=False,
    )
    results.add_arguments(parser)
    parser.add_argument(
        "--times",
        action="store_true",
        help="show how long runs took; for those that had the machine to themselves",
    )
    try:
        _write(parser.parse_args(arguments))
    except (OSError, ValueError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def _write(parsed: argparse.Namespace) -> None:
    """Write CSV and README.md, or nothing if README.md has no place for the table."""
    rows, unfinished = results.load(parsed, Row, read_runs)
    markdown = to_markdown(rows, parsed.name, times=parsed.times)
    results.save(parsed, Row, rows, markdown)
    results.show(markdown, unfinished)


def _row(folder: Path, summary: dict[str, Any]) -> Row:
    costs, budget = summary["costs"], summary["budget"] or {}
    if not summary["channels"]:
        raise ValueError(
            f"`read_runs(...)` compares runs that prune channels; that in {folder} "
            "does not."
        )
    trials = folder / TRIALS_FILE
    spent = json.loads(trials.read_text())["seconds"] if trials.exists() else 0.0
    return Row(
        config=folder.parent.parent.name,
        method=summary["method"],
        model=summary["model"],
        dataset=summary["dataset"],
        budget="+".join(f"{name}:{limit!r}" for name, limit in budget.items()),
        macs=costs["macs"],
        parameters=costs["parameters"],
        bytes=costs["bytes"],
        latency=costs.get("latency"),
        seed=summary["seed"],
        accuracy=summary["final"]["accuracy"],
        dense_accuracy=summary["dense_accuracy"],
        seconds=round(summary["seconds"], 1),
        trial_seconds=round(spent, 1),
        jaxprune=summary["versions"]["jaxprune"],
    )


def _order(row: Row) -> tuple[Any, ...]:
    return row.config, _looser_first(row.limits), row.seed


def _looser_first(budget: Budget) -> tuple[Any, ...]:
    return [name for name, _ in budget], [-limit for _, limit in budget]


def _shown(budget: Budget) -> str:
    return ", ".join(f"{cost_name(name)} {100 * limit:.6g}%" for name, limit in budget)


def _held(rows: Sequence[Row]) -> str:
    """Say how far the runs are from the limit that binds them."""
    room = [
        min(limit - getattr(row, name) for name, limit in row.limits) for row in rows
    ]
    missed = sum(value < 0 for value in room)
    if missed:
        return (
            f"{missed} of {len(room)} runs exceed a limit, by at most "
            f"{round_up(-100 * min(room))} points."
        )
    return (
        "No run exceeds a limit; each is within "
        f"{round_up(100 * max(room))} points of the one that binds."
    )


if __name__ == "__main__":
    sys.exit(main())
