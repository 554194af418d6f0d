"""Pictures of accuracy: along the trail of one run, and of methods side by side."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from experiments.logging.formatting import is_number, is_positive
from experiments.report.plots import drawing, scales


@drawing.style
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
    figure, axes = drawing.figure("Accuracy against compression", height=3.7)
    for key, label, colour, mark in (
        ("accuracy_soft", "soft masks", drawing.BLUE, "o"),
        ("accuracy_hard", "hard masks", drawing.ORANGE, "s"),
    ):
        series = sorted(
            (p["compression"], p[key])
            for p in points
            if is_positive(p.get("compression")) and is_number(p.get(key))
        )
        if series:
            axes.plot(
                *np.transpose(series),
                marker=mark,
                color=colour,
                label=label,
                markersize=6,
                markeredgecolor=drawing.PAPER,
                markeredgewidth=1.2,
            )
    if final and is_point(final):
        axes.plot(
            final["compression"],
            final["accuracy"],
            "*",
            color=drawing.GREEN,
            label="final",
            markersize=17,
            markeredgecolor=drawing.PAPER,
            markeredgewidth=1.2,
            zorder=5,
        )
    if is_number(dense_accuracy):
        _dense_line(axes, dense_accuracy)
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
    drawing.legend(axes)
    return figure


@drawing.style
def accuracy_by_size(panels: Mapping[str, Mapping[str, Any]], *, label: str) -> Figure:
    """Draw accuracy against size, a picture for each network and a line a method.

    The axis is logarithmic in the errors made, so that 99.0 and 99.5 % are as far apart
    as 90 and 95 %.

    Args:
      panels: By network, its `sizes` in order; `dense`, its accuracy if nothing is
        pruned, or None; and `lines`, by method: `points`, mean and spread of the
        accuracy by size (a spread of `None` has no bar), and whether they are
        `recorded` elsewhere, drawn in grey.
      label: of the axis.

    Returns:
      The figure. Sizes are evenly spaced.
    """
    figure = drawing.blank("Accuracy against size", height=5.4, width=drawing.WIDE)
    every = figure.subplots(1, len(panels), squeeze=False)[0]
    names = dict.fromkeys(name for panel in panels.values() for name in panel["lines"])
    drawn = {}
    for axes, (network, panel) in zip(every, panels.items(), strict=True):
        sizes = panel["sizes"]
        for number, name in enumerate(names):
            line = panel["lines"].get(name)
            if line and line["points"]:
                drawn[name] = _size_line(axes, line, sizes, number, len(names))
        if panel["dense"] is not None:
            _dense_line(axes, panel["dense"])
            drawn["dense"] = axes.lines[-1]
        axes.set_title(network, loc="left", fontsize=10.5, color=drawing.MUTED)
        axes.set_xticks(range(len(sizes)), sizes)
        axes.set_xlabel("zeros, or the limit on a cost")
        points = [
            p for line in panel["lines"].values() for p in line["points"].values()
        ]
        dense = [] if panel["dense"] is None else [(panel["dense"], None)]
        scales.error_scale(axes, [*points, *dense])
        axes.margins(x=0.08)
    every[0].set_ylabel(label)
    figure.legend(drawn.values(), drawn, loc="outside right center", fontsize=8.5)
    return figure


def _size_line(axes: Axes, line, sizes: Sequence[str], number: int, of: int) -> Any:
    """Draw one method, its bars beside those of the others; returns what was drawn."""
    xs = [sizes.index(s) + 0.012 * (number - (of - 1) / 2) for s in line["points"]]
    means, spreads = zip(*line["points"].values(), strict=True)
    return axes.errorbar(
        xs,
        means,
        yerr=[math.nan if s is None else s for s in spreads],
        color=_line_colour(line, number),
        linestyle=(0, (3, 2)) if line["recorded"] else "-",
        linewidth=1.6,
        elinewidth=1.1,
        capsize=2,
        marker=drawing.MARKS[number % len(drawing.MARKS)],
        markersize=5.5,
        markeredgecolor=drawing.PAPER,
        markeredgewidth=0.8,
        zorder=2 if line["recorded"] else 3,
    )


def _line_colour(line: Mapping[str, Any], number: int) -> str:
    if line["recorded"]:
        return drawing.MUTED
    return drawing.QUALITATIVE[number % len(drawing.QUALITATIVE)]


def is_point(point: Mapping[str, Any]) -> bool:
    """Tell whether a network has both numbers that place it in the picture."""
    return is_positive(point.get("compression")) and any(
        is_number(point.get(k)) for k in ("accuracy", "accuracy_soft", "accuracy_hard")
    )


def _dense_line(axes: Axes, accuracy: float) -> None:
    """Draw the accuracy of the network before pruning, across the picture."""
    axes.axhline(
        accuracy,
        color=drawing.MUTED,
        linestyle=(0, (4, 3)),
        linewidth=1.3,
        label=f"dense {100 * accuracy:.2f}%",
    )
