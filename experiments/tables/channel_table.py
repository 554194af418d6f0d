"""Runs that prune channels to a budget: accuracy by method and budget as a table."""

import dataclasses
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.logging.formatting import cost_name, round_up
from experiments.logging.summary import config_of, read_summaries
from experiments.sweep.bisect import TRIALS_FILE
from experiments.tables.comparison import (
    check_subject,
    describe,
    gather,
    lay_out,
    method_names,
)
from experiments.tables.results import draw_markdown

Budget = tuple[tuple[str, float], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One finished run.

    Attributes:
      config: the name of the config, from the folder of the run.
      method: the name of the function that plans it.
      title: of the method, as papers write it.
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
    title: str
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
            "`python -m experiments sweep --budgets=...`."
        )
    rows = [_row(summary, folder, workdir) for folder, summary in finished.items()]
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
        f"Every run: `results/{name}.csv`, read by "
        "`python -m experiments table`; best mean bold."
    )
    return f"{caption}\n\n{draw_markdown(header, lines, best)}\n"


def _row(summary: dict[str, Any], folder: Path, workdir: str | Path) -> Row:
    costs, budget = summary["costs"], summary["budget"] or {}
    if not summary["channels"]:
        raise ValueError(
            f"`read_runs(...)` compares runs that prune channels; that in {folder} "
            "does not."
        )
    trials = folder / TRIALS_FILE
    spent = json.loads(trials.read_text())["seconds"] if trials.exists() else 0.0
    return Row(
        config=config_of(folder, workdir),
        method=summary["method"],
        title=summary.get("title", summary["method"]),
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
