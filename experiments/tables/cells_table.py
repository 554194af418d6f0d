"""Cells of many seeds, and their accuracy by method and size as a table and a picture.

Rows that were measured by another program are in `results/NAME_recorded.csv`, with the
same columns. They stand beside the others, marked as recorded, and are never written.
"""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from experiments.logging.formatting import cost_name
from experiments.logging.summary import CELL_SUFFIX
from experiments.report.plots.accuracy import accuracy_by_size
from experiments.tables.comparison import Cell, describe, gather, lay_out, method_names
from experiments.tables.results import draw_markdown

Column = tuple[str, str]
"""The network and the size; the size of a network that is not pruned is empty."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One seed of a cell.

    Attributes:
      config: the name of the config, without the network.
      title: the name of the method, as papers write it.
      model: the name of the network.
      dataset: the name of the data set.
      size: the sparsity or the budget, such as `0.95` or `macs:0.5`; empty for a
        network that is not pruned.
      seed: the seed.
      accuracy: of the final network on the test split, a fraction.
      validation: of the final network on the validation split, a fraction.
      kept_weights: of the prunable ones, counted.
      total_weights: the prunable weights of the dense network.
      cost: the first cost of the budget that was reached; None for single weights.
      seconds: how long all seeds of the cell took together.
      recorded: what measured it, if it was another program; else empty.
    """

    config: str
    title: str
    model: str
    dataset: str
    size: str
    seed: int
    accuracy: float
    validation: float | None
    kept_weights: int
    total_weights: int
    cost: float | None
    seconds: float
    recorded: str


def read_cells(workdir: str | Path) -> tuple[list[Row], list[Path]]:
    """Read the cells of a workdir.

    Args:
      workdir: the folder of the cells, of `config/size.cell.json` each.

    Returns:
      A row for every seed, in order; and the files whose test split was not read.

    Raises:
      ValueError: if there is no cell whose test split was read.
    """
    rows, unread = [], []
    for file in sorted(Path(workdir).rglob(f"*{CELL_SUFFIX}")):
        content = json.loads(file.read_bytes())
        if not content["test"]:
            unread.append(file)
        else:
            rows += [_row(content, found) for found in content["rows"]]
    if not rows:
        raise ValueError(
            f"`read_cells({str(workdir)!r})`: there is no finished cell whose test "
            "split was read. Make them with `python -m experiments seeds --test`."
        )
    return sorted(rows, key=_order), unread


def _row(content: dict[str, Any], found: dict[str, Any]) -> Row:
    config = content["config"]
    size = content["size"]
    costs = found.get("costs")
    return Row(
        config=content["name"].partition(":")[0],
        title=content["title"],
        model=config["model"],
        dataset=config["data"]["name"],
        size="" if size == "dense" else size,
        seed=found["seed"],
        accuracy=found["test"],
        validation=found["validation"],
        kept_weights=found["kept_weights"],
        total_weights=found["total_weights"],
        cost=costs[size.partition(":")[0]] if costs else None,
        seconds=round(content["seconds"], 1),
        recorded="",
    )


def to_markdown(rows: Sequence[Row], name: str) -> str:
    """Lay out accuracy by method, network and size as a Markdown table.

    Args:
      rows: the runs, recorded ones among them; at least one.
      name: the name of the results, whose CSV file the caption refers to.

    Returns:
      A caption and the table. The best mean of each column is bold.
    """
    table = gather(rows, _column)
    columns = sorted({_column(row) for row in rows if row.size}, key=_place)
    ours = gather([row for row in rows if not row.recorded], _column)
    usual = max(
        len(cell.accuracies) for line in ours.values() for cell in line.values()
    )
    texts, best = lay_out(table, columns, usual=usual)
    labels = _labels(rows)
    lines = [[labels[config], *cells] for config, cells in texts.items()]
    header = ["method", *(f"{model} {_shown(size)}" for model, size in columns)]
    subjects = " and ".join(dict.fromkeys(model for model, _ in columns))
    about = describe(ours, f"{subjects} on {rows[0].dataset} by size")
    dense = ", ".join(f"{model} {cell}" for model, cell in _dense(rows).items())
    notes = [f"Dense: {dense}."] if dense else []
    notes += _missing(ours, columns, labels)
    if any(row.recorded for row in rows):
        notes.append(
            "Rows marked as recorded were measured by another program, with as many "
            f"seeds as in parentheses: see `results/{name}_recorded.csv`."
        )
    source = (
        f"Every run: `results/{name}.csv`, read by `python -m experiments table`; best "
        "mean bold."
    )
    text = " ".join([about, *notes, source])
    return f"{text}\n\n{draw_markdown(header, lines, best)}\n"


def draw(rows: Iterable[Row]) -> Figure:
    """Draw accuracy against size, a picture for each network."""
    rows = list(rows)
    labels, table = _labels(rows), gather(rows, _column)
    dense = _dense(rows)
    recorded = {row.config for row in rows if row.recorded}
    columns = sorted({_column(row) for row in rows if row.size}, key=_place)

    def line(config: str, model: str) -> dict[str, Any]:
        cells = {
            size: table[config].get((of, size)) for of, size in columns if of == model
        }
        points = {_shown(size): (c.mean, c.spread) for size, c in cells.items() if c}
        return {"recorded": config in recorded, "points": points}

    panels = {
        model: {
            "sizes": [_shown(size) for of, size in columns if of == model],
            "dense": dense[model].mean if model in dense else None,
            "lines": {labels[config]: line(config, model) for config in table},
        }
        for model in dict.fromkeys(model for model, _ in columns)
    }
    return accuracy_by_size(panels)


def _labels(rows: Iterable[Row]) -> dict[str, str]:
    """What each config is called."""
    rows = list(rows)
    recorded = {row.config for row in rows if row.recorded}
    return {
        config: f"{label} (recorded)" if config in recorded else label
        for config, label in method_names(rows).items()
    }


def _dense(rows: Sequence[Row]) -> dict[str, Cell]:
    """What the networks reach that are not pruned, by network."""
    found: dict[str, tuple[float, ...]] = {}
    for row in rows:
        if not row.size and not row.recorded:
            found[row.model] = (*found.get(row.model, ()), row.accuracy)
    return {model: Cell(accuracies=x) for model, x in found.items()}


def _missing(table, columns: Sequence[Column], labels) -> list[str]:
    """The cells that a method of ours has not in a column where others have one."""
    gaps: dict[tuple[str, str], list[str]] = {}
    for config, line in table.items():
        if any(column in line for column in columns):
            for model, size in columns:
                if (model, size) not in line:
                    gaps.setdefault((labels[config], model), []).append(_shown(size))
    listed = [f"{m} {model} {', '.join(sizes)}" for (m, model), sizes in gaps.items()]
    return [f"Not run yet: {'; '.join(listed)}."] if listed else []


def _column(row: Row) -> Column:
    return row.model, row.size


def _place(column: Column) -> tuple[str, float]:
    """Where a column stands: networks by name, the largest first."""
    model, size = column
    name, _, limit = size.rpartition(":")
    return model, -float(limit) if name else float(size or 0)


def _shown(size: str) -> str:
    """A size as the table shows it."""
    name, _, limit = size.rpartition(":")
    if not size:
        return "dense"
    return f"{cost_name(name)} {100 * float(limit):.6g}%".strip()


def _order(row: Row) -> tuple[Any, ...]:
    return bool(row.recorded), row.config, *_place(_column(row)), row.seed
