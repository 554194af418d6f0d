"""Runs side by side: accuracy by method, network and size, as a table and a picture."""

import dataclasses
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.figure import Figure

from experiments.logging.formatting import MISSING, round_up
from experiments.report.plots.accuracy import accuracy_by_size
from experiments.tables.rows import Row, place, shown

Column = tuple[str, str]
"""The network and the size; the size of a network that is not pruned is empty."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """The runs of one config in one column of a table.

    Attributes:
      accuracies: of the runs, by seed.
    """

    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean of the accuracies."""
        return statistics.fmean(self.accuracies)

    @property
    def spread(self) -> float | None:
        """The sample standard deviation, with n - 1; None for a single run."""
        if len(self.accuracies) < 2:
            return None
        return statistics.stdev(self.accuracies)

    def __str__(self) -> str:
        """Mean ± spread, in percent."""
        spread = "" if self.spread is None else f" ± {100 * self.spread:.2f}"
        return f"{100 * self.mean:.2f}{spread}"


def gather(rows: Iterable[Row]) -> dict[str, dict[Column, Cell]]:
    """Gather rows by config and column; both come in the order of the rows."""
    found: dict[str, dict[Column, tuple[float, ...]]] = {}
    for row in rows:
        line, column = found.setdefault(row.config, {}), (row.model, row.size)
        line[column] = (*line.get(column, ()), row.accuracy)
    return {
        config: {key: Cell(accuracies=values) for key, values in line.items()}
        for config, line in found.items()
    }


def columns_of(rows: Iterable[Row]) -> list[Column]:
    """Return the columns in which something is pruned, in order."""
    pruned = sorted((row for row in rows if row.size), key=place)
    return list(dict.fromkeys((row.model, row.size) for row in pruned))


def labels_of(rows: Iterable[Row]) -> dict[str, str]:
    """Return what each config is called: the title of its method, as papers write it.

    Two configs of one method go by their own names.
    """
    rows = list(rows)
    titles = {row.config: row.title for row in rows}
    recorded = {row.config for row in rows if row.recorded}
    names = list(titles.values())
    return {
        c: (n if names.count(n) == 1 else c) + " (recorded)" * (c in recorded)
        for c, n in titles.items()
    }


def subject(rows: Sequence[Row]) -> str:
    """Return what was trained on what, such as `cnn on digits`."""
    models = dict.fromkeys(row.model for row in rows if row.size)
    return f"{' and '.join(models)} on {rows[0].dataset}"


def lay_out(
    rows: Sequence[Row],
) -> tuple[list[str], dict[str, list[str]], list[tuple[int, int]]]:
    """Lay out the table as texts, with numbers of runs that are not the usual one.

    Args:
      rows: the runs, recorded ones among them; at least one that prunes.

    Returns:
      The header; the cells of every config that prunes; and which of them hold the
      best mean of their column, by row and column. Column 0 is left for names.
    """
    table, columns = gather(rows), columns_of(rows)
    usual = max(_counts(rows))
    several = len({model for model, _ in columns}) > 1
    sizes = [f"{m} {shown(size)}" if several else shown(size) for m, size in columns]
    lines = {c: line for c, line in table.items() if any(x in line for x in columns)}
    texts = {config: [] for config in lines}
    best = []
    for number, column in enumerate(columns, start=1):
        # As printed: what a reader cannot tell apart is equal.
        means = [
            round(100 * line[column].mean, 2) if column in line else -1.0
            for line in lines.values()
        ]
        best += [(row, number) for row, m in enumerate(means) if m == max(means)]
        for config, line in lines.items():
            cell = line.get(column)
            count = len(cell.accuracies) if cell else usual
            note = f" ({count})" if count != usual else ""
            texts[config].append(f"{cell}{note}" if cell else MISSING)
    return ["method", *sizes], texts, best


def caption(rows: Sequence[Row]) -> str:
    """Say what the numbers are, of how many seeds, and what is not as asked."""
    ours = [row for row in rows if not row.recorded]
    counts = _counts(rows)
    seeds = f"{max(counts)} seeds" if max(counts) > 1 else "one seed"
    mean = "mean ± sample standard deviation of " if max(counts) > 1 else ""
    fewer = ", or fewer where in parentheses" * (len(counts) > 1)
    split = rows[0].split.capitalize()
    notes = [f"{split} accuracy in % of {subject(rows)}: {mean}{seeds}{fewer}."]
    dense = [f"{model} {cell}" for model, cell in dense_of(ours).items()]
    notes += [f"Dense: {', '.join(dense)}."] if dense else []
    return " ".join([*notes, _held(ours), *_missing(ours)])


def to_markdown(rows: Sequence[Row], name: str, *, times: bool = False) -> str:
    """Lay out accuracy by method, network and size as a Markdown table.

    Args:
      rows: the runs, recorded ones among them; at least one that prunes.
      name: the name of the results, whose CSV file the caption refers to.
      times: whether to show how long the methods take.

    Returns:
      A caption and the table. The best mean of each column is bold.
    """
    labels = labels_of(rows)
    header, texts, best = lay_out(rows)
    lines = [[labels[config], *cells] for config, cells in texts.items()]
    notes = [caption(rows)]
    if times:
        header.append("wall time")
        for config, line in zip(texts, lines, strict=True):
            spent = statistics.fmean(r.seconds for r in rows if r.config == config)
            line.append(f"{spent:.0f} s")
        notes.append(
            "Wall time is the mean over the runs of a method, of the whole flow: "
            "training, the trials that find a penalty, and fine-tuning."
        )
    if any(row.recorded for row in rows):
        notes.append(
            "Rows marked as recorded were measured by another program, with as many "
            f"seeds as in parentheses: see `results/{name}_recorded.csv`."
        )
    notes.append(
        f"Every run: `results/{name}.csv`, read by `python -m experiments table`; best "
        "mean bold."
    )
    return f"{' '.join(notes)}\n\n{_drawn(header, lines, best)}\n"


def draw(rows: Iterable[Row]) -> Figure:
    """Draw accuracy against size, a picture for each network."""
    rows = list(rows)
    labels, table, dense = labels_of(rows), gather(rows), dense_of(rows)
    recorded = {row.config for row in rows if row.recorded}
    columns = columns_of(rows)

    def line(config: str, model: str) -> dict[str, Any]:
        cells = {
            size: table[config].get((of, size)) for of, size in columns if of == model
        }
        points = {shown(size): (c.mean, c.spread) for size, c in cells.items() if c}
        return {"recorded": config in recorded, "points": points}

    panels = {
        model: {
            "sizes": [shown(size) for of, size in columns if of == model],
            "dense": dense[model].mean if model in dense else None,
            "lines": {labels[config]: line(config, model) for config in table},
        }
        for model in dict.fromkeys(model for model, _ in columns)
    }
    return accuracy_by_size(panels, label=f"{rows[0].split} accuracy")


def dense_of(rows: Iterable[Row]) -> dict[str, Cell]:
    """Return what the networks reach that are not pruned, by network."""
    found: dict[str, tuple[float, ...]] = {}
    for row in rows:
        if not row.size and not row.recorded:
            found[row.model] = (*found.get(row.model, ()), row.accuracy)
    return {model: Cell(accuracies=x) for model, x in found.items()}


def _counts(rows: Iterable[Row]) -> set[int]:
    """Return the numbers of seeds of the cells that prune, recorded ones left out."""
    table = gather(row for row in rows if row.size and not row.recorded)
    return {len(cell.accuracies) for line in table.values() for cell in line.values()}


def _held(rows: Sequence[Row]) -> str:
    """Say how far the runs are from the limit that binds them."""
    room = [
        min(limit - getattr(row, cost) for cost, limit in row.limits.items())
        for row in rows
        if row.size
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


def _missing(rows: Sequence[Row]) -> list[str]:
    """List the cells that a method has not in a column where others have one."""
    labels, columns = labels_of(rows), columns_of(rows)
    several = len({model for model, _ in columns}) > 1
    gaps: dict[str, list[str]] = {}
    for config, line in gather(rows).items():
        if any(column in line for column in columns):
            for model, size in columns:
                if (model, size) not in line:
                    name = f"{labels[config]} {model}" if several else labels[config]
                    gaps.setdefault(name, []).append(shown(size))
    listed = [f"{name} {', '.join(sizes)}" for name, sizes in gaps.items()]
    return [f"Not run: {'; '.join(listed)}."] if listed else []


def _drawn(
    header: Sequence[str],
    lines: Iterable[Sequence[str]],
    best: Iterable[tuple[int, int]],
) -> str:
    """Draw a Markdown table; cells that are best, by line and column, are bold."""
    bold = {*best}
    drawn = [
        [f"**{x}**" if (i, j) in bold else x for j, x in enumerate(line)]
        for i, line in enumerate(lines)
    ]
    ruler = ["---", *["--:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, ruler, *drawn])
