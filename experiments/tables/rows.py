"""What finished runs reached, a row for each, read from a sweep or from a CSV file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.logging.formatting import cost_name
from experiments.logging.measure import MEASURES, Measure
from experiments.logging.summary import CELL_SUFFIX, config_of, read_summaries
from experiments.sweep.bisect import TRIALS_FILE

Frame = Any
"""A `pandas.DataFrame`, whose results have types too wide for a checker of types."""

COSTS = ("weights", "macs", "parameters", "bytes", "latency")
"""What is left of each, a fraction of what the dense network has."""

_MEASURED = tuple(measure.key for measure in MEASURES)

COLUMNS: dict[Any, Any] = {
    "config": str,  # its name, without that of the network
    "title": str,  # of the method, as papers write it
    "model": str,
    "dataset": str,
    "split": str,  # the one on which the accuracy is
    # The sparsity or the limits, such as `0.95` or `macs:0.5+parameters:0.4`; empty for
    # a network that is not pruned.
    "size": str,
    "seed": int,
    "accuracy": float,  # of the final network, a fraction
    "bits_per_byte": float,  # of texts, in place of the accuracy
    "validation": float,  # the same on the validation split, if `split` is another
    **dict.fromkeys(COSTS, float),
    # How long it took, the trials before it included that found its penalty. Of a seed
    # of a cell, its share of what all took together.
    "seconds": float,
    "jaxprune": str,  # the version of the library
    "recorded": str,  # what measured it, if it was another program; else empty
}
"""The columns of a frame of rows, each one finished run or one seed of a cell."""


def limits(size: str) -> dict[str, float]:
    """Return the limits that a size stands for, by cost.

    >>> limits("macs:0.5+parameters:0.4"), limits("0.95")
    ({'macs': 0.5, 'parameters': 0.4}, {'weights': 0.05})
    """
    if ":" in size:
        pairs = (limit.split(":") for limit in size.split("+"))
        return {name: float(limit) for name, limit in pairs}
    return {"weights": round(1 - float(size), 12)} if size else {}


def shown(size: str) -> str:
    """Return a size as tables show it.

    >>> shown("macs:0.5+parameters:0.4"), shown("0.95"), shown("")
    ('MACs 50%, parameters 40%', '95%', 'dense')
    """
    if ":" in size:
        found = limits(size).items()
        return ", ".join(f"{cost_name(n)} {100 * limit:.6g}%" for n, limit in found)
    return f"{100 * float(size):.6g}%" if size else "dense"


def place(model: str, size: str) -> tuple[Any, ...]:
    """Return where a column stands: by network and by size, the largest first."""
    found = limits(size)
    costs = bool(found) and "weights" not in found
    return model, costs, [*found], [-limit for limit in found.values()]


def read(workdir: str | Path) -> tuple[Frame, list[Path]]:
    """Read the runs of a sweep, and cells.

    Args:
      workdir: the folder of the sweep, of `config/size/seed` each with a run, or of
        `config/size.cell.json`.

    Returns:
      A row for every run that is finished and every seed, in order; and the folders of
      those that are not finished, and the cells whose test split was not read.

    Raises:
      ValueError: if the size of a run was not stated.
    """
    finished, left_out = read_summaries(workdir)
    rows = [_of_run(summary, folder, workdir) for folder, summary in finished.items()]
    for file in sorted(Path(workdir).rglob(f"*{CELL_SUFFIX}")):
        content = json.loads(file.read_bytes())
        if content["test"]:
            rows += [_of_seed(content, found) for found in content["rows"]]
        else:
            left_out.append(file)
    rows.sort(key=lambda r: (r["config"], place(r["model"], r["size"]), r["seed"]))
    return pd.DataFrame(rows, columns=[*COLUMNS]).astype(COLUMNS), left_out


def from_csv(file: Path) -> Frame:
    """Read a CSV file of rows; numbers are exact.

    Raises:
      ValueError: if the columns are not those of rows, or hold no numbers.
    """
    try:
        rows = pd.read_csv(
            file,
            dtype=COLUMNS,
            index_col=False,
            keep_default_na=False,  # or a method called NA would have no name
            na_values={name: [""] for name in ("validation", *COSTS)},
        )
        others = [[n for n in COLUMNS if n != measured] for measured in _MEASURED]
        if [*rows] not in others:
            raise ValueError(f"the columns are {', '.join(rows)}")
    except ValueError as error:
        raise ValueError(
            f"{file} is not a table of runs with the columns {', '.join(COLUMNS)}: "
            f"{str(error).strip()}. Make the file again from the runs."
        ) from error
    return rows.reindex(columns=[*COLUMNS])


def to_csv(rows: Frame) -> str:
    """Return rows as a CSV file, without the measure that they are not compared by."""
    others = [name for name in _MEASURED if name != measured_by(rows).key]
    return rows.drop(columns=others).to_csv(index=False, lineterminator="\n")


def measured_by(rows: Frame) -> Measure:
    """Return what rows of one data set are compared by."""
    return next((m for m in MEASURES if rows[m.key].notna().any()), MEASURES[0])


def pruned(rows: Frame) -> Frame:
    """Return the rows of networks that are pruned."""
    return rows[rows["size"] != ""]


def ours(rows: Frame) -> Frame:
    """Return the rows that no other program measured."""
    return rows[rows["recorded"] == ""]


def check_together(rows: Frame, source: str | Path) -> None:
    """Refuse rows that do not make a table.

    Args:
      rows: the rows.
      source: where they are from, for the message.

    Raises:
      ValueError: if nothing prunes, they are of several data sets or splits, another
        program's config is called as one of ours, or a cost that is limited is not
        known.
    """
    if pruned(ours(rows)).empty:
        raise ValueError(
            f"a table compares finished runs that prune; in {source} there is none. "
            "Make them with `python -m experiments sweep`, or `python -m experiments "
            "seeds --test`."
        )
    subjects = sorted({*(rows["dataset"] + " (" + rows["split"] + ")")})
    if len(subjects) > 1:
        raise ValueError(
            f"a table compares methods on one data set; got {', '.join(subjects)}. "
            "Give each a sweep of its own."
        )
    recorded = rows.loc[rows["recorded"] != "", "config"]
    both = {*recorded} & {*ours(rows)["config"]}
    if both:
        raise ValueError(
            f"the recorded config {min(both)!r} is called as one of ours. Rename it."
        )
    for size, group in pruned(rows).groupby("size"):
        unknown = group[group[[*limits(str(size))]].isna().any(axis=1)]
        if len(unknown):
            raise ValueError(
                f"{unknown['config'].iloc[0]} at {size}: what it has of the limited "
                "cost is not known. Run it again."
            )


def _of_run(
    summary: Mapping[str, Any], folder: Path, workdir: str | Path
) -> dict[str, Any]:
    budget, final = summary["budget"], summary["final"]
    is_pruned = bool(summary.get("points") or summary.get("channels"))
    if is_pruned and budget is None:
        raise ValueError(
            f"`read(...)` compares at stated sizes; the size of the run in {folder} "
            "was decided by a penalty weight."
        )
    size = "+".join(f"{name}:{limit!r}" for name, limit in (budget or {}).items())
    if is_pruned and {*budget} == {"weights"}:
        size = repr(round(1 - budget["weights"], 12))
    costs = {"weights": final.get("keep_ratio"), **summary["costs"]}
    trials = folder / TRIALS_FILE
    spent = json.loads(trials.read_bytes())["seconds"] if trials.exists() else 0.0
    return {
        "config": config_of(folder, workdir),
        "title": summary.get("title", summary["method"]) if is_pruned else "Dense",
        "model": summary["model"],
        "dataset": summary["dataset"],
        "split": summary.get("eval_split", "test"),
        "size": size if is_pruned else "",
        "seed": summary["seed"],
        **{measure.key: final.get(measure.key) for measure in MEASURES},
        **{name: costs.get(name) for name in COSTS},
        "seconds": round(summary["seconds"] + spent, 1),
        "jaxprune": summary["versions"]["jaxprune"],
        "recorded": "",
    }


def _of_seed(content: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    config, size = content["config"], content["size"]
    weights = found["kept_weights"] / found["total_weights"]
    costs = {"weights": weights, **(found.get("costs") or {})}
    return {
        "config": content["name"].partition(":")[0],
        "title": content["title"],
        "model": config["model"],
        "dataset": config["data"]["name"],
        "split": "test",
        "size": "" if size == "dense" else size,
        "seed": found["seed"],
        "accuracy": found["test"],
        "validation": found["validation"],
        **{name: costs.get(name) for name in COSTS},
        "seconds": round(content["seconds"] / len(content["rows"]), 1),
        "jaxprune": content["versions"]["jaxprune"],
        "recorded": "",
    }
