"""Runs side by side: accuracy or bits per byte, as a table and a picture."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from experiments.logging.formatting import MISSING, round_up
from experiments.logging.measure import ACCURACY
from experiments.report.plots.accuracy import by_size
from experiments.tables.rows import (
    Frame,
    limits,
    measured_by,
    ours,
    place,
    pruned,
    shown,
)


def gather(rows: Frame, by: Sequence[str] = ("config", "model", "size")) -> Frame:
    """Gather what networks are compared by over the seeds.

    Args:
      rows: the runs.
      by: the columns whose values a cell has in common.

    Returns:
      For each cell, in the order of the rows: `mean`; `std`, the sample standard
      deviation with n - 1, NaN for a single run; `count`; and `text`, mean ± spread,
      accuracies in percent.
    """
    measure = measured_by(rows)
    values = rows.groupby([*by], sort=False)[measure.key]
    cells = values.agg(["mean", "std", "count"])
    cells["text"] = [
        measure.number(mean) + (f" ± {measure.number(spread)}" if count > 1 else "")
        for mean, spread, count in cells.itertuples(index=False)
    ]
    return cells


def columns_of(rows: Frame) -> Any:
    """Return the networks and sizes with something that is pruned, in order."""
    found = pruned(rows)[["model", "size"]].drop_duplicates()
    columns = sorted(found.itertuples(index=False), key=lambda c: place(*c))
    return pd.MultiIndex.from_tuples(columns, names=found.columns)


def headings(rows: Frame) -> list[str]:
    """Return the columns as tables show them; networks only if there are several."""
    columns = columns_of(rows)
    several = columns.get_level_values("model").nunique() > 1
    return [f"{m} {shown(size)}" if several else shown(size) for m, size in columns]


def labels_of(rows: Frame) -> dict[str, str]:
    """Return what each config is called: the title of its method, as papers write it.

    Two configs of one method go by their own names.
    """
    configs = rows.drop_duplicates("config", keep="last").set_index("config")
    twice = configs["title"].duplicated(keep=False)
    return {
        config: (config if twice[config] else row["title"])
        + (" (recorded)" if row["recorded"] else "")
        for config, row in configs.iterrows()
    }


def subject(rows: Frame) -> str:
    """Return what was trained on what, such as `cnn on digits`."""
    models = pruned(rows)["model"].unique()
    return f"{' and '.join(models)} on {rows['dataset'].iloc[0]}"


def lay_out(rows: Frame) -> tuple[Frame, Frame]:
    """Lay out the table as texts, with numbers of runs that are not the usual one.

    Args:
      rows: the runs, recorded ones among them; at least one that prunes.

    Returns:
      The texts, a row for every config that prunes and a column for every network and
      size; and whether they hold the best mean of their column.
    """
    cells, columns = gather(pruned(rows)), columns_of(rows)
    usual = max(_counts(rows))
    notes = [f" ({count})" if count != usual else "" for count in cells["count"]]
    measure = measured_by(rows)
    # As printed: what a reader cannot tell apart is equal.
    means = cells["mean"].map(lambda mean: measure.sign * float(measure.number(mean)))

    def table(values: pd.Series) -> Frame:
        unstacked = values.unstack(["model", "size"])
        return unstacked.reindex(pruned(rows)["config"].unique(), columns=columns)

    best = table(means)
    return table(cells["text"] + notes).fillna(MISSING), best == best.max()


def caption(rows: Frame) -> str:
    """Say what the numbers are, of how many seeds, and what is not as asked."""
    counts = _counts(rows)
    seeds = f"{max(counts)} seeds" if max(counts) > 1 else "one seed"
    mean = "mean ± sample standard deviation of " if max(counts) > 1 else ""
    fewer = ", or fewer where in parentheses" * (len(counts) > 1)
    split = rows["split"].iloc[0].capitalize()
    measure = measured_by(rows)
    what = measure.name + (" in %" if measure is ACCURACY else ", less is better,")
    notes = [f"{split} {what} of {subject(rows)}: {mean}{seeds}{fewer}."]
    dense = [f"{model} {text}" for model, text in dense_of(rows)["text"].items()]
    notes += [f"Dense: {', '.join(dense)}."] if dense else []
    return " ".join([*notes, _held(pruned(ours(rows))), *_missing(ours(rows))])


def to_markdown(rows: Frame, name: str, *, times: bool = False) -> str:
    """Return a caption and the measure by method, network and size as a Markdown table.

    The caption refers to the CSV file of `name`; `times` adds how long methods take.
    """
    texts, best = lay_out(rows)
    table = texts.mask(best, "**" + texts + "**")
    table.columns = headings(rows)
    notes = [caption(rows)]
    if times:
        seconds = rows.groupby("config")["seconds"].mean()
        table["wall time"] = seconds.map("{:.0f} s".format)
        notes.append(
            "Wall time is the mean over the runs of a method, of the whole flow: "
            "training, the trials that find a penalty, and fine-tuning."
        )
    if rows["recorded"].any():
        notes.append(
            "Rows marked as recorded were measured by another program, with as many "
            f"seeds as in parentheses: see `{name}_recorded.csv`."
        )
    notes.append(
        f"Every run: `{name}.csv`, read by `python -m experiments table`; best "
        "mean bold."
    )
    ruler = ["---", *["--:"] * table.shape[1]]
    lines = [["method", *table], ruler, *table.rename(labels_of(rows)).itertuples()]
    drawn = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{' '.join(notes)}\n\n{drawn}\n"


def draw(rows: Frame) -> Figure:
    """Draw the measure against size, a picture for each network."""
    cells, labels, dense = gather(rows), labels_of(rows), dense_of(rows)["mean"]
    recorded = {*rows.loc[rows["recorded"] != "", "config"]}
    panels: dict[str, Any] = {}
    for model, size in columns_of(rows):
        lines = {
            n: {"recorded": c in recorded, "points": {}} for c, n in labels.items()
        }
        blank = {"sizes": [], "dense": dense.get(model), "lines": lines}
        panel = panels.setdefault(model, blank)
        panel["sizes"].append(shown(size))
        for config, label in labels.items():
            if (config, model, size) in cells.index:
                mean, spread, count, _ = cells.loc[config, model, size]
                point = (mean, spread if count > 1 else None)
                panel["lines"][label]["points"][shown(size)] = point
    measure = measured_by(rows)
    label = f"{rows['split'].iloc[0]} {measure.name}"
    return by_size(panels, measure, label=label)


def dense_of(rows: Frame) -> Frame:
    """Return what our networks reach that are not pruned, by network: see `gather`."""
    return gather(ours(rows)[ours(rows)["size"] == ""], by=("model",))


def _counts(rows: Frame) -> set[int]:
    """Return the numbers of seeds of the cells that prune, recorded ones left out."""
    return {*gather(pruned(ours(rows)))["count"]}


def _held(rows: Frame) -> str:
    """Say how far the runs are from the limit that binds them."""
    room = [
        min(limit - row[cost] for cost, limit in limits(row["size"]).items())
        for row in rows.to_dict("records")
    ]
    missed = sum(value < -1e-9 for value in room)
    if missed:
        return (
            f"{missed} of {len(room)} runs exceed their size, by at most "
            f"{round_up(-100 * min(room))} points."
        )
    return (
        f"No run exceeds its size; each is within {round_up(100 * max(room))} points "
        "of it."
    )


def _missing(rows: Frame) -> list[str]:
    """List the cells that a method has not in a column where others have one."""
    texts, labels = lay_out(rows)[0], labels_of(rows)
    several = texts.columns.get_level_values("model").nunique() > 1
    gaps: dict[str, list[str]] = {}
    for config, line in texts.iterrows():
        for model, size in line.index[line == MISSING]:
            name = f"{labels[config]} {model}" if several else labels[config]
            gaps.setdefault(name, []).append(shown(size))
    listed = [f"{name} {', '.join(sizes)}" for name, sizes in gaps.items()]
    return [f"Not run: {'; '.join(listed)}."] if listed else []
