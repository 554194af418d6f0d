"""Pictures of a run: pure functions from recorded numbers to matplotlib figures.

Every function takes plain data, as `summary.json` and `metrics.jsonl` hold it, and
returns a `Figure` without touching pyplot's global state. `figures` draws those that
the data of a run allows. `save_png` and `inline_svg` turn a figure into a file or
into markup for a web page; equal data gives equal bytes.

Colours are few and named. In `inline_svg` the neutral ones become CSS variables, so
that a page can show the same picture on a light and on a dark ground.
"""

import io
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import IO, Any, TypeGuard

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from experiments.metrics import percent

Record = Mapping[str, Any]

_INK, _MUTED, _GRID, _PAPER = "#1c2530", "#667281", "#e3e7ec", "#fefefe"
_BLUE, _ORANGE, _GREEN, _RED = "#3b78e7", "#e07a1f", "#23966a", "#d1495b"

# Neutral colours by the CSS variable that stands for them in a page.
_VARIABLES = {_INK: "ink", _MUTED: "muted", _GRID: "grid", _PAPER: "paper"}

# First layer to last. All of similar lightness, to be seen on light and dark ground.
_DEPTH = LinearSegmentedColormap.from_list(
    "depth",
    ["#4a78e0", "#1d93b8", "#1f9c6d", "#8d9a1d", "#d9821b", "#d9484f", "#a94fc0"],
)

# More layers than this get a colour scale instead of a label each.
_MOST_LABELS = 40
_WIDTH = 6.5  # inches
_WIDE = 10.5

# For methods side by side; of similar lightness, as above.
_QUALITATIVE = (
    *("#3b78e7", "#e07a1f", "#23966a", "#d1495b", "#8a5fd0", "#1593a8"),
    *("#b0891a", "#c2529b", "#6f8f2a", "#9a6a4b", "#5c7fa8", "#4a9d9c"),
)
_MARKS = "osD^vPXph"

_style = mpl.rc_context(
    {
        "axes.axisbelow": True,
        "axes.edgecolor": _GRID,
        "axes.facecolor": "none",
        "axes.grid": True,
        "axes.labelcolor": _MUTED,
        "axes.labelsize": 10,
        "axes.linewidth": 1.0,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "figure.constrained_layout.use": True,
        "figure.facecolor": "none",
        "font.family": "DejaVu Sans",
        "font.size": 10,
        "grid.color": _GRID,
        "grid.linewidth": 0.8,
        "legend.fontsize": 10,
        "legend.frameon": False,
        "legend.handlelength": 1.6,
        "legend.labelcolor": _INK,
        "lines.linewidth": 2.0,
        "lines.solid_capstyle": "round",
        "svg.fonttype": "none",
        "svg.hashsalt": "jaxprune",
        "text.color": _INK,
        "text.parse_math": False,
        "xtick.color": _GRID,
        "xtick.labelcolor": _MUTED,
        "ytick.color": _GRID,
        "ytick.labelcolor": _MUTED,
    }
)


def figures(summary: Mapping[str, Any], records: Sequence[Record]) -> dict[str, Figure]:
    """Draw every figure that the data of a run allows.

    Args:
      summary: The content of `summary.json`.
      records: The lines of `metrics.jsonl`.

    Returns:
      Figures by name, in the order to show them. One whose data is missing, such as
      thresholds of a method that has none, is left out.
    """
    final = summary.get("final") or {}
    layers = final.get("layers") or {}
    points = summary.get("points") or []
    budget = summary.get("budget") or {}
    drawn = {}
    dense = summary.get("dense_accuracy")
    # The final network alone is a number, not a picture.
    if any(map(_is_point, points)) or (_is_point(final) and is_number(dense)):
        drawn["accuracy"] = accuracy_against_compression(
            points, final=final, dense_accuracy=dense
        )
    if any(is_number(r.get(k)) for r in records for k in _LEARNING):
        drawn["learning"] = learning_curves(records)
    kept = [r["keep_ratio"] for r in records if _is_positive(r.get("keep_ratio"))]
    if min(kept, default=1.0) < 1.0:  # a dense run keeps all of it all the time
        drawn["keep_ratio"] = keep_ratio_over_time(records, asked=budget.get("asked"))
    if layers:
        drawn["layers"] = layer_keep_ratios(layers)
    if any(
        k.startswith(_THRESHOLD) and is_number(v) for r in records for k, v in r.items()
    ):
        drawn["thresholds"] = thresholds_over_time(records)
    if any(_is_positive(r.get(k)) for r in records for k in _REGROWTH):
        drawn["regrowth"] = regrowth_over_time(records)
    return drawn


@_style
def accuracy_against_compression(
    points: Sequence[Mapping[str, Any]],
    *,
    final: Mapping[str, Any] | None = None,
    dense_accuracy: float | None = None,
) -> Figure:
    """Draw accuracy against compression, each doubling one step to the right.

    Args:
      points: Points of the trail, with `compression`, `accuracy_soft` (with
        the masks as trained) and `accuracy_hard` (with masks of zeros and ones),
        either of which may lack.
      final: The finished network, with `compression` and `accuracy`.
      dense_accuracy: Accuracy of the network before pruning.

    Returns:
      The figure.
    """
    figure, axes = _figure("Accuracy against compression", height=3.7)
    for key, label, colour, mark in (
        ("accuracy_soft", "soft masks", _BLUE, "o"),
        ("accuracy_hard", "hard masks", _ORANGE, "s"),
    ):
        series = sorted(
            (p["compression"], p[key])
            for p in points
            if _is_positive(p.get("compression")) and is_number(p.get(key))
        )
        if series:
            axes.plot(
                *np.transpose(series),
                marker=mark,
                color=colour,
                label=label,
                markersize=6,
                markeredgecolor=_PAPER,
                markeredgewidth=1.2,
            )
    if final and _is_point(final):
        axes.plot(
            final["compression"],
            final["accuracy"],
            "*",
            color=_GREEN,
            label="final",
            markersize=17,
            markeredgecolor=_PAPER,
            markeredgewidth=1.2,
            zorder=5,
        )
    if is_number(dense_accuracy):
        axes.axhline(
            dense_accuracy,
            color=_MUTED,
            linestyle=(0, (4, 3)),
            linewidth=1.3,
            label=f"dense {100 * dense_accuracy:.2f}%",
        )
    axes.set_xscale("log", base=2)
    axes.margins(x=0.06, y=0.12)
    low, high = axes.get_xlim()
    if high / low < 4:  # room for two ticks at least
        middle = math.sqrt(low * high)
        axes.set_xlim(middle / 2, middle * 2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}×"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("compression (all weights / kept weights)")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.6g}%"))
    axes.set_ylabel("accuracy")
    _legend(axes)
    return figure


@_style
def layer_keep_ratios(layers: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw the fraction of the weights that every layer keeps, with the counts.

    Args:
      layers: By leaf name, in the order to show them from the top: `size` and `kept`,
        numbers of weights.

    Returns:
      The figure; it grows with the number of layers.
    """
    count = len(layers)
    # So many layers that the picture would not end are drawn smaller instead.
    pitch = min(0.27, 30 / count)
    font = min(9.0, 60 * pitch)
    figure, axes = _figure("Keep ratio per layer", height=1.1 + pitch * count)
    ratios = [x["kept"] / x["size"] if x["size"] else 0.0 for x in layers.values()]
    positive = [r for r in ratios if r > 0]
    # A bar needs a length, on a logarithmic scale too: start below the smallest.
    low = (
        min(10 ** math.floor(math.log10(min(positive) * 0.7)), 0.1) if positive else 0.1
    )
    rows = np.arange(count)
    colours = list(_layer_colours(list(layers)).values())
    axes.barh(rows, [max(r - low, 0) for r in ratios], 0.66, left=low, color=colours)
    for row, (ratio, layer) in enumerate(zip(ratios, layers.values(), strict=True)):
        note = f"{percent(ratio)} · {layer['kept']:,} of {layer['size']:,}"
        axes.annotate(
            note if layer["kept"] else f"nothing left of {layer['size']:,}",
            (max(ratio, low), row),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=font * 0.94,
            color=_INK if layer["kept"] else _RED,
        )
    axes.set_xscale("log")
    axes.set_xlim(low, 1)
    _percent_ticks(axes.xaxis, low, 1)
    axes.set_ylim(count - 0.4, -0.6)
    axes.set_yticks(rows, [_shorten(name) for name in layers], fontsize=font)
    axes.tick_params(axis="y", length=0, labelcolor=_INK)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("weights kept")
    return figure


@_style
def thresholds_over_time(records: Sequence[Record]) -> Figure:
    """Draw the threshold of every layer against the step.

    Args:
      records: Lines with `threshold/<leaf>`.

    Returns:
      The figure. Up to 40 layers each have their name beside the end of the line;
      more share a colour scale from the first layer to the last.
    """
    names = _threshold_keys(records)
    short = [name.removeprefix(_THRESHOLD) for name in names]
    colours = _layer_colours(short)
    labelled = len(names) <= _MOST_LABELS
    height = max(3.9, 1.2 + 0.19 * len(names)) if labelled else 4.6
    figure, axes = _figure("Thresholds over time", height=height)
    ends = []
    positive = True
    for name, layer in zip(names, short, strict=True):
        steps, values = _thin(*_series(records, name))
        axes.plot(steps, values, color=colours[layer], linewidth=1.7)
        ends.append((steps[-1], values[-1], layer))
        positive = positive and bool(np.all(values > 0))
    if positive:
        _log_ticks(axes)
    axes.set_ylabel("threshold")
    _steps(axes, records)
    if labelled:
        _label_ends(axes, ends, colours)
    else:
        scale = ScalarMappable(Normalize(1, len(names)), _DEPTH)
        bar = figure.colorbar(scale, ax=axes, pad=0.02, aspect=30)
        bar.set_label("layer", color=_MUTED)
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    return figure


@_style
def keep_ratio_over_time(
    records: Sequence[Record], *, asked: float | None = None
) -> Figure:
    """Draw the keep ratio, and the one aimed at, against the step.

    Args:
      records: Lines with `keep_ratio` and perhaps `target_keep_ratio`.
      asked: The keep ratio that the budget asks for, drawn as a line across.

    Returns:
      The figure.
    """
    figure, axes = _figure("Keep ratio over time", height=3.7)
    lowest = 1.0
    for key, label, colour, line in (
        ("target_keep_ratio", "target", _ORANGE, (0, (4, 2.5))),
        ("keep_ratio", "kept", _BLUE, "solid"),
    ):
        steps, values = _series(records, key)
        shown = values > 0
        steps, values = _thin(steps[shown], values[shown])
        if len(steps):
            axes.plot(steps, values, color=colour, linestyle=line, label=label)
            lowest = min(lowest, values.min())
    if _is_positive(asked):
        axes.axhline(
            asked,
            color=_MUTED,
            linewidth=1.3,
            linestyle=(0, (1, 2)),
            zorder=1.5,
            label=f"asked {percent(asked)}",
        )
        lowest = min(lowest, float(asked))
    axes.set_yscale("log")
    low = min(lowest * 0.8, 0.5)
    axes.set_ylim(low, 1.12)
    _percent_ticks(axes.yaxis, low, 1)
    axes.set_ylabel("weights kept")
    _steps(axes, records)
    _legend(axes)
    return figure


@_style
def regrowth_over_time(records: Sequence[Record]) -> Figure:
    """Draw how many weights a step prunes and how many it brings back.

    Args:
      records: Lines with `newly_pruned` and `regrown`, counts of single steps.

    Returns:
      The figure. Its scale is logarithmic above one weight, so that 0 has a place.
    """
    figure, axes = _figure("Weights that a step prunes and brings back", height=3.7)
    highest = 1.0
    for key, label, colour in zip(
        _REGROWTH, ("pruned", "regrown"), (_ORANGE, _GREEN), strict=True
    ):
        steps, values = _series(records, key)
        if len(steps):
            _noisy(axes, steps, values, colour=colour, label=label)
            highest = max(highest, values.max())
    axes.set_yscale("symlog", linthresh=1, linscale=0.4)
    axes.set_ylim(0, 1.6 * highest)
    # Under three decades every 1, 2, 5 of a decade is named, above that powers alone.
    fronts = (1, 2, 5) if highest < 500 else (1,)
    ticks = [0, *(f * 10**e for e in range(9) for f in fronts)]
    ticks = [tick for tick in ticks if tick <= 1.6 * highest]
    axes.set_yticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel("weights in one step")
    _steps(axes, records)
    _legend(axes)
    return figure


@_style
def learning_curves(records: Sequence[Record]) -> Figure:
    """Draw loss and accuracy against the step, one above the other.

    Args:
      records: Lines with `loss`, `accuracy` (of the training batches) and, in some,
        `test_accuracy`.

    Returns:
      The figure; a half without data is left out.
    """
    has_loss = any(is_number(r.get("loss")) for r in records)
    has_accuracy = any(is_number(r.get(k)) for r in records for k in _LEARNING[1:])
    figure = _blank("Loss and accuracy over time", height=2.0 + 1.7 * has_accuracy)
    halves = figure.subplots(has_loss + has_accuracy, sharex=True, squeeze=False)[:, 0]
    if has_loss:
        steps, values = _series(records, "loss")
        _noisy(halves[0], steps, values, colour=_BLUE, label=None)
        if values.min() > 0:
            _log_ticks(halves[0])
        halves[0].set_ylabel("training loss")
    if has_accuracy:
        axes = halves[-1]
        _zoom(axes, [_series(records, key) for key in _LEARNING[1:]])
        steps, values = _series(records, "accuracy")
        if len(steps):
            _noisy(axes, steps, values, colour=_BLUE, label="training batches")
        steps, values = _series(records, "test_accuracy")
        if len(steps):
            steps, values = _thin(steps, values)
            axes.plot(
                steps,
                values,
                color=_GREEN,
                label="test set",
                zorder=4,
                marker="o" if len(steps) <= 60 else None,
                markersize=4.5,
                markeredgecolor=_PAPER,
                markeredgewidth=0.8,
            )
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.6g}%"))
        axes.set_ylabel("accuracy")
        _legend(axes)
    for axes in halves:
        _steps(axes, records, label=axes is halves[-1], name=axes is halves[0])
    return figure


@_style
def accuracy_by_method(
    methods: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    dense: Mapping[str, Any] | None = None,
) -> Figure:
    """Draw accuracy against sparsity, a line for every method.

    Both axes are logarithmic, in the weights kept and in the errors made, so that
    99.0 and 99.5 % are as far apart as 90 and 95 %.

    Args:
      methods: By name, points with `sparsity` in (0, 1), `mean` and `spread` of the
        accuracy (a spread of `None` has no bar), and the single `accuracies`, drawn
        faintly.
      dense: `mean` and `spread` of the accuracy without pruning.

    Returns:
      The figure. Names stand beside the ends of the lines.
    """
    figure = _blank("Accuracy against sparsity", height=5.4, width=_WIDE)
    axes = figure.subplots()
    points = [point for line in methods.values() for point in line]
    _error_scale(axes, [*points, *([dense] if dense else [])])
    sparsities = sorted({point["sparsity"] for point in points})
    span = (1 - sparsities[0]) / (1 - sparsities[-1]) if sparsities else 1.0
    axes.set_xscale("log")
    if sparsities:
        room = max(span, 2.0) ** (0.04 + 0.005 * len(methods))
        axes.set_xlim(1 / (1 - sparsities[0]) / room, room / (1 - sparsities[-1]))
    ends, colours = [], {}
    for number, (name, line) in enumerate(methods.items()):
        colour = colours[name] = _QUALITATIVE[number % len(_QUALITATIVE)]
        line = sorted(line, key=lambda point: point["sparsity"])
        # Beside each other, or the bars would hide one another.
        aside = max(span, 2.0) ** (0.009 * (number - (len(methods) - 1) / 2))
        xs = [aside / (1 - point["sparsity"]) for point in line]
        means = [point["mean"] for point in line]
        axes.errorbar(
            xs,
            means,
            yerr=[math.nan if (s := p["spread"]) is None else s for p in line],
            color=colour,
            linewidth=1.8,
            elinewidth=1.4,
            capsize=2.5,
            marker=_MARKS[number % len(_MARKS)],
            markersize=7,
            markeredgecolor=_PAPER,
            markeredgewidth=1.0,
            zorder=3,
        )
        for x, point in zip(xs, line, strict=True):
            values = point["accuracies"]
            axes.plot([x] * len(values), values, ".", color=colour, alpha=0.4, ms=4.5)
        ends.append((xs[-1], means[-1], name))
    if dense:
        low, high = (dense["mean"] + sign * (dense["spread"] or 0) for sign in (-1, 1))
        axes.axhspan(low, high, color=_MUTED, alpha=0.13, linewidth=0)
        axes.axhline(
            dense["mean"],
            color=_MUTED,
            linestyle=(0, (4, 3)),
            linewidth=1.3,
            label=f"dense {100 * dense['mean']:.2f}%",
        )
    axes.set_xticks(
        [1 / (1 - s) for s in sparsities],
        [f"{100 * s:.6g}%\n{1 / (1 - s):.4g}×" for s in sparsities],
    )
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("sparsity and compression asked for")
    axes.set_ylabel("test accuracy")
    _legend(axes)
    _label_ends(axes, ends, colours)
    return figure


@_style
def l1_coefficients(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]], learning_rate: np.ndarray
) -> Figure:
    """Draw learning rate, thresholds and L1 coefficients, one above the other.

    Args:
      curves: By name: the threshold at the begin of every epoch and at the end of the
        last, and the L1 coefficient of every epoch, both relative. A coefficient that
        is not positive is left out; the axis ends at a tenth and at ten.
      learning_rate: Of every epoch.

    Returns:
      The figure. Names stand beside the ends of the lines.
    """
    figure = _blank("Every threshold schedule is an L1 coefficient", 8.6, width=_WIDE)
    heights = (0.7, 1.5, 2.4)
    top, middle, bottom = figure.subplots(
        3, sharex=True, gridspec_kw={"height_ratios": heights}
    )
    epochs = np.arange(len(learning_rate) + 1)
    top.stairs(learning_rate, epochs, color=_MUTED, linewidth=1.6)
    top.set_ylabel("learning rate")
    low, high = 1 / 12, 12
    colours, ends = {}, []
    for number, (name, (thresholds, values)) in enumerate(curves.items()):
        colours[name] = _QUALITATIVE[number % len(_QUALITATIVE)]
        # Every second line is broken and lies on top, so that none hides another.
        look = {"color": colours[name], "linestyle": "solid", "zorder": 2.0}
        if number % 2:
            look |= {"linestyle": (0, (3.5, 1.8)), "zorder": 3.0}
        middle.plot(epochs, thresholds, **look)
        shown = np.where(values > 0, values, np.nan)
        bottom.plot(epochs[:-1] + 0.5, shown, **look)
        ends.append((epochs[-1] - 0.5, float(np.clip(values[-1], low, high)), name))
    middle.set_ylabel("threshold / final threshold")
    bottom.set_yscale("log")
    bottom.set_ylim(low, high)
    ticks = [0.1, 0.2, 0.5, 1, 2, 5, 10]
    bottom.set_yticks(ticks, [f"{tick:g}×" for tick in ticks])
    bottom.yaxis.set_minor_locator(NullLocator())
    bottom.set_ylabel("L1 coefficient / the constant one")
    bottom.set_xlabel("epoch")
    bottom.margins(x=0.01)
    _label_ends(bottom, ends, colours, height=7.4 * heights[-1] / sum(heights))
    return figure


def is_number(value: Any) -> TypeGuard[float]:
    """Tell whether a recorded value is a finite number, as `None` and lacks are not."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    )


@_style
def save_png(figure: Figure, path: str | os.PathLike[str] | IO[bytes]) -> None:
    """Save a figure as a PNG on white ground.

    Args:
      figure: The figure.
      path: The file, or one that is open for writing.

    Raises:
      OSError: If it cannot be written.
    """
    # Naming the software would make the bytes depend on the version of matplotlib.
    figure.savefig(
        path, format="png", dpi=160, facecolor="white", metadata={"Software": None}
    )


@_style
def inline_svg(figure: Figure, name: str, *, label: str | None = None) -> str:
    """Render a figure as an SVG element to put inside an HTML page.

    Text stays text, in the font `var(--sans)` of the page. Neutral colours are the
    variables `--ink`, `--muted`, `--grid` and `--paper`.

    Args:
      figure: The figure.
      name: Unique in the page; identifiers inside the picture start with it, so that
        several pictures do not meet.
      label: What the picture shows, for those who cannot see it.

    Returns:
      The `<svg>` element; equal figures give equal text.
    """
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # matplotlib's style element would apply to the whole page.
    text = re.sub(
        r"<defs>\s*<style.*?</style>\s*</defs>", "", text, count=1, flags=re.S
    )
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None  # every SVG of matplotlib has one
    title = (label or name).replace("&", "&amp;").replace('"', "&quot;")
    opening = f'<svg {box[0]} role="img" aria-label="{title}">'
    text = re.sub(r"<svg\b[^>]*>", lambda _: opening, text, count=1)
    text = re.sub(r'(?<=\sid=")', f"{name}-", text)
    text = text.replace("url(#", f"url(#{name}-")
    text = re.sub(r'xlink:href="#', f'href="#{name}-', text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(f": {colour}", f": var(--{variable})")
    return text.replace("'DejaVu Sans'", "var(--sans)").strip()


_THRESHOLD = "threshold/"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_LEARNING = ("loss", "accuracy", "test_accuracy")
_REGROWTH = ("newly_pruned", "regrown")


def _blank(title: str, height: float, *, width: float = _WIDTH) -> Figure:
    figure = Figure(figsize=(width, height))
    figure.suptitle(
        title,
        x=0.078 / width,
        horizontalalignment="left",
        fontsize=12.5,
        fontweight="bold",
    )
    return figure


def _figure(title: str, height: float) -> tuple[Figure, Axes]:
    figure = _blank(title, height)
    return figure, figure.subplots()


def _legend(axes: Axes) -> None:
    """Put the legend in a row above the axes, where no data is."""
    if axes.get_legend_handles_labels()[1]:
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(-0.01, 1.0),
            ncols=4,
            borderaxespad=0.1,
            columnspacing=1.6,
        )


def _is_positive(value: Any) -> TypeGuard[float]:
    return is_number(value) and value > 0


def _is_point(point: Mapping[str, Any]) -> bool:
    return _is_positive(point.get("compression")) and any(
        is_number(point.get(k)) for k in ("accuracy", "accuracy_soft", "accuracy_hard")
    )


def _threshold_keys(records: Sequence[Record]) -> list[str]:
    """List the keys of thresholds that have a value somewhere, as they come."""
    return list(
        dict.fromkeys(
            key
            for record in records
            for key, value in record.items()
            if key.startswith(_THRESHOLD) and is_number(value)
        )
    )


def _series(records: Sequence[Record], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Collect the steps and values of one number where it was recorded."""
    pairs = [(r["step"], r[key]) for r in records if is_number(r.get(key))]
    steps, values = np.array(pairs, float).reshape(-1, 2).T
    return steps, values


def _thin(
    steps: np.ndarray, values: np.ndarray, most: int = 600
) -> tuple[np.ndarray, np.ndarray]:
    """Leave out points that no screen can show; first and last stay."""
    if len(steps) <= most:
        return steps, values
    kept = np.linspace(0, len(steps) - 1, most).round().astype(int)
    return steps[kept], values[kept]


def _noisy(
    axes: Axes, steps: np.ndarray, values: np.ndarray, *, colour: str, label: str | None
) -> None:
    """Draw a noisy series faintly and its moving average clearly."""
    width = 2 * (len(values) // 60) + 1
    if width > 1:
        axes.plot(*_thin(steps, values), color=colour, alpha=0.28, linewidth=0.9)
        padded = np.pad(values, width // 2, mode="reflect")
        values = np.convolve(padded, np.full(width, 1 / width), mode="valid")
    axes.plot(*_thin(steps, values), color=colour, label=label)


def _zoom(axes: Axes, series: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    """Fit the y axis to accuracies after the first tenth, a rise from chance."""
    steps, values = np.concatenate(series, axis=1)
    late = values[steps >= steps.min() + 0.1 * np.ptp(steps)]
    margin = max(0.08 * np.ptp(late), 0.002)
    axes.set_ylim(late.min() - margin, late.max() + margin)


def _steps(
    axes: Axes, records: Sequence[Record], *, label: bool = True, name: bool = True
) -> None:
    """Set up the axis of steps and mark where one phase of the run ends."""
    thousand = FuncFormatter(lambda x, _: f"{x / 1000:g}k" if x >= 1000 else f"{x:g}")
    axes.xaxis.set_major_formatter(thousand)
    axes.margins(x=0.015)
    if label:
        axes.set_xlabel("step")
    last = {r["phase"]: r["step"] for r in records if "phase" in r}
    for before, after, mark, colour, side in (
        ("dense", "prune", "prune", _MUTED, "left"),
        ("prune", "finetune", "harden", _RED, "right"),
    ):
        end = last.get(before, axes.dataLim.x0)
        # Not at the edges: thresholds, for one, start and end with their phase.
        if after not in last or not axes.dataLim.x0 < end < axes.dataLim.x1:
            continue
        axes.axvline(end, color=colour, linewidth=1.2, linestyle=(0, (4, 3)))
        if name:
            axes.annotate(
                mark,
                (end, 0.6),
                (3 if side == "left" else -3, 0),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                rotation=90,
                ha=side,
                va="center",
                color=colour,
                fontsize=9,
            )


def _error_scale(axes: Axes, points: Sequence[Mapping[str, Any]]) -> None:
    """Make the y axis of accuracies logarithmic in the errors, fitted to the points."""
    seen = [a for point in points for a in point.get("accuracies", ())]
    for point in points:
        seen += [point["mean"] - (point["spread"] or 0), point["mean"]]
        seen += [point["mean"] + (point["spread"] or 0)]
    errors = [1 - value for value in seen if value < 1]
    floor = 0.7 * min(errors, default=0.01)  # where no error at all is drawn
    worst = max([*errors, 1.5 * floor])
    axes.set_yscale(
        "function",
        functions=(
            lambda accuracy: -np.log10(np.maximum(1 - np.asarray(accuracy), floor)),
            lambda height: 1 - 10.0 ** -np.asarray(height),
        ),
    )
    axes.set_ylim(1 - worst * (worst / floor) ** 0.06, 1 - floor)
    if worst < 5 * floor:
        ticks = MaxNLocator(6).tick_values(floor, worst)
    else:
        subs = (1, 2, 5) if worst < 200 * floor else (1,)
        ticks = LogLocator(10, subs).tick_values(floor, worst)
    ticks = [1 - tick for tick in ticks if floor <= tick <= min(worst, 1)]
    axes.set_yticks(ticks, [f"{100 * tick:.6g}%" for tick in ticks])
    axes.yaxis.set_minor_locator(NullLocator())


def _percent_ticks(axis: Any, low: float, high: float) -> None:
    decades = math.log10(high / low)
    subs = (1, 2, 5) if decades < 2.6 else (1,) if decades > 4 else (1, 3)
    axis.set_major_locator(LogLocator(10, subs))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda x, _: percent(x)))


def _log_ticks(axes: Axes) -> None:
    """Make the y axis logarithmic, with powers written without TeX."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    subs = (1, 2, 5) if high < 100 * low else (1,)
    axes.yaxis.set_major_locator(LogLocator(10, subs))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: _power(y)))


def _power(value: float) -> str:
    """Show 0.2 as itself and 0.00002 as 2×10⁻⁵."""
    if not 0.1 <= value < 1e4:
        digits, exponent = f"{value:e}".split("e")
        raised = str(int(exponent)).translate(_SUPERSCRIPTS)
        front = "" if float(digits) == 1 else f"{float(digits):g}×"
        return f"{front}10{raised}"
    return f"{value:g}"


def _layer_colours(names: Sequence[str]) -> dict[str, str]:
    last = max(len(names) - 1, 1)
    return {name: to_hex(_DEPTH(i / last)) for i, name in enumerate(names)}


def _shorten(name: str, most: int = 30) -> str:
    """Cut a long name in its middle, where names of layers differ least."""
    return name if len(name) <= most else f"{name[: most // 2]}…{name[-most // 2 :]}"


def _label_ends(
    axes: Axes,
    ends: Sequence[tuple[float, float, str]],
    colours: Mapping[str, str],
    *,
    height: float | None = None,
) -> None:
    """Name every line beside its end, the names spread so that none overlap.

    `height` is that of the axes in inches; without it they are alone in the figure.
    """
    ends = sorted(ends, key=lambda end: end[1])
    if not ends:
        return
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    where = axes.transData.transform([(x, y) for x, y, _ in ends])
    heights = axes.transAxes.inverted().transform(where)[:, 1]
    figure = axes.get_figure(root=True)
    assert figure is not None  # every plot here makes its axes in one
    # 0.15 inches a line of text; the axes take about an inch less than the figure.
    gap = min(0.15 / (height or figure.get_figheight() - 1.1), 1.04 / len(ends))
    for (x, y, name), place in zip(ends, _spread(heights, gap), strict=True):
        axes.annotate(
            _shorten(name),
            (x, y),
            (1.045, place),
            textcoords=axes.transAxes,
            va="center",
            fontsize=8.5,
            color=colours[name],
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colours[name],
                "linewidth": 0.7,
                "alpha": 0.6,
                "shrinkA": 0,
                "shrinkB": 2,
                "relpos": (0, 0.5),
            },
        )


def _spread(heights: np.ndarray, gap: float) -> np.ndarray:
    """Move ascending heights as little as need be to be `gap` apart.

    Least squares with the order as constraint: what remains after the gaps are taken
    off must not decrease, which pooling neighbours that do (isotonic regression)
    solves exactly.
    """
    offsets = gap * np.arange(len(heights))
    pools: list[list[float]] = []  # mean and size
    for value in heights - offsets:
        pools.append([float(value), 1])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (a, m), (b, n) = pools[-2:]
            pools[-2:] = [[(a * m + b * n) / (m + n), m + n]]
    spread = np.repeat([p[0] for p in pools], [int(p[1]) for p in pools]) + offsets
    # Back inside the axes as a whole, if it hangs out at one end.
    return spread - max(spread[-1] - 1.02, 0) + max(-0.02 - spread[0], 0)
