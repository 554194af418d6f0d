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
import io
import json
import math
import shlex
import sys
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import drawing, page, plots
from experiments.drawing import is_number
from experiments.metrics import METRICS_FILE, percent, read_metrics, write_atomically

SUMMARY_FILE = "summary.json"
SENSITIVITY_FILE = "sensitivity.json"
REPORT_FILE = "report.html"
PLOTS_FOLDER = "plots"

_MISSING = "–"

_METHODS = {
    "dense": "Dense training",
    "dsa": "Differentiable sparsity allocation",
    "evolution": "Channel pruning by evolution",
    "filter_norm": "Channel pruning by the size of filters",
    "global_magnitude": "Global magnitude pruning",
    "grasp": "Pruning at initialisation by GraSP",
    "group_lasso": "Structured sparsity learning",
    "lats": "Soft threshold pruning",
    "ltp": "Learned threshold pruning",
    "magnitude": "Magnitude pruning",
    "morphnet": "MorphNet",
    "norm_scale": "Channel pruning by the scale of norms",
    "pgh": "Soft threshold pruning by homotopy",
    "random_erk": "Random pruning at initialisation",
    "s_lats": "Soft threshold pruning, S-LATS",
    "snip": "Pruning at initialisation by SNIP",
    "soft_threshold_reparameterization": "Soft threshold reparameterization",
    "uniform": "Uniform channel pruning",
}

_FOOTER = (
    "Made by jaxprune from <code>summary.json</code> and\n"
    "<code>metrics.jsonl</code>; the pictures are in <code>plots/</code> too."
)

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
    "budget": (
        "What the learned keep ratios cost, the limit that they are held to, and the"
        " price that does it. The point is the cost of the whole channels that stay."
    ),
    "group_ratios": (
        "The learned keep ratio of each group of channels that are removed together;"
        " colours run from the first group to the last."
    ),
    "groups": "Channels that each group keeps in the final network.",
    "layers": "Fraction of each layer's weights kept, on a logarithmic scale.",
    "thresholds": "Each layer's threshold; colours run from the first to the last.",
    "regrowth": (
        "Weights that single steps turn into exact zeros of the network, and zeros that"
        " they bring back. Moving averages, with the steps that were logged behind."
    ),
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
    left = {i for i, name in enumerate(header) if name == "checkpoint"}
    return text_table(ascii_rows[0], ascii_rows[1:], left=left)


def text_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, left: Container[int]
) -> str:
    """Lay out a table for the terminal, with a line below the header.

    Args:
      header: Names of the columns.
      rows: Of as many cells each.
      left: Numbers of the columns that begin at the left; others end at the right.
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [header, *rows]
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
    sensitivity = workdir / SENSITIVITY_FILE
    found = json.loads(sensitivity.read_text()) if sensitivity.exists() else None
    measured = {"sensitivity": plots.sensitivity(found["groups"])} if found else {}
    folder = workdir / PLOTS_FOLDER
    folder.mkdir(exist_ok=True)
    for name, figure in {**figures, **measured}.items():
        buffer = io.BytesIO()
        drawing.save_png(figure, buffer)
        write_atomically(folder / f"{name}.png", buffer.getvalue())
    path = workdir / REPORT_FILE
    write_atomically(path, _page(summary, figures, workdir, found))
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
    limits = _limits(summary)
    header = ["step", *map(drawing.cost_name, limits), "sparsity", "keep ratio"]
    header += ["compression", "soft accuracy", "accuracy", "checkpoint"]
    named = [(_count(p.get("step")), p) for p in summary.get("points") or []]
    dense = summary.get("dense_accuracy")
    if is_number(dense):
        point = {"sparsity": 0.0, "keep_ratio": 1.0, "compression": 1.0}
        costs = dict.fromkeys(limits, 1.0)
        named.insert(0, ("dense", {**point, "accuracy": dense, "costs": costs}))
    if summary.get("final"):
        named.append(("final", summary["final"]))
    rows = []
    for name, point in named:
        sparsity, costs = point.get("sparsity"), point.get("costs") or {}
        rows.append(
            [
                name,
                *(_score(costs.get(cost)) for cost in limits),
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
    summary: Mapping[str, Any],
    figures: Mapping[str, plots.Figure],
    workdir: Path,
    measured: Mapping[str, Any] | None,
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
        page.section("The trail", _trail_html(summary), "trail"),
        page.section("Pictures", _pictures(figures), "pictures") if figures else "",
        _layers(summary),
        _sensitivity(measured) if measured else "",
        _compact(workdir),
        page.section("Run it again", _command(summary, workdir), "again"),
        _details("Configuration", summary.get("config")),
        _details("Versions", summary.get("versions")),
    ]
    return page.render(
        title,
        subject=subject,
        facts=" · ".join(filter(None, facts)),
        badge=(status, "good" if status == "finished" else "warn"),
        cards=_cards(summary),
        sections=sections,
        footer=_FOOTER,
    )


def _limits(summary: Mapping[str, Any]) -> dict[str, float]:
    """The limits of a run that prunes channels, by cost; none for other runs."""
    budget = summary.get("budget") or {}
    return {name: x for name, x in budget.items() if name != "weights"}


def _cards(summary: Mapping[str, Any]) -> list[page.Card]:
    """Show the numbers that a reader looks for first."""
    final = summary.get("final") or {}
    limits, costs = _limits(summary), summary.get("costs") or {}
    accuracy, dense = final.get("accuracy"), summary.get("dense_accuracy")
    against = "no dense network to compare with"
    if is_number(dense):
        against = f"dense {_score(dense)}"
        if is_number(accuracy):
            points = f"{100 * (accuracy - dense):+.2f}".replace("-", "−")
            against += f", {points} points"
    total = _count(final.get("total_weights"))
    last: list[page.Card] = [
        ("Accuracy", _score(accuracy), against, ""),
        ("Weights kept", _count(final.get("kept_weights")), f"of {total}", ""),
    ]
    if limits:
        groups = (final.get("layers") or {}).values()
        channels = [sum(group[key] for group in groups) for key in ("kept", "size")]
        kept, size = map(_count, channels if groups else (None, None))
        # Channels are rounded down to the limit: there is nothing to allow for.
        first = [_limit_card(n, costs.get(n), x, room=1.0) for n, x in limits.items()]
        cards = [*first, last[0], ("Channels kept", kept, f"of {size}", ""), last[1]]
        return cards[:4]  # A row of them; with several limits the last are left out.
    asked = (summary.get("budget") or {}).get("weights")
    reached = costs.get("weights")
    kept = reached if is_number(reached) else final.get("keep_ratio")
    # Methods with thresholds of their own come close; 2 % more is no longer close.
    _, _, note, kind = _limit_card("weights", kept, asked, room=1.02)
    return [
        ("Keep ratio", _fraction(kept), note, kind),
        ("Compression", _times(final.get("compression")), "all / kept weights", ""),
        *last,
    ]


def _limit_card(name: str, reached: Any, limit: Any, *, room: float) -> page.Card:
    """Show a cost beside its limit, which it may exceed by a factor `room`."""
    note, kind = "no budget asked", ""
    if is_number(limit):
        note = f"asked {percent(limit)}"
        if is_number(reached):
            held = reached <= room * limit
            note += ", reached" if held else ", missed"
            kind = "good" if held else "warn"
    shown = drawing.cost_name(name)
    return shown[0].upper() + shown[1:], _score(reached), note, kind


def _stopped() -> str:
    return (
        '<p class="banner"><strong>Stopped before its end.</strong> The numbers are'
        " those of the last point that the run reached.</p>"
    )


def _trail_html(summary: Mapping[str, Any]) -> str:
    header, rows = _trail(summary)
    if not rows:
        return "<p>No point was reached.</p>"
    kinds = [row[0] if row[0] in ("dense", "final") else "" for row in rows]
    left = {column for column, name in enumerate(header) if name == "checkpoint"}
    return page.table(header, rows, kinds, left=left)


def _pictures(figures: Mapping[str, plots.Figure]) -> str:
    drawn = [
        f"<figure>{drawing.inline_svg(figure, name, label=_CAPTIONS[name])}"
        f"<figcaption>{page.text(_CAPTIONS[name])}</figcaption></figure>"
        for name, figure in figures.items()
    ]
    return '<div class="pictures">' + "\n".join(drawn) + "</div>"


def _layers(summary: Mapping[str, Any]) -> str:
    """Show what every layer keeps, or every group of channels."""
    layers = (summary.get("final") or {}).get("layers") or {}
    if not layers:
        return ""
    if _limits(summary):
        header = ["group", "channels", "kept", "keep ratio"]
        rows = [
            [name, *map(_count, (g["size"], g["kept"])), _fraction(g["keep_ratio"])]
            for name, g in layers.items()
        ]
        table = page.table(header, rows, [""] * len(rows), left={0})
        return page.section("Groups of channels", table, "layers")
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
    table = page.table(header, rows, [""] * len(rows), left={0})
    return page.section("Layers", table, "layers")


def compact_table(found: Mapping[str, Any]) -> str:
    """Lay out what `experiments.compact` found as a text table.

    Args:
      found: The content of `compact/summary.json`.

    Returns:
      The table, in plain ASCII, and a line on equality.
    """
    header, rows = _compact_rows(found)
    lines = [[cell.replace("–", "-") for cell in row] for row in rows]
    return f"{text_table(header, lines, left={0})}\n{_compact_note(found)}"


def _compact_rows(found: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    rows = []
    for row in found["rows"]:
        before, after = row["dense"], row["compact"]
        if row["unit"] == "seconds":
            shown = [
                f"{1e3 * median:.3f} ms ({1e3 * low:.3f}–{1e3 * high:.3f})"
                for low, median, high in (before, after)
            ]
            before, after = before[1], after[1]
        else:
            shown = [_count(before), _count(after)]
        unit = f", {row['unit']}" if row["unit"] == "bytes" else ""
        rows.append([f"{row['name']}{unit}", *shown, f"{after / before:.4f}"])
    return ["", "network of the run", "compact", "ratio"], rows


def _compact_note(found: Mapping[str, Any]) -> str:
    sizes = found["channels"].values()
    before, after = sum(n for n, _ in sizes), sum(n for _, n in sizes)
    return (
        f"{after:,} of {before:,} channels stay ({found['how']}); largest relative "
        f"difference of the logits {found['difference']:.1e}. Times are medians and "
        f"quartiles of {found['rounds']} calls in turns, on "
        f"{', '.join(found['devices'])}."
    )


def _compact(workdir: Path) -> str:
    """Show what `experiments.compact` found, if it was run."""
    path = workdir / "compact" / SUMMARY_FILE
    if not path.exists():
        return ""
    found = json.loads(path.read_text())
    header, rows = _compact_rows(found)
    table = page.table(header, rows, [""] * len(rows), left={0})
    note = f'<p class="caption">{page.text(_compact_note(found))}</p>'
    return page.section("Compact network", table + note, "compact")


def sensitivity_note(found: Mapping[str, Any]) -> str:
    """Say what `experiments.sensitivity` measured.

    Args:
      found: The content of `sensitivity.json`.
    """
    correlation = found["correlation"]
    agree = "no rank correlation, as one of them is the same everywhere"
    if correlation is not None:
        agree = f"Spearman rank correlation {correlation:+.2f}".replace("-", "−")
    return (
        "Each group alone loses the smaller half of its filters, in the dense network"
        f" of step {found['step']:,} (test loss {found['loss']:.3f}, accuracy"
        f" {_score(found['accuracy'])}), without training after. Rise of the test loss"
        f" and keep ratio of {len(found['groups'])} groups: {agree}."
    )


def _sensitivity(found: Mapping[str, Any]) -> str:
    note = sensitivity_note(found)
    figure = plots.sensitivity(found["groups"])
    picture = drawing.inline_svg(figure, "sensitivity", label=note)
    caption = f"<figcaption>{page.text(note)}</figcaption>"
    content = f"<figure>{picture}{caption}</figure>"
    return page.section("Sensitivity of groups", content, "sensitivities")


def _command(summary: Mapping[str, Any], workdir: Path) -> str:
    """Show the command of the run, where recorded, and that of its report."""
    command = summary.get("command")
    if isinstance(command, Sequence) and not isinstance(command, str):
        # A flag a line: browsers break long lines inside the flags.
        command = " ".join(
            ("\\\n  " if str(word).startswith("--") else "") + shlex.quote(str(word))
            for word in command
        )
    again = shlex.join(["python", "-m", "experiments.report", f"--workdir={workdir}"])
    named = {"The run:": command, "This page, from the files of the run:": again}
    return "\n".join(
        f"<p>{name}</p><pre>{page.text(line)}</pre>"
        for name, line in named.items()
        if line
    )


def _details(title: str, tree: Any) -> str:
    if not tree:
        return ""
    rows = [[key, value] for key, value in _flatten(tree)]
    table = page.table(["name", "value"], rows, [""] * len(rows), left={0, 1})
    return f"<details><summary>{page.text(title)}</summary>\n{table}</details>"


def _flatten(tree: Any, prefix: str = "") -> Iterable[tuple[str, str]]:
    """Yield the dotted name and the value of every leaf of a nested dictionary."""
    if not isinstance(tree, Mapping) or (prefix and not tree):
        yield prefix, tree if isinstance(tree, str) else json.dumps(tree)
        return
    for key, value in tree.items():
        yield from _flatten(value, f"{prefix}.{key}" if prefix else str(key))


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


if __name__ == "__main__":
    sys.exit(main())
