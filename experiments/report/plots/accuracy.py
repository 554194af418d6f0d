"""Pictures of accuracy, or bits per byte: of one run, and of methods side by side."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from experiments.logging.formatting import is_number, is_positive
from experiments.logging.measure import ACCURACY, Measure
from experiments.report.plots import drawing, scales


def against_compression(
    points: Sequence[Mapping[str, Any]],
    final: Mapping[str, Any],
    dense: float | None,
    measure: Measure,
) -> Figure:
    """Draw a measure against compression, each doubling one step to the right.

    Args:
      points: Points of the trail, with `compression`, `accuracy_soft` (with
        the masks as trained) and `accuracy_hard` (with masks of zeros and ones),
        either of which may lack.
      final: The finished network, with `compression` and `accuracy`; may be empty.
      dense: The measure of the network before pruning.
      measure: Accuracy, or what stands in the names above in its place.
    """
    key, name = measure.key, measure.name
    title = f"{name.capitalize()} against compression"
    figure, (axes,) = drawing.stacked(title, height=3.7)
    soft = {"color": drawing.BLUE, "marker": "o", "markersize": 6}
    hard = {"color": drawing.ORANGE, "marker": "s", "markersize": 6}
    star = {"color": drawing.GREEN, "marker": "*", "markersize": 17, "zorder": 5}
    for networks, value, label, look in (
        (points, f"{key}_soft", "soft masks", soft),
        (points, f"{key}_hard", "hard masks", hard),
        ([final], key, "final", {**star, "linestyle": "none"}),
    ):
        series = sorted(
            (network["compression"], network[value])
            for network in networks
            if is_positive(network.get("compression")) and is_number(network.get(value))
        )
        if series:
            axes.plot(*np.transpose(series), label=label, **look, **drawing.EDGED)
    if is_number(dense):
        _dense_line(axes, dense, measure)
    axes.set_xscale("log", base=2)
    axes.margins(x=0.06, y=0.12)
    low, high = axes.get_xlim()
    if high / low < 4:  # room for two ticks at least
        middle = math.sqrt(low * high)
        axes.set_xlim(middle / 2, middle * 2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}×"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("compression (all weights / kept weights)")
    if measure is ACCURACY:
        scales.percents(axes.yaxis)
    axes.set_ylabel(name)
    drawing.legend(axes)
    return figure


@drawing.style
def by_size(
    panels: Mapping[str, Mapping[str, Any]], measure: Measure, *, label: str
) -> Figure:
    """Draw a measure against size, a picture for each network and a line a method.

    The axis of accuracies is logarithmic in the errors made, so that 99.0 and 99.5 %
    are as far apart as 90 and 95 %. Sizes are evenly spaced.

    Args:
      panels: By network, its `sizes` in order; `dense`, its accuracy if nothing is
        pruned, or None; and `lines`, by method: `points`, mean and spread of the
        accuracy by size (a spread of `None` has no bar), and whether they are
        `recorded` elsewhere, drawn in grey.
      measure: what is drawn.
      label: of the axis.
    """
    title = f"{measure.name.capitalize()} against size"
    figure = drawing.blank(title, height=5.4, width=drawing.WIDE)
    every = figure.subplots(1, len(panels), squeeze=False)[0]
    names = list(dict.fromkeys(n for panel in panels.values() for n in panel["lines"]))
    drawn = {}
    for axes, (network, panel) in zip(every, panels.items(), strict=True):
        sizes = panel["sizes"]
        points = []
        for name, line in panel["lines"].items():
            if line["points"]:
                drawn[name] = _size_line(
                    axes, line, sizes, names.index(name), len(names)
                )
                points += line["points"].values()
        if panel["dense"] is not None:
            drawn["dense"] = _dense_line(axes, panel["dense"], measure)
            points.append((panel["dense"], None))
        axes.set_title(network, loc="left", fontsize=10.5, color=drawing.MUTED)
        axes.set_xticks(range(len(sizes)), sizes)
        axes.set_xlabel("zeros, or the limit on a cost")
        if measure is ACCURACY:
            scales.error_scale(axes, points)
        axes.margins(x=0.08)
    every[0].set_ylabel(label)
    figure.legend(
        drawn.values(),
        drawn,
        loc="outside right center",
        fontsize=8.5,
        handlelength=3,  # for a broken line to be seen as one
    )
    return figure


def _size_line(axes: Axes, line, sizes: Sequence[str], number: int, of: int) -> Any:
    """Draw one method, its bars beside those of the others."""
    xs = [sizes.index(s) + 0.012 * (number - (of - 1) / 2) for s in line["points"]]
    means, spreads = zip(*line["points"].values(), strict=True)
    look = {**drawing.look(number), "zorder": 3}
    if line["recorded"]:
        look |= {"color": drawing.MUTED, "linestyle": (0, (3, 2)), "zorder": 2}
    return axes.errorbar(
        xs,
        means,
        yerr=[math.nan if s is None else s for s in spreads],
        linewidth=1.6,
        elinewidth=1.1,
        capsize=2,
        markersize=5.5,
        **{**drawing.EDGED, "markeredgewidth": 0.8},
        **look,
    )


def _dense_line(axes: Axes, value: float, measure: Measure) -> Any:
    """Draw the measure of the network before pruning, across the picture."""
    return axes.axhline(
        value,
        color=drawing.MUTED,
        linestyle=(0, (4, 3)),
        linewidth=1.3,
        label=f"dense {measure.show(value)}",
    )
