"""How pictures look: colours, style, and figures with nothing in them yet."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

INK, MUTED, GRID, PAPER = "#1c2530", "#667281", "#e3e7ec", "#fefefe"
BLUE, ORANGE, GREEN, RED = "#3b78e7", "#e07a1f", "#23966a", "#d1495b"

# First layer to last. All of similar lightness, to be seen on light and dark ground.
DEPTH = LinearSegmentedColormap.from_list(
    "depth",
    ["#4a78e0", "#1d93b8", "#1f9c6d", "#8d9a1d", "#d9821b", "#d9484f", "#a94fc0"],
)

WIDTH = 6.5  # inches
WIDE = 10.5

# For methods side by side; of similar lightness, as above.
QUALITATIVE = (
    *("#3b78e7", "#e07a1f", "#23966a", "#d1495b", "#8a5fd0", "#1593a8"),
    *("#b0891a", "#c2529b", "#6f8f2a", "#9a6a4b", "#5c7fa8", "#4a9d9c"),
)
_MARKS = "osD^vPXph"
_DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 2, 1.5, 2)))

DASHED = (0, (4, 2.5))
EDGED: dict[str, Any] = {"markeredgecolor": PAPER, "markeredgewidth": 1.2}

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


def stacked(
    title: str, height: float, ratios: Sequence[float] = (1,), *, width: float = WIDTH
) -> tuple[Figure, list[Axes]]:
    """Make a figure with axes below each other, their heights in these ratios."""
    figure = blank(title, height, width=width)
    axes = figure.subplots(
        len(ratios), sharex=True, squeeze=False, height_ratios=ratios
    )
    return figure, list(axes[:, 0])


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


def name_lines(figure: Figure, lines: Sequence[Line2D], names: Sequence[str]) -> None:
    """Name lines beside the axes, from the top in the order of their ends."""
    named = zip(lines, names, strict=True)
    ordered = sorted(named, key=lambda pair: _end(pair[0]), reverse=True)
    figure.legend(
        [line for line, _ in ordered],
        [shorten(name) for _, name in ordered],
        loc="outside right center",
        fontsize=8.5,
        labelspacing=0.3,
        labelcolor="linecolor",
    )


def _end(line: Line2D) -> float:
    return float(np.nan_to_num(np.asarray(line.get_ydata(), float)[-1]))


def shorten(name: str, most: int = 30) -> str:
    """Cut a long name in its middle, where names of layers differ least."""
    return name if len(name) <= most else f"{name[: most // 2]}…{name[-most // 2 :]}"


def depth_colours(count: int) -> list[str]:
    """Give every layer its colour, from the first to the last."""
    return [to_hex(DEPTH(i / max(count - 1, 1))) for i in range(count)]


def look(number: int) -> dict[str, Any]:
    """Give a series colour, mark and dash that together no other has.

    Colours return after the twelfth series, with other marks, and the lines are then
    broken; so neither colours nor marks alone tell series apart.
    """
    colours = len(QUALITATIVE)
    return {
        "color": QUALITATIVE[number % colours],
        "marker": _MARKS[number % len(_MARKS)],
        "linestyle": _DASHES[number // colours % len(_DASHES)],
    }
