"""What finished runs reached, a row for each, read from a sweep or from a CSV file."""

import csv
import dataclasses
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from experiments.logging.formatting import cost_name
from experiments.logging.summary import CELL_SUFFIX, config_of, read_summaries
from experiments.sweep.bisect import TRIALS_FILE

COSTS = ("weights", "macs", "parameters", "bytes", "latency")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One finished run, or one seed of a cell.

    Attributes:
      config: the name of the config, without that of the network.
      title: of the method, as papers write it.
      model: the name of the network.
      dataset: the name of the data set.
      split: the one of it on which the accuracy is.
      size: the sparsity or the limits, such as `0.95` or `macs:0.5+parameters:0.4`;
        empty for a network that is not pruned.
      seed: the seed.
      accuracy: of the final network, a fraction.
      validation: the same on the validation split, if `split` is another.
      weights: the fraction that is left of the prunable weights; so are the next four
        of other costs. None if it is not known.
      macs: see `weights`.
      parameters: see `weights`.
      bytes: see `weights`.
      latency: as fitted, see `weights`.
      seconds: how long it took, the trials before it included that found its penalty.
        Of a seed of a cell, its share of what all took together.
      jaxprune: the version of the library.
      recorded: what measured it, if it was another program; else empty.
    """

    config: str
    title: str
    model: str
    dataset: str
    split: str
    size: str
    seed: int
    accuracy: float
    validation: float | None
    weights: float | None
    macs: float | None
    parameters: float | None
    bytes: float | None
    latency: float | None
    seconds: float
    jaxprune: str
    recorded: str

    @property
    def limits(self) -> dict[str, float]:
        """The limits that its size stands for, by cost."""
        return limits(self.size)


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


def place(row: Row) -> tuple[Any, ...]:
    """Return where a row stands: by network and by size, the largest first."""
    found = row.limits
    costs = bool(found) and "weights" not in found
    return row.model, costs, [*found], [-limit for limit in found.values()]


def read(workdir: str | Path) -> tuple[list[Row], list[Path]]:
    """Read the runs of a sweep, and cells.

    Args:
      workdir: the folder of the sweep, of `config/size/seed` each with a run, or of
        `config/size.cell.json`.

    Returns:
      A row for every run that is finished and every seed, in order; and the folders of
      those that are not finished, and the cells whose test split was not read.

    Raises:
      ValueError: if nothing that prunes is finished, or the size of a run was not
        stated.
    """
    finished, left_out = read_summaries(workdir)
    rows = [_of_run(summary, folder, workdir) for folder, summary in finished.items()]
    for file in sorted(Path(workdir).rglob(f"*{CELL_SUFFIX}")):
        content = json.loads(file.read_bytes())
        if content["test"]:
            rows += [_of_seed(content, found) for found in content["rows"]]
        else:
            left_out.append(file)
    if not any(row.size for row in rows):
        raise ValueError(
            f"`read({str(workdir)!r})` requires the folder of a sweep, with finished "
            "runs that prune in config/size/seed, or cells whose test split was read; "
            "there is none. Make them with `python -m experiments sweep`, or `python "
            "-m experiments seeds --test`."
        )
    return sorted(rows, key=_order), left_out


def check_together(rows: Iterable[Row]) -> None:
    """Refuse rows that do not stand in one table.

    Raises:
      ValueError: if they are of several data sets or splits, another program's config
        is called as one of ours, or a cost that is limited is not known.
    """
    rows = list(rows)
    subjects = sorted({f"{row.dataset} ({row.split})" for row in rows})
    if len(subjects) > 1:
        raise ValueError(
            f"a table compares methods on one data set; got {', '.join(subjects)}. "
            "Give each a sweep of its own."
        )
    both = {row.config for row in rows if row.recorded}
    both &= {row.config for row in rows if not row.recorded}
    if both:
        raise ValueError(
            f"the recorded config {min(both)!r} is called as one of ours. Rename it."
        )
    unknown = [
        row for row in rows if any(getattr(row, cost) is None for cost in row.limits)
    ]
    if unknown:
        raise ValueError(
            f"{unknown[0].config} at {unknown[0].size}: what it has of the limited "
            "cost is not known. Run it again."
        )


def to_csv(rows: Iterable[Row]) -> str:
    """Write rows as CSV, in their order; numbers are exact."""
    buffer = io.StringIO()
    names = [field.name for field in dataclasses.fields(Row)]
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(dataclasses.asdict(row))
    return buffer.getvalue()


def from_csv(text: str) -> list[Row]:
    """Read what `to_csv` wrote.

    Raises:
      ValueError: if the columns are not those of a row, or hold no numbers.
    """
    reader = csv.DictReader(io.StringIO(text))
    fields = dataclasses.fields(Row)
    names = [field.name for field in fields]
    if reader.fieldnames != names:
        raise ValueError(
            f"`from_csv(...)` requires the columns {', '.join(names)}; got "
            f"{', '.join(reader.fieldnames or ())}. Make the file again from the runs."
        )
    rows = []
    for cells in reader:
        values: dict[str, Any] = dict(cells)
        if None in values or None in values.values():
            raise ValueError(
                f"`from_csv(...)`: line {reader.line_num} has not {len(names)} cells. "
                "Make the file again from the runs."
            )
        for field in fields:
            if field.type in (int, float):
                values[field.name] = field.type(cells[field.name])
            elif field.type == float | None:
                number = cells[field.name]
                values[field.name] = float(number) if number else None
        rows.append(Row(**values))
    return rows


def _of_run(summary: Mapping[str, Any], folder: Path, workdir: str | Path) -> Row:
    budget, final = summary["budget"], summary["final"]
    pruned = bool(summary.get("points") or summary.get("channels"))
    if pruned and budget is None:
        raise ValueError(
            f"`read(...)` compares at stated sizes; the size of the run in {folder} "
            "was decided by a penalty weight."
        )
    size = "+".join(f"{name}:{limit!r}" for name, limit in (budget or {}).items())
    if pruned and {*budget} == {"weights"}:
        size = repr(round(1 - budget["weights"], 12))
    costs = {"weights": final.get("keep_ratio"), **summary["costs"]}
    trials = folder / TRIALS_FILE
    spent = json.loads(trials.read_bytes())["seconds"] if trials.exists() else 0.0
    return Row(
        config=config_of(folder, workdir),
        title=summary.get("title", summary["method"]) if pruned else "Dense",
        model=summary["model"],
        dataset=summary["dataset"],
        split=summary.get("eval_split", "test"),
        size=size if pruned else "",
        seed=summary["seed"],
        accuracy=final["accuracy"],
        validation=None,
        **{name: costs.get(name) for name in COSTS},
        seconds=round(summary["seconds"] + spent, 1),
        jaxprune=summary["versions"]["jaxprune"],
        recorded="",
    )


def _of_seed(content: Mapping[str, Any], found: Mapping[str, Any]) -> Row:
    config, size = content["config"], content["size"]
    weights = found["kept_weights"] / found["total_weights"]
    costs = {"weights": weights, **(found.get("costs") or {})}
    return Row(
        config=content["name"].partition(":")[0],
        title=content["title"],
        model=config["model"],
        dataset=config["data"]["name"],
        split="test",
        size="" if size == "dense" else size,
        seed=found["seed"],
        accuracy=found["test"],
        validation=found["validation"],
        **{name: costs.get(name) for name in COSTS},
        seconds=round(content["seconds"] / len(content["rows"]), 1),
        jaxprune=content["versions"]["jaxprune"],
        recorded="",
    )


def _order(row: Row) -> tuple[Any, ...]:
    return row.config, *place(row), row.seed
