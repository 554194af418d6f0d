"""Pictures with a bar or a line for every layer, or for every group of channels."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from experiments.logging.formatting import group_names, percent
from experiments.report.plots import drawing, labels, scales
from experiments.report.plots.series import (
    KEPT,
    THRESHOLD,
    Record,
    recorded_keys,
    series,
    thin,
)

# More layers than this get a colour scale instead of a label each.
_MOST_LABELS = 40


@drawing.style
def layer_keep_ratios(layers: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw the fraction of the weights that every layer keeps, with the counts.

    Args:
      layers: By leaf name, in the order to show them from the top: `size` and `kept`,
        numbers of weights.

    Returns:
      The figure; it grows with the number of layers.
    """
    positive = [x["kept"] / x["size"] for x in layers.values() if x["kept"]]
    # A bar needs a length, on a logarithmic scale too: start below the smallest.
    low = (
        min(10 ** math.floor(math.log10(min(positive) * 0.7)), 0.1) if positive else 0.1
    )
    figure, axes = _bars(
        "Keep ratio per layer", layers, low, map(labels.shorten, layers)
    )
    axes.set_xscale("log")
    axes.set_xlim(low, 1)
    scales.percent_ticks(axes.xaxis, low, 1)
    axes.set_xlabel("weights kept")
    return figure


@drawing.style
def group_keep_ratios(groups: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw the fraction of the channels that every group keeps, with the counts.

    Args:
      groups: By name, in the order to show them from the top: `size` and `kept`,
        numbers of channels.

    Returns:
      The figure; it grows with the number of groups.
    """
    figure, axes = _bars("Keep ratios of groups", groups, 0.0, group_names(groups))
    axes.set_xlim(0, 1)
    scales.percents(axes.xaxis)
    axes.set_xlabel("channels kept")
    return figure


def _bars(
    title: str,
    rows: Mapping[str, Mapping[str, Any]],
    low: float,
    names: Iterable[str],
) -> tuple[Figure, Axes]:
    """Draw a bar of what is kept for every row, from `low`, with the counts beside."""
    count = len(rows)
    pitch, font = _sizes(count)
    figure, axes = drawing.figure(title, height=1.1 + pitch * count)
    ratios = [x["kept"] / x["size"] if x["size"] else 0.0 for x in rows.values()]
    places = np.arange(count)
    colours = list(drawing.layer_colours(list(rows)).values())
    axes.barh(places, [max(r - low, 0) for r in ratios], 0.66, left=low, color=colours)
    for place, (ratio, row) in enumerate(zip(ratios, rows.values(), strict=True)):
        note = f"{percent(ratio)} · {row['kept']:,} of {row['size']:,}"
        axes.annotate(
            note if row["kept"] else f"nothing left of {row['size']:,}",
            (max(ratio, low), place),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=font * 0.94,
            color=drawing.INK if row["kept"] else drawing.RED,
        )
    _name_rows(axes, list(names), font)
    return figure, axes


def _sizes(count: int) -> tuple[float, float]:
    """The height of so many rows in inches, each, and the size of their names."""
    # So many layers that the picture would not end are drawn smaller instead.
    pitch = min(0.27, 30 / count)
    return pitch, min(9.0, 60 * pitch)


def _name_rows(axes: Axes, names: Sequence[str], font: float) -> None:
    """Name the rows of a picture from the top, without ticks and lines between."""
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks(np.arange(len(names)), names, fontsize=font)
    axes.tick_params(axis="y", length=0, labelcolor=drawing.INK)
    axes.grid(visible=False, axis="y")


@drawing.style
def sensitivity(groups: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw how much each group of channels matters beside what it keeps.

    Args:
      groups: By name, in the order to show them from the top: `loss_rise` when half of
        the group is pruned alone, and its `keep_ratio`.

    Returns:
      The figure; it grows with the number of groups.
    """
    count = len(groups)
    pitch, font = _sizes(count)
    figure = drawing.blank(
        "Sensitivity and keep ratio", 1.1 + pitch * count, width=drawing.WIDE
    )
    places = np.arange(count)
    colours = list(drawing.layer_colours(list(groups)).values())
    panels = figure.subplots(1, 2, sharey=True)
    rise = "rise of the loss at half the channels"
    for axes, key, label, written in (
        (panels[0], "loss_rise", rise, "{:#.3g}".format),
        (panels[1], "keep_ratio", "channels kept by the run", percent),
    ):
        values = [group[key] for group in groups.values()]
        bars = axes.barh(places, values, 0.66, color=colours)
        axes.bar_label(
            bars,
            [written(value) for value in values],
            padding=4,
            fontsize=min(8.5, 56 * pitch),
            color=drawing.INK,
        )
        axes.margins(x=0.12)
        axes.set_xlabel(label)
        _name_rows(axes, group_names(groups), font)
    panels[1].set_xlim(0, 1)
    scales.percents(panels[1].xaxis)
    return figure


@drawing.style
def thresholds_over_time(records: Sequence[Record]) -> Figure:
    """Draw the threshold of every layer against the step.

    Args:
      records: Lines with `threshold/<leaf>`.

    Returns:
      The figure. Up to 40 layers each have their name beside the end of the line;
      more share a colour scale from the first layer to the last.
    """

    def scale(axes: Axes, lowest: float):
        if lowest > 0:
            scales.log_ticks(axes)
        axes.set_ylabel("threshold")

    found = recorded_keys(records, THRESHOLD)
    named = {key.removeprefix(THRESHOLD): key for key in found}
    return _lines("Thresholds over time", records, named, scale, unit="layer")


@drawing.style
def group_ratios_over_time(
    records: Sequence[Record], groups: Sequence[str] = ()
) -> Figure:
    """Draw the keep ratio of every group of channels against the step.

    Args:
      records: Lines with `keep_ratio/<group>`.
      groups: The groups in the order of their colours; others come after them.

    Returns:
      The figure, with names as in `thresholds_over_time`.
    """

    def scale(axes: Axes, lowest: float):
        del lowest
        axes.set_ylim(0, 1.04)
        scales.percents(axes.yaxis)
        axes.set_ylabel("channels kept")

    found = [key.removeprefix(KEPT) for key in recorded_keys(records, KEPT)]
    ordered = dict.fromkeys([*(name for name in groups if name in found), *found])
    keys = (KEPT + name for name in ordered)
    named = dict(zip(group_names(ordered), keys, strict=True))
    return _lines("Keep ratios of groups over time", records, named, scale, "group")


def _lines(
    title: str,
    records: Sequence[Record],
    named: Mapping[str, str],
    scale: Callable[[Axes, float], None],
    unit: str,
) -> Figure:
    """Draw a line for every layer or group, in colours from the first to the last.

    Args:
      title: Of the figure.
      records: Lines of the metrics.
      named: The key in the records by the name to show.
      scale: Sets up the y axis, given the lowest value.
      unit: What is numbered where there are too many to name.
    """
    colours = drawing.layer_colours(list(named))
    labelled = len(named) <= _MOST_LABELS
    height = max(3.9, 1.2 + 0.19 * len(named)) if labelled else 4.6
    figure, axes = drawing.figure(title, height=height)
    ends = []
    lowest = math.inf
    for name, key in named.items():
        steps, values = thin(*series(records, key))
        axes.plot(steps, values, color=colours[name], linewidth=1.7)
        ends.append((steps[-1], values[-1], name))
        lowest = min(lowest, values.min())
    scale(axes, lowest)
    scales.steps(axes, records)
    if labelled:
        labels.label_ends(axes, ends, colours)
    else:
        bar = figure.colorbar(
            ScalarMappable(Normalize(1, len(named)), drawing.DEPTH),
            ax=axes,
            pad=0.02,
            aspect=30,
        )
        bar.set_label(unit, color=drawing.MUTED)
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    return figure
