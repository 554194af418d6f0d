"""What remains of a run: a table for the terminal and one page for the browser.

`trail_table` shows the points of a pruning run as text. `write_report` makes
`report.html` and `plots/*.png` from the `summary.json` and `metrics.jsonl` of a run.
The page holds its styles and pictures itself, runs no script and loads nothing.

To make the report of a run again:

```
python -m experiments.report --workdir=DIR
```
"""

import argparse
import html
import io
import json
import math
import shlex
import string
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import plots
from experiments.metrics import METRICS_FILE, percent, read_metrics, write_atomically
from experiments.plots import is_number

SUMMARY_FILE = "summary.json"
REPORT_FILE = "report.html"
PLOTS_FOLDER = "plots"

_MISSING = "–"

_METHODS = {
    "dense": "Dense training",
    "dsa": "Differentiable sparsity allocation",
    "global_magnitude": "Global magnitude pruning",
    "ista": "Iterative soft thresholding",
    "lats": "Soft threshold pruning",
    "ltp": "Learned threshold pruning",
    "magnitude": "Magnitude pruning",
}

_CAPTIONS = {
    "accuracy": (
        "Networks of the trail. Hard masks set a pruned weight to zero; soft ones, used"
        " while pruning, let those near the threshold count in part."
    ),
    "learning": (
        "Moving averages, with the single values behind. The accuracies of the first"
        " steps are off the scale."
    ),
    "keep_ratio": "Fraction of the weights kept, on a logarithmic scale.",
    "layers": "Fraction of each layer's weights kept, on a logarithmic scale.",
    "thresholds": "Each layer's threshold; colours run from the first to the last.",
}


def trail_table(summary: Mapping[str, Any]) -> str:
    """Lay out the points of a run and its final network as a text table.

    Args:
      summary: The content of `summary.json`.

    Returns:
      The table in plain ASCII apart from paths, for any terminal and log. Columns
      that no row has a value for are left out.
    """
    header, rows = _trail(summary)
    ascii_rows = [
        [cell.replace("×", "x").replace(_MISSING, "-") for cell in row]
        for row in [header, *rows]
    ]
    widths = [max(map(len, column)) for column in zip(*ascii_rows, strict=True)]
    rights = [name != "checkpoint" for name in header]
    lines = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, rights, strict=True)
        ).rstrip()
        for row in ascii_rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def write_report(workdir: str | Path) -> Path:
    """Make the plots and the page of a run.

    Args:
      workdir: The folder of the run, with `summary.json` and, where the run wrote
        one, `metrics.jsonl`.

    Returns:
      The path of `report.html`.

    Raises:
      FileNotFoundError: If there is no `summary.json`.
      ValueError: If a file does not hold what it should.
      OSError: Naming the file, if one cannot be written.
    """
    workdir = Path(workdir)
    summary = _read_summary(workdir / SUMMARY_FILE)
    metrics = workdir / METRICS_FILE
    records = read_metrics(metrics) if metrics.exists() else []
    figures = plots.figures(summary, records)
    folder = workdir / PLOTS_FOLDER
    folder.mkdir(exist_ok=True)
    for name, figure in figures.items():
        buffer = io.BytesIO()
        plots.save_png(figure, buffer)
        write_atomically(folder / f"{name}.png", buffer.getvalue())
    path = workdir / REPORT_FILE
    write_atomically(path, _page(summary, figures, workdir))
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Make a report again from the command line.

    Args:
      arguments: Those of the process if not given.

    Returns:
      The exit status.
    """
    # Not absl flags: a `--workdir` defined here would collide with that of `main.py`,
    # which imports this module.
    parser = argparse.ArgumentParser(
        prog="python -m experiments.report",
        description="Make the report of a finished or stopped run again.",
    )
    parser.add_argument("--workdir", required=True, help="the folder of the run")
    workdir = Path(parser.parse_args(arguments).workdir)
    try:
        path = write_report(workdir)
    except (OSError, ValueError) as error:
        print(f"No report of {workdir}: {error}", file=sys.stderr)
        return 1
    print(trail_table(_read_summary(workdir / SUMMARY_FILE)))
    print(f"\n{path}")
    return 0


def _read_summary(path: Path) -> dict[str, Any]:
    try:
        summary = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(
            f"`write_report(...)` needs JSON in {path}; {error}."
        ) from error
    if not isinstance(summary, dict):
        raise ValueError(
            f"`write_report(...)` needs a JSON object in {path}; got a"
            f" {type(summary).__name__}."
        )
    return summary


def _trail(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Lay out the header and the rows of the trail.

    The column `accuracy` holds that of networks with exact zeros, so that it compares
    from the dense network to the final one.
    """
    header = ["step", "sparsity", "keep ratio", "compression", "soft accuracy"]
    header += ["accuracy", "checkpoint"]
    named = [(_count(p.get("step")), p) for p in summary.get("points") or []]
    dense = summary.get("dense_accuracy")
    if is_number(dense):
        point = {"sparsity": 0.0, "keep_ratio": 1.0, "compression": 1.0}
        named.insert(0, ("dense", point | {"accuracy": dense}))
    if summary.get("final"):
        named.append(("final", summary["final"]))
    rows = []
    for name, point in named:
        sparsity = point.get("sparsity")
        rows.append(
            [
                name,
                f"{100 * sparsity:.3f}%" if is_number(sparsity) else _MISSING,
                _fraction(point.get("keep_ratio")),
                _times(point.get("compression")),
                _score(point.get("accuracy_soft")),
                _score(point.get("accuracy_hard", point.get("accuracy"))),
                str(point.get("checkpoint") or _MISSING),
            ]
        )
    used = [
        column
        for column, name in enumerate(header)
        if name == "step" or any(row[column] != _MISSING for row in rows)
    ]
    return [header[i] for i in used], [[row[i] for i in used] for row in rows]


def _page(
    summary: Mapping[str, Any], figures: Mapping[str, plots.Figure], workdir: Path
) -> str:
    names = [summary.get(key) for key in ("model", "dataset")]
    method = str(summary.get("method", "run"))
    title = _METHODS.get(method, method)
    subject = " on ".join(str(name) for name in names if name)
    facts = [
        f"seed {summary['seed']}" if "seed" in summary else "",
        _duration(summary.get("seconds")),
    ]
    status = str(summary.get("status", "finished"))
    sections = [
        _stopped() if status != "finished" else "",
        _section("The trail", _trail_html(summary), "trail"),
        _section("Pictures", _pictures(figures), "pictures") if figures else "",
        _layers((summary.get("final") or {}).get("layers") or {}),
        _section("Run it again", _command(summary, workdir), "again"),
        _details("Configuration", summary.get("config")),
        _details("Versions", summary.get("versions")),
    ]
    return _PAGE.substitute(
        title=_text(f"{title}: {subject}" if subject else title),
        heading=_text(title),
        subject=_text(subject),
        facts=_text(" · ".join(filter(None, facts))),
        status=_text(status),
        status_class="good" if status == "finished" else "warn",
        cards=_cards(summary),
        sections="\n".join(filter(None, sections)),
        style=_STYLE,
    )


def _cards(summary: Mapping[str, Any]) -> str:
    """Show the four numbers that a reader looks for first."""
    final = summary.get("final") or {}
    budget = summary.get("budget") or {}
    asked, reached = budget.get("asked"), budget.get("reached")
    kept = reached if is_number(reached) else final.get("keep_ratio")
    note, kind = "no budget asked", ""
    if is_number(asked):
        note = f"asked {percent(asked)}"
        if is_number(kept):
            # The limit may be exceeded by rounding; 2 % more is no longer rounding.
            held = kept <= 1.02 * asked
            note += ", reached" if held else ", missed"
            kind = "good" if held else "warn"
    accuracy, dense = final.get("accuracy"), summary.get("dense_accuracy")
    against = "no dense network to compare with"
    if is_number(dense):
        against = f"dense {_score(dense)}"
        if is_number(accuracy):
            points = f"{100 * (accuracy - dense):+.2f}".replace("-", "−")
            against += f", {points} points"
    total = _count(final.get("total_weights"))
    cards = [
        ("Keep ratio", _fraction(kept), note, kind),
        ("Compression", _times(final.get("compression")), "all / kept weights", ""),
        ("Accuracy", _score(accuracy), against, ""),
        ("Weights kept", _count(final.get("kept_weights")), f"of {total}", ""),
    ]
    return "\n".join(
        f'<div class="card"><dt>{_text(name)}</dt><dd>{_text(value)}</dd>'
        f'<dd class="note {kind}">{_text(below)}</dd></div>'
        for name, value, below, kind in cards
    )


def _stopped() -> str:
    return (
        '<p class="banner"><strong>Stopped before its end.</strong> The numbers are'
        " those of the last point that the run reached.</p>"
    )


def _section(title: str, body: str, name: str) -> str:
    return f'<section id="{name}"><h2>{_text(title)}</h2>\n{body}</section>'


def _trail_html(summary: Mapping[str, Any]) -> str:
    header, rows = _trail(summary)
    if not rows:
        return "<p>No point was reached.</p>"
    kinds = [row[0] if row[0] in ("dense", "final") else "" for row in rows]
    left = {column for column, name in enumerate(header) if name == "checkpoint"}
    return _table(header, rows, kinds, left=left)


def _table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    kinds: Sequence[str],
    *,
    left: set[int],
) -> str:
    """Make a table of texts, numbers to the right, that scrolls if it is wide."""

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(
            f'<{tag} class="left">{_text(cell)}</{tag}>'
            if column in left
            else f"<{tag}>{_text(cell)}</{tag}>"
            for column, cell in enumerate(row)
        )

    body = "\n".join(
        f'<tr class="{kind}">{cells("td", row)}</tr>'
        if kind
        else f"<tr>{cells('td', row)}</tr>"
        for row, kind in zip(rows, kinds, strict=True)
    )
    return (
        f'<div class="scroll"><table><thead><tr>{cells("th", header)}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _pictures(figures: Mapping[str, plots.Figure]) -> str:
    drawn = [
        f"<figure>{plots.inline_svg(figure, name, label=_CAPTIONS[name])}"
        f"<figcaption>{_text(_CAPTIONS[name])}</figcaption></figure>"
        for name, figure in figures.items()
    ]
    return '<div class="pictures">' + "\n".join(drawn) + "</div>"


def _layers(layers: Mapping[str, Mapping[str, Any]]) -> str:
    if not layers:
        return ""
    header = ["layer", "weights", "kept", "keep ratio", "compression"]
    rows = [
        [
            name,
            _count(layer["size"]),
            _count(layer["kept"]),
            _fraction(layer["keep_ratio"]),
            _times(layer["size"] / layer["kept"] if layer["kept"] else math.inf),
        ]
        for name, layer in layers.items()
    ]
    table = _table(header, rows, [""] * len(rows), left={0})
    return _section("Layers", table, "layers")


def _command(summary: Mapping[str, Any], workdir: Path) -> str:
    """Show the command of the run, where recorded, and that of its report."""
    command = summary.get("command")
    if isinstance(command, Sequence) and not isinstance(command, str):
        # A flag a line: browsers break long lines inside the flags.
        command = " ".join(
            ("\\\n  " if str(word).startswith("--") else "") + shlex.quote(str(word))
            for word in command
        )
    page = shlex.join(["python", "-m", "experiments.report", f"--workdir={workdir}"])
    named = {"The run:": command, "This page, from the files of the run:": page}
    return "\n".join(
        f"<p>{name}</p><pre>{_text(line)}</pre>" for name, line in named.items() if line
    )


def _details(title: str, tree: Any) -> str:
    if not tree:
        return ""
    rows = [[key, value] for key, value in _flatten(tree)]
    table = _table(["name", "value"], rows, [""] * len(rows), left={0, 1})
    return f"<details><summary>{_text(title)}</summary>\n{table}</details>"


def _flatten(tree: Any, prefix: str = "") -> Iterable[tuple[str, str]]:
    """Yield the dotted name and the value of every leaf of a nested dictionary."""
    if not isinstance(tree, Mapping) or (prefix and not tree):
        yield prefix, tree if isinstance(tree, str) else json.dumps(tree)
        return
    for key, value in tree.items():
        yield from _flatten(value, f"{prefix}.{key}" if prefix else str(key))


def _text(value: Any) -> str:
    return html.escape(str(value))


def _score(value: Any) -> str:
    return f"{100 * value:.2f}%" if is_number(value) else _MISSING


def _fraction(value: Any) -> str:
    return percent(value) if is_number(value) else _MISSING


def _times(value: Any) -> str:
    if not is_number(value):
        return _MISSING
    return f"{value:.1f}×" if value < 1000 else f"{value:,.0f}×"


def _count(value: Any) -> str:
    return f"{value:,}" if is_number(value) else _MISSING


def _duration(seconds: Any) -> str:
    if not is_number(seconds):
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


_STYLE = """
:root {
  color-scheme: light dark;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans",
    Arial, sans-serif;
  --mono: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  --ink: #1c2530; --muted: #5d6977; --grid: #e3e7ec; --paper: #ffffff;
  --ground: #f5f7f9; --accent: #2563c9; --good: #17804f; --warn: #b4540a;
  --good-ground: #e2f4ea; --warn-ground: #fdeedd;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e7ebf0; --muted: #9aa6b4; --grid: #2d3642; --paper: #171d25;
    --ground: #0f1319; --accent: #7aa7ff; --good: #57c994; --warn: #f0a35e;
    --good-ground: #14342a; --warn-ground: #3d2a17;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.5 var(--sans); -webkit-text-size-adjust: 100%;
}
main { max-width: 1160px; margin: 0 auto; padding: 40px 24px 56px; }
h1 { font-size: 32px; line-height: 1.15; letter-spacing: -0.02em; margin: 0 0 6px; }
h2 { font-size: 19px; letter-spacing: -0.01em; margin: 40px 0 12px; }
.eyebrow { color: var(--accent); font-weight: 600; margin: 0 0 4px; }
.facts { color: var(--muted); margin: 0; }
.badge {
  border-radius: 99px; padding: 2px 11px; font-size: 13px; font-weight: 600;
  margin-right: 8px; display: inline-block;
}
.badge.good { background: var(--good-ground); color: var(--good); }
.badge.warn { background: var(--warn-ground); color: var(--warn); }
.banner {
  background: var(--warn-ground); border-left: 4px solid var(--warn);
  border-radius: 6px; padding: 10px 16px; margin: 24px 0 0;
}
.cards {
  display: grid; gap: 14px; margin: 28px 0 0;
  grid-template-columns: repeat(4, 1fr);
}
.card, .scroll, figure, pre, details {
  background: var(--paper); border: 1px solid var(--grid); border-radius: 12px;
}
.card { padding: 16px 20px; }
.card dt { color: var(--muted); font-size: 14px; }
.card dd:not(.note) {
  margin: 2px 0; font-size: 34px; font-weight: 650; line-height: 1.2;
  letter-spacing: -0.025em; font-variant-numeric: tabular-nums;
}
.note { margin: 0; font-size: 14px; color: var(--muted); }
.note.good { color: var(--good); }
.note.warn { color: var(--warn); }
.scroll { overflow-x: auto; }
table {
  border-collapse: collapse; width: 100%; font-size: 14.5px;
  font-variant-numeric: tabular-nums;
}
th, td { padding: 7px 16px; text-align: right; white-space: nowrap; }
th { color: var(--muted); font-weight: 500; font-size: 13.5px; }
td { border-top: 1px solid var(--grid); }
.left { text-align: left; }
td.left { font-family: var(--mono); font-size: 13px; }
tr.final td { font-weight: 650; background: var(--good-ground); }
tr.dense td { color: var(--muted); }
.pictures { columns: 2; column-gap: 14px; }
figure { margin: 0 0 14px; padding: 16px 16px 12px; break-inside: avoid; }
figure svg { display: block; width: 100%; height: auto; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
figcaption { color: var(--muted); font-size: 13.5px; margin-top: 8px; }
pre {
  font: 13.5px/1.55 var(--mono); padding: 12px 16px; margin: 0 0 14px;
  white-space: pre-wrap; overflow-wrap: anywhere;
}
#again p { color: var(--muted); margin: 0 0 6px; font-size: 14px; }
details { margin: 14px 0 0; overflow: hidden; }
summary { cursor: pointer; padding: 12px 16px; font-weight: 600; }
details .scroll { border: 0; border-top: 1px solid var(--grid); border-radius: 0; }
details td { white-space: normal; overflow-wrap: anywhere; }
footer { color: var(--muted); font-size: 13.5px; margin-top: 36px; }
@media (max-width: 860px) {
  main { padding: 26px 16px 40px; }
  .pictures { columns: 1; }
  .cards { grid-template-columns: repeat(2, 1fr); gap: 10px; }
  .card { padding: 12px 16px; }
  .card dd:not(.note) { font-size: 28px; }
  table { font-size: 13.5px; }
  th, td { padding: 6px 8px; }
  td.left { font-size: 12px; }
}
@media print {
  body { background: none; }
  main { max-width: none; padding: 0; }
}
"""

# The policy lets a browser prove that the page loads and runs nothing. Colour scales
# are images inside the markup, hence `data:`.
_PAGE = string.Template(
    """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
</head>
<body>
<main>
<header>
<p class="eyebrow">$subject</p>
<h1>$heading</h1>
<p class="facts"><span class="badge $status_class">$status</span>$facts</p>
<dl class="cards">
$cards
</dl>
</header>
$sections
<footer>Made by jaxprune from <code>summary.json</code> and
<code>metrics.jsonl</code>; the pictures are in <code>plots/</code> too.</footer>
</main>
</body>
</html>
"""
)


if __name__ == "__main__":
    sys.exit(main())
