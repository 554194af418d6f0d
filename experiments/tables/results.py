"""Where results go: a CSV file with a row for every run, and a table in README.md."""

import argparse
import csv
import dataclasses
import io
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from experiments.logging.files import write_atomically


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say what is read and where results go."""
    parser.add_argument("--workdir", help="the folder of the sweep; else read the CSV")
    parser.add_argument(
        "--name", required=True, type=_name, help="of the results: results/NAME.csv"
    )
    parser.add_argument("--results", default="results", help="the folder of CSV files")
    parser.add_argument("--readme", default="README.md", help="where the table goes")


def load(
    parsed: argparse.Namespace,
    kind: type[Any],
    read_runs: Callable[[str], tuple[list[Any], list[Path]]],
) -> tuple[list[Any], list[Path]]:
    """Read the runs below the workdir or, without one, the CSV file.

    Args:
      parsed: the values of `add_arguments`.
      kind: the dataclass of a row.
      read_runs: reads the rows of a workdir, and the folders of unfinished runs.

    Returns:
      What `read_runs` returns.
    """
    if parsed.workdir is None:
        return from_csv(_csv_file(parsed).read_text(), kind), []
    return read_runs(parsed.workdir)


def columns(parsed: argparse.Namespace) -> list[str]:
    """Return the columns of the CSV file."""
    with _csv_file(parsed).open() as file:
        return next(csv.reader(file), [])


def save(
    parsed: argparse.Namespace, kind: type[Any], rows: Iterable[Any], markdown: str
) -> list[Path]:
    """Write both files, or none if README.md has no place for the table.

    Args:
      parsed: the values of `add_arguments`; without a workdir the CSV file stays.
      kind: the dataclass of a row.
      rows: the runs.
      markdown: the table.

    Returns:
      The files written.
    """
    path, readme = _csv_file(parsed), Path(parsed.readme)
    document = insert(readme.read_text(), parsed.name, markdown)
    written = []
    if parsed.workdir is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, to_csv(kind, rows))
        written.append(path)
    write_atomically(readme, document)
    return [*written, readme]


def show(markdown: str, unfinished: Iterable[Path]) -> None:
    """Print the table, and which runs it leaves out."""
    print(markdown)
    for folder in unfinished:
        print(f"Not finished, left out: {folder}")


def to_csv(kind: type[Any], rows: Iterable[Any]) -> str:
    """Write dataclasses of a kind as CSV, in their order; numbers are exact."""
    buffer = io.StringIO()
    names = [field.name for field in dataclasses.fields(kind)]
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(dataclasses.asdict(row))
    return buffer.getvalue()


def from_csv(text: str, kind: type[Any]) -> list[Any]:
    """Read what `to_csv` wrote.

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


def _csv_file(parsed: argparse.Namespace) -> Path:
    return Path(parsed.results) / f"{parsed.name}.csv"


def _name(text: str) -> str:
    if not re.fullmatch(r"\w[\w-]*", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"letters, digits, _ and -; got {text!r}")
    return text
