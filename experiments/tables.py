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
import csv
import dataclasses
import io
import json
import re
import shlex
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from matplotlib.figure import Figure

from experiments import page
from experiments.files import write_atomically
from experiments.formatting import MISSING, percent, round_up
from experiments.plots.accuracy import accuracy_by_method
from experiments.plots.rendering import inline_svg, png
from experiments.summary import SUMMARY_FILE
from experiments.sweep import DENSE

PAGE_FILE = "comparison.html"
PICTURE_FILE = "comparison.png"


Key = TypeVar("Key")

# What the name of a config begins with, as papers write it.
_METHODS = {
    "amc": "Evolution, as AMC",
    "dense": "Dense",
    "dsa": "DSA",
    "erk": "Random (ERK)",
    "early_pgh": "PGH, early",
    "filter_norm": "Filter norms",
    "global_magnitude": "Magnitude, global",
    "gmp": "GMP",
    "grasp": "GraSP",
    "lats": "LATS",
    "ltp": "LTP",
    "magnitude": "Magnitude",
    "morphnet": "MorphNet",
    "norm_scale": "Norm scales",
    "pai": "PGH, at initialisation",
    "pgh_early": "PGH, early",
    "random": "Random (ERK)",
    "s_lats": "S-LATS",
    "snip": "SNIP",
    "ssl": "SSL",
    "str": "STR",
    "uniform": "Uniform",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One finished run.

    Attributes:
      config: the name of the config, from the folder of the run.
      method: the function of `experiments.plans`; `dense` if nothing was pruned.
      model: the name of the network.
      dataset: the name of the data set.
      sparsity: the fraction of zeros asked for; None if nothing was pruned.
      keep_ratio: the fraction of the prunable weights that is left.
      seed: the seed.
      accuracy: of the final network on the test data, a fraction.
      dense_accuracy: before pruning, if it was measured.
      seconds: how long the run took.
      jaxprune: the version of the library.
    """

    config: str
    method: str
    model: str
    dataset: str
    sparsity: float | None
    keep_ratio: float
    seed: int
    accuracy: float
    dense_accuracy: float | None
    seconds: float
    jaxprune: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """The runs of one config at one sparsity.

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


_DRAWN = (
    "Mean over the seeds, with bars of one sample standard deviation; dots are single"
    " runs. Both axes are logarithmic: in the weights kept, and in the errors made."
)

Table = dict[str, dict[float | None, Cell]]
"""Cells by config and sparsity; the sparsity of a dense config is None."""


def read_runs(workdir: str | Path) -> tuple[list[Row], list[Path]]:
    """Read the runs of a sweep.

    Args:
      workdir: the folder of the sweep, of `config/sparsity/seed` each with a run.

    Returns:
      A row for every finished run, in order, and the folders of those begun but not
      finished.

    Raises:
      ValueError: if no finished run prunes, or one does not compare: of another
        network or data set, or without an asked sparsity.
    """
    finished, unfinished = read_summaries(workdir)
    rows = [_row(summary, folder) for folder, summary in finished.items()]
    if all(row.sparsity is None for row in rows):
        raise ValueError(
            f"`read_runs({str(workdir)!r})` requires the folder of a sweep, with "
            "finished runs that prune in config/sparsity/seed; there is none. Make "
            "them with `python -m experiments.sweep`."
        )
    check_subject(rows, workdir)
    return sorted(rows, key=_order), unfinished


def read_summaries(
    workdir: str | Path,
) -> tuple[dict[Path, dict[str, Any]], list[Path]]:
    """Read what the runs of a sweep say.

    Args:
      workdir: the folder of the sweep, of three levels of folders, then runs.

    Returns:
      The content of `summary.json` by the folder of every finished run, and the
      folders of those begun but not finished.
    """
    finished, unfinished = {}, []
    for folder in sorted(p.parent for p in Path(workdir).glob("*/*/*/config.json")):
        try:
            summary = json.loads((folder / SUMMARY_FILE).read_bytes())
        except FileNotFoundError:
            summary = {"status": "killed"}
        if summary["status"] == "finished":
            finished[folder] = summary
        else:
            unfinished.append(folder)
    return finished, unfinished


def check_subject(rows: Iterable[Any], workdir: str | Path) -> None:
    """Raises ValueError if rows are of several networks or data sets."""
    subjects = sorted({_subject(row) for row in rows})
    if len(subjects) > 1:
        raise ValueError(
            f"`read_runs({str(workdir)!r})` compares methods on one network and data "
            f"set; got {', '.join(subjects)}. Give each a sweep of its own."
        )


def tabulate(rows: Iterable[Row]) -> Table:
    """Gather the runs by config, in the order of their names, and sparsity."""
    return gather(sorted(rows, key=_order), lambda row: row.sparsity)


def gather(
    rows: Iterable[Any], column: Callable[[Any], Key]
) -> dict[str, dict[Key, Cell]]:
    """Gather rows by config and column; both come in the order of the rows."""
    found: dict[str, dict[Key, tuple[float, ...]]] = {}
    for row in rows:
        line = found.setdefault(row.config, {})
        line[column(row)] = (*line.get(column(row), ()), row.accuracy)
    return {
        config: {key: Cell(accuracies=values) for key, values in line.items()}
        for config, line in found.items()
    }


def to_csv(rows: Iterable[Row]) -> str:
    """Write rows as CSV; numbers are exact."""
    return write_csv(Row, sorted(rows, key=_order))


def write_csv(kind: type[Any], rows: Iterable[Any]) -> str:
    """Write dataclasses of a kind as CSV, in their order."""
    buffer = io.StringIO()
    names = [field.name for field in dataclasses.fields(kind)]
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(dataclasses.asdict(row))
    return buffer.getvalue()


def from_csv(text: str, kind: type[Any] = Row) -> list[Any]:
    """Read what `to_csv` or `write_csv` wrote.

    Args:
      text: the content of the file.
      kind: the dataclass of a row, of fields `str`, `int`, `float` and `float | None`.

    Raises:
      ValueError: if the columns are not those of a row, or hold no numbers.
    """
    reader = csv.DictReader(io.StringIO(text))
    fields = dataclasses.fields(kind)
    names = [field.name for field in fields]
    if reader.fieldnames != names:
        raise ValueError(
            f"`from_csv(...)` requires the columns {', '.join(names)}; got "
            f"{', '.join(reader.fieldnames or ())}. Make the file again from the runs."
        )
    rows = []
    for cells in reader:
        values: dict[str, Any] = dict(cells)
        for field in fields:
            if field.type in (int, float):
                values[field.name] = field.type(cells[field.name])
            elif field.type == float | None:
                text = cells[field.name]
                values[field.name] = float(text) if text else None
        rows.append(kind(**values))
    return rows


def to_markdown(rows: Sequence[Row], name: str) -> str:
    """Lay out accuracy by config and sparsity as a Markdown table.

    Args:
      rows: the runs; at least one.
      name: the name of the results, whose CSV file the caption refers to.

    Returns:
      A caption and the table. The best mean of each column is bold.
    """
    labels = method_names(rows)
    header, texts, best = _cells(rows)
    lines = [[f"{labels[c]} (`{c}`)", *cells] for c, cells in texts.items()]
    command = "python -m experiments.tables"
    source = f"Every run: `results/{name}.csv`, read by `{command}`; best mean bold."
    return f"{_caption(rows)} {source}\n\n{draw_markdown(header, lines, best)}\n"


def draw_markdown(
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


def insert(document: str, name: str, content: str) -> str:
    """Put content between the two markers of a name.

    Args:
      document: the text of README.md.
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


def figure_of(rows: Iterable[Row]) -> Figure:
    """Draw accuracy against sparsity, a line for every config that prunes."""
    rows = list(rows)
    table, labels = tabulate(rows), method_names(rows)
    lines = {
        labels[config]: [
            {"sparsity": sparsity, **_point(cell)}
            for sparsity, cell in cells.items()
            if sparsity is not None
        ]
        for config, cells in table.items()
        if {*cells} != {None}
    }
    dense = [cells[None] for cells in table.values() if None in cells]
    return accuracy_by_method(
        lines, dense=_point(dense[0]) if len(dense) == 1 else None
    )


def to_html(
    rows: Sequence[Row], *, workdir: Path, name: str, unfinished: Sequence[Path] = ()
) -> str:
    """Make the page that compares the runs of a sweep.

    Args:
      rows: the runs; at least one.
      workdir: the folder of the sweep, for the command shown.
      name: the name of the results.
      unfinished: folders of runs that are not among the rows.

    Returns:
      The page; it loads and runs nothing.
    """
    labels = method_names(rows)
    header, texts, best = _cells(rows)
    lines = [[labels[config], *cells] for config, cells in texts.items()]
    versions = sorted({row.jaxprune for row in rows})
    facts = [
        f"{len(rows)} runs",
        f"{len({row.seed for row in rows})} seeds",
        f"{sum(row.seconds for row in rows) / 60:.0f} min of computing",
        f"jaxprune {', '.join(versions)}",
    ]
    badge = ("finished", "good")
    if unfinished:
        badge = (f"{len(unfinished)} unfinished", "warn")
    words = ["python", "-m", "experiments.tables"]
    command = shlex.join([*words, f"--workdir={workdir}", f"--name={name}"])
    caption = _code(f"{_caption(rows)} The best mean of each column is marked.")
    picture = inline_svg(figure_of(rows), "comparison", label=_DRAWN)
    return page.render(
        "Methods compared",
        subject=_subject(rows[0]),
        facts=" · ".join(facts),
        badge=badge,
        cards=_cards(rows),
        sections=[
            page.section(
                "Picture",
                page.figure(picture, _DRAWN),
                "picture",
            ),
            page.section(
                "Table",
                page.table(header, lines, left={0}, best=best)
                + f'<p class="caption">{caption}</p>',
                "table",
            ),
            _every_run(rows),
            page.section("Make it again", f"<pre>{page.text(command)}</pre>", "again"),
        ],
        footer="Made by jaxprune from the <code>summary.json</code> of every run.",
    )


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
    add_arguments(parser)
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say what is read and where results go."""
    parser.add_argument("--workdir", help="the folder of the sweep; else read the CSV")
    parser.add_argument(
        "--name", required=True, type=_name, help="of the results: results/NAME.csv"
    )
    parser.add_argument("--results", default="results", help="the folder of CSV files")
    parser.add_argument("--readme", default="README.md", help="where the table goes")


def _name(text: str) -> str:
    if not re.fullmatch(r"\w[\w-]*", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"letters, digits, _ and -; got {text!r}")
    return text


def _write(parsed: argparse.Namespace) -> None:
    """Write all that was asked for, or nothing if README.md has no place for it."""
    path = Path(parsed.results) / f"{parsed.name}.csv"
    readme = Path(parsed.readme)
    unfinished: list[Path] = []
    if parsed.workdir is None:
        rows = from_csv(path.read_text())
    else:
        rows, unfinished = read_runs(parsed.workdir)
    markdown = to_markdown(rows, parsed.name)
    written = []
    if not parsed.page_only:
        document = insert(readme.read_text(), parsed.name, markdown)
        if parsed.workdir is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, to_csv(rows))
            written.append(path)
        write_atomically(readme, document)
        written.append(readme)
    if parsed.workdir is not None:
        workdir = Path(parsed.workdir)
        picture = png(figure_of(rows))
        text = to_html(rows, workdir=workdir, name=parsed.name, unfinished=unfinished)
        for file, data in ((PICTURE_FILE, picture), (PAGE_FILE, text)):
            write_atomically(workdir / file, data)
            written.append(workdir / file)
    print(markdown)
    for folder in unfinished:
        print(f"Not finished, left out: {folder}")
    for file in written:
        print(file)


def _row(summary: dict[str, Any], folder: Path) -> Row:
    config, final = summary["config"], summary["final"]
    pruned = config["prune_epochs"] > 0
    if pruned and summary["budget"] is None:
        raise ValueError(
            f"`read_runs(...)` compares at asked sparsities; the run in {folder} was "
            "led by a price."
        )
    return Row(
        config=folder.parent.parent.name,
        method=summary["method"] if pruned else DENSE,
        model=summary["model"],
        dataset=summary["dataset"],
        sparsity=config["sparsity"] if pruned else None,
        keep_ratio=final["keep_ratio"],
        seed=summary["seed"],
        accuracy=final["accuracy"],
        dense_accuracy=summary["dense_accuracy"] if pruned else None,
        seconds=round(summary["seconds"], 1),
        jaxprune=summary["versions"]["jaxprune"],
    )


def _order(row: Row) -> tuple[str, float, int]:
    return row.config, -1.0 if row.sparsity is None else row.sparsity, row.seed


def _subject(row: Any) -> str:
    return f"{row.model} on {row.dataset}"


def _point(cell: Cell) -> dict[str, Any]:
    return {
        "mean": cell.mean,
        "spread": cell.spread,
        "accuracies": list(cell.accuracies),
    }


def method_names(rows: Iterable[Any]) -> dict[str, str]:
    """The names of the methods by config, as papers write them where that is known.

    Two configs of one method go by their own names.
    """
    labels = {}
    for row in rows:
        name = row.config.removesuffix(f"_{row.dataset}").removesuffix(f"_{row.model}")
        labels[row.config] = _METHODS.get(name, row.config)
    names = list(labels.values())
    return {c: n if names.count(n) == 1 else c for c, n in labels.items()}


def _cells(
    rows: Sequence[Row],
) -> tuple[list[str], dict[str, list[str]], list[tuple[int, int]]]:
    """Lay out the table as texts: its header, and what `lay_out` returns."""
    sparsities = sorted({row.sparsity for row in rows if row.sparsity is not None})
    header = ["method", *(f"{100 * sparsity:.6g}%" for sparsity in sparsities)]
    return header, *lay_out(tabulate(rows), sparsities)


def lay_out(
    table: Mapping[str, Mapping[Key, Cell]], columns: Sequence[Key]
) -> tuple[dict[str, list[str]], list[tuple[int, int]]]:
    """Lay out cells as texts, with the number of runs where it is not the largest.

    Args:
      table: cells by config and column.
      columns: those to show, in order.

    Returns:
      The cells of every config that has one of the columns; and which of them hold the
      best mean of their column, by row and column. Column 0 is left for names.
    """
    most = max(
        len(cell.accuracies) for line in table.values() for cell in line.values()
    )
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
            count = len(cell.accuracies) if cell else most
            note = f" ({count})" if count != most else ""
            texts[config].append(f"{cell}{note}" if cell else MISSING)
    return texts, best


def _caption(rows: Sequence[Row]) -> str:
    """What the numbers are, with names of configs between backquotes."""
    table = tabulate(rows)
    about = describe(table, f"{_subject(rows[0])} by sparsity")
    dense = [f"`{c}`: {line[None]}" for c, line in table.items() if None in line]
    if dense:
        about += f" Dense, {'; '.join(dense)}."
    off = max(
        abs(row.keep_ratio - (1 - row.sparsity))
        for row in rows
        if row.sparsity is not None
    )
    within = f"Every keep ratio is within {round_up(100 * off)} points"
    return f"{about} {within} of that asked for."


def describe(table: Mapping[str, Mapping[Any, Cell]], what: str) -> str:
    """Say what the cells are, and of how many seeds."""
    counts = {len(cell.accuracies) for line in table.values() for cell in line.values()}
    seeds = f"{max(counts)} seeds" if max(counts) > 1 else "one seed"
    about = f"Test accuracy in % of {what}: "
    about += "mean ± sample standard deviation of " if max(counts) > 1 else ""
    return f"{about}{seeds}{', or fewer where in parentheses' * (len(counts) > 1)}."


def _cards(rows: Sequence[Row]) -> list[page.Card]:
    """Show the best at every sparsity, all those that print alike."""
    table, labels = tabulate(rows), method_names(rows)
    cards = []
    for sparsity in sorted({r.sparsity for r in rows if r.sparsity is not None}):
        found = {c: line[sparsity] for c, line in table.items() if sparsity in line}
        shown = {config: f"{100 * cell.mean:.2f}%" for config, cell in found.items()}
        best = shown[max(found, key=lambda c: found[c].mean)]
        first = [labels[config] for config in shown if shown[config] == best]
        cards.append((f"Best at {100 * sparsity:.6g}%", best, ", ".join(first), ""))
    return cards


def _every_run(rows: Sequence[Row]) -> str:
    header = ["config", "sparsity", "seed", "keep ratio", "accuracy", "seconds"]
    lines = [
        [
            row.config,
            MISSING if row.sparsity is None else f"{100 * row.sparsity:.6g}%",
            str(row.seed),
            percent(row.keep_ratio),
            f"{100 * row.accuracy:.2f}%",
            f"{row.seconds:.0f}",
        ]
        for row in rows
    ]
    drawn = page.table(header, lines, left={0})
    return f"<details><summary>Every run</summary>\n{drawn}</details>"


def _code(text: str) -> str:
    """Make markup of a text with code between backquotes."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", page.text(text))


if __name__ == "__main__":
    sys.exit(main())
