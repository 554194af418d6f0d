"""How pictures look, and how they are saved: style, axes, labels, PNG and inline SVG.

Colours are few and named. In `inline_svg` the neutral ones become CSS variables, so
that a page can show the same picture on a light and on a dark ground.
"""

import io
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any, TypeGuard

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from experiments.metrics import percent

Record = Mapping[str, Any]

INK, MUTED, GRID, PAPER = "#1c2530", "#667281", "#e3e7ec", "#fefefe"
BLUE, ORANGE, GREEN, RED = "#3b78e7", "#e07a1f", "#23966a", "#d1495b"

# Neutral colours by the CSS variable that stands for them in a page.
VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper"}

# First layer to last. All of similar lightness, to be seen on light and dark ground.
DEPTH = LinearSegmentedColormap.from_list(
    "depth",
    ["#4a78e0", "#1d93b8", "#1f9c6d", "#8d9a1d", "#d9821b", "#d9484f", "#a94fc0"],
)

# More layers than this get a colour scale instead of a label each.
MOST_LABELS = 40
WIDTH = 6.5  # inches
WIDE = 10.5

# For methods side by side; of similar lightness, as above.
QUALITATIVE = (
    *("#3b78e7", "#e07a1f", "#23966a", "#d1495b", "#8a5fd0", "#1593a8"),
    *("#b0891a", "#c2529b", "#6f8f2a", "#9a6a4b", "#5c7fa8", "#4a9d9c"),
)
MARKS = "osD^vPXph"

style = mpl.rc_context(
    {
        "axes.axisbelow": True,
        "axes.edgecolor": GRID,
        "axes.facecolor": "none",
        "axes.grid": True,
        "axes.labelcolor": MUTED,
        "axes.labelsize": 10,
        "axes.linewidth": 1.0,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "figure.constrained_layout.use": True,
        "figure.facecolor": "none",
        "font.family": "DejaVu Sans",
        "font.size": 10,
        "grid.color": GRID,
        "grid.linewidth": 0.8,
        "legend.fontsize": 10,
        "legend.frameon": False,
        "legend.handlelength": 1.6,
        "legend.labelcolor": INK,
        "lines.linewidth": 2.0,
        "lines.solid_capstyle": "round",
        "svg.fonttype": "none",
        "svg.hashsalt": "jaxprune",
        "text.color": INK,
        "text.parse_math": False,
        "xtick.color": GRID,
        "xtick.labelcolor": MUTED,
        "ytick.color": GRID,
        "ytick.labelcolor": MUTED,
    }
)
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def is_number(value: Any) -> TypeGuard[float]:
    """Tell whether a recorded value is a finite number, as `None` and lacks are not."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    )


@style
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


@style
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
    for colour, variable in VARIABLES.items():
        text = text.replace(f": {colour}", f": var(--{variable})")
    return text.replace("'DejaVu Sans'", "var(--sans)").strip()


def blank(title: str, height: float, *, width: float = WIDTH) -> Figure:
    """Make a figure with its title at the left and no axes; sizes in inches."""
    figure = Figure(figsize=(width, height))
    figure.suptitle(
        title,
        x=0.078 / width,
        horizontalalignment="left",
        fontsize=12.5,
        fontweight="bold",
    )
    return figure


def figure(title: str, height: float) -> tuple[Figure, Axes]:
    """Make a figure with one pair of axes; the height in inches."""
    figure = blank(title, height)
    return figure, figure.subplots()


def legend(axes: Axes) -> None:
    """Put the legend in a row above the axes, where no data is."""
    if axes.get_legend_handles_labels()[1]:
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(-0.01, 1.0),
            ncols=4,
            borderaxespad=0.1,
            columnspacing=1.6,
        )


def is_positive(value: Any) -> TypeGuard[float]:
    """Tell whether a recorded value is a finite number above zero."""
    return is_number(value) and value > 0


def series(records: Sequence[Record], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Collect the steps and values of one number where it was recorded."""
    pairs = [(r["step"], r[key]) for r in records if is_number(r.get(key))]
    steps, values = np.array(pairs, float).reshape(-1, 2).T
    return steps, values


def thin(
    steps: np.ndarray, values: np.ndarray, most: int = 600
) -> tuple[np.ndarray, np.ndarray]:
    """Leave out points that no screen can show; first and last stay."""
    if len(steps) <= most:
        return steps, values
    kept = np.linspace(0, len(steps) - 1, most).round().astype(int)
    return steps[kept], values[kept]


def noisy(
    axes: Axes, steps: np.ndarray, values: np.ndarray, *, colour: str, label: str | None
) -> None:
    """Draw a noisy series faintly and its moving average clearly."""
    width = 2 * (len(values) // 60) + 1
    if width > 1:
        axes.plot(*thin(steps, values), color=colour, alpha=0.28, linewidth=0.9)
        padded = np.pad(values, width // 2, mode="reflect")
        values = np.convolve(padded, np.full(width, 1 / width), mode="valid")
    axes.plot(*thin(steps, values), color=colour, label=label)


def zoom(axes: Axes, series: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    """Fit the y axis to accuracies after the first tenth, a rise from chance."""
    steps, values = np.concatenate(series, axis=1)
    late = values[steps >= steps.min() + 0.1 * np.ptp(steps)]
    margin = max(0.08 * np.ptp(late), 0.002)
    axes.set_ylim(late.min() - margin, late.max() + margin)


def steps(
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
        ("dense", "prune", "prune", MUTED, "left"),
        ("prune", "finetune", "harden", RED, "right"),
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


def error_scale(axes: Axes, points: Sequence[Mapping[str, Any]]) -> None:
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


def percent_ticks(axis: Any, low: float, high: float) -> None:
    """Name the ticks of a logarithmic axis of fractions in percent."""
    decades = math.log10(high / low)
    subs = (1, 2, 5) if decades < 2.6 else (1,) if decades > 4 else (1, 3)
    axis.set_major_locator(LogLocator(10, subs))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda x, _: percent(x)))


def log_ticks(axes: Axes) -> None:
    """Make the y axis logarithmic, with powers written without TeX."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    subs = (1, 2, 5) if high < 100 * low else (1,)
    axes.yaxis.set_major_locator(LogLocator(10, subs))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: power(y)))


def power(value: float) -> str:
    """Show 0.2 as itself and 0.00002 as 2×10⁻⁵."""
    if not 0.1 <= value < 1e4:
        digits, exponent = f"{value:e}".split("e")
        raised = str(int(exponent)).translate(_SUPERSCRIPTS)
        front = "" if float(digits) == 1 else f"{float(digits):g}×"
        return f"{front}10{raised}"
    return f"{value:g}"


def layer_colours(names: Sequence[str]) -> dict[str, str]:
    """Give every layer its colour, from the first to the last."""
    last = max(len(names) - 1, 1)
    return {name: to_hex(DEPTH(i / last)) for i, name in enumerate(names)}


def shorten(name: str, most: int = 30) -> str:
    """Cut a long name in its middle, where names of layers differ least."""
    return name if len(name) <= most else f"{name[: most // 2]}…{name[-most // 2 :]}"


def group_names(names: Iterable[str]) -> list[str]:
    """Show groups of channels by their layers, or in full where layers have several.

    >>> group_names(["params/block1/conv1/kernel:3", "w:1"])
    ['block1/conv1', 'w']
    >>> group_names(["query/kernel:1", "query/kernel:2"])
    ['query/kernel:1', 'query/kernel:2']
    """
    names = list(names)
    short = [re.sub(r"^params/|(/kernel)?:\d+$", "", name) for name in names]
    pairs = zip(names, short, strict=True)
    return [s if short.count(s) == 1 else name for name, s in pairs]


def cost_name(name: str) -> str:
    """Show the name of a cost as prose has it: MACs, parameters, bytes."""
    return {"macs": "MACs"}.get(name, name)


def label_ends(
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
    for (x, y, name), place in zip(ends, spread(heights, gap), strict=True):
        axes.annotate(
            shorten(name),
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


def spread(heights: np.ndarray, gap: float) -> np.ndarray:
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
