"""Pictures with a bar for every layer, or for every group of channels."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.logging.formatting import group_names, percent
from experiments.report.plots import drawing, scales

Rows = Mapping[str, Mapping[str, Any]]
"""What is known of layers or groups, by name, in the order to show from the top."""


def layer_keep_ratios(layers: Rows) -> Figure:
    """Draw the fraction of the weights that every layer keeps, with the counts."""
    positive = [row["kept"] / row["size"] for row in layers.values() if row["kept"]]
    # A bar needs a length, on a logarithmic scale too: start below the smallest.
    smallest = min(positive, default=1.0)
    low = min(10.0 ** math.floor(math.log10(0.7 * smallest)), 0.1)
    figure, axes = _kept(
        "Keep ratio per layer", layers, [*map(drawing.shorten, layers)], low
    )
    axes.set_xscale("log")
    axes.set_xlim(low, 1)
    scales.percent_ticks(axes.xaxis, low, 1)
    axes.set_xlabel("weights kept")
    return figure


def group_keep_ratios(groups: Rows) -> Figure:
    """Draw the fraction of the channels that every group keeps, with the counts."""
    figure, axes = _kept("Keep ratios of groups", groups, group_names(groups))
    axes.set_xlim(0, 1)
    scales.percents(axes.xaxis)
    axes.set_xlabel("channels kept")
    return figure


def _kept(title: str, rows: Rows, names: Sequence[str], low: float = 0.0):
    """Draw what is kept of every row; one of which nothing is left is red."""
    figure, (axes,) = drawing.stacked(title, _height(len(rows)))
    ratios = [row["kept"] / max(row["size"], 1) for row in rows.values()]
    notes = [
        f"{percent(ratio)} · {row['kept']:,} of {row['size']:,}"
        if row["kept"]
        else f"nothing left of {row['size']:,}"
        for ratio, row in zip(ratios, rows.values(), strict=True)
    ]
    written = _bars(axes, names, [max(ratio, low) for ratio in ratios], notes, low)
    for text, row in zip(written, rows.values(), strict=True):
        text.set_color(drawing.INK if row["kept"] else drawing.RED)
    return figure, axes


@drawing.style
def sensitivity(groups: Rows) -> Figure:
    """Draw how much each group of channels matters beside what it keeps.

    Args:
      groups: With `loss_rise`, when half of the group is pruned alone, and the
        `keep_ratio` of the group.
    """
    figure = drawing.blank(
        "Sensitivity and keep ratio", _height(len(groups)), width=drawing.WIDE
    )
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, key, label, written in (
        (left, "loss_rise", "rise of the loss at half the channels", "{:#.3g}".format),
        (right, "keep_ratio", "channels kept by the run", percent),
    ):
        values = [group[key] for group in groups.values()]
        _bars(axes, group_names(groups), values, [written(value) for value in values])
        axes.margins(x=0.12)
        axes.set_xlabel(label)
    right.set_xlim(0, 1)
    scales.percents(right.xaxis)
    return figure


def _pitch(count: int) -> float:
    """Inches for each row; so many that the picture would not end are drawn smaller."""
    return min(0.27, 30 / count)


def _height(count: int) -> float:
    return 1.1 + count * _pitch(count)


def _bars(
    axes: Axes,
    names: Sequence[str],
    values: Sequence[float],
    notes: Sequence[str],
    low: float = 0.0,
):
    """Draw a bar for each row, from `low`; returns the notes behind the bars."""
    places, font = np.arange(len(names)), min(9.0, 60 * _pitch(len(names)))
    colours = drawing.depth_colours(len(names))
    bars = axes.barh(places, np.subtract(values, low), 0.66, left=low, color=colours)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks(places, names, fontsize=font)
    axes.tick_params(axis="y", length=0, labelcolor=drawing.INK)
    axes.grid(visible=False, axis="y")
    return axes.bar_label(
        bars, notes, padding=4, fontsize=0.94 * font, color=drawing.INK
    )
