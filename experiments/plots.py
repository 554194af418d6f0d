"""Pictures of a run: pure functions from recorded numbers to matplotlib figures.

Every function takes plain data, as `summary.json` and `metrics.jsonl` hold it, and
returns a `Figure` without touching pyplot's global state. `figures` draws those that
the data of a run allows; `experiments.drawing` saves them. Equal data gives
equal bytes.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from experiments import drawing
from experiments.drawing import Record, is_number, is_positive
from experiments.metrics import percent

_THRESHOLD = "threshold/"
_KEPT = "keep_ratio/"
_COST, _LIMIT, _PRICE = "budget/cost/", "budget/limit/", "budget/price/"
_LEARNING = ("loss", "accuracy", "test_accuracy")
_REGROWTH = ("newly_pruned", "regrown")


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
    prunes_channels = bool({*budget} - {"weights"})
    # The final network alone is a number, not a picture; of channels there is one
    # more point, just before fine-tuning, which makes no curve either.
    if not prunes_channels and (
        any(map(_is_point, points)) or (_is_point(final) and is_number(dense))
    ):
        drawn["accuracy"] = accuracy_against_compression(
            points, final=final, dense_accuracy=dense
        )
    if any(is_number(r.get(k)) for r in records for k in _LEARNING):
        drawn["learning"] = learning_curves(records)
    if prunes_channels:
        return drawn | _channel_figures(records, layers, budget, summary.get("costs"))
    kept = [r["keep_ratio"] for r in records if is_positive(r.get("keep_ratio"))]
    if min(kept, default=1.0) < 1.0:  # a dense run keeps all of it all the time
        asked = budget.get("weights")
        drawn["keep_ratio"] = keep_ratio_over_time(records, asked=asked)
    if layers:
        drawn["layers"] = layer_keep_ratios(layers)
    if _keys(records, _THRESHOLD):
        drawn["thresholds"] = thresholds_over_time(records)
    if any(is_positive(r.get(k)) for r in records for k in _REGROWTH):
        drawn["regrowth"] = regrowth_over_time(records)
    return drawn


def _channel_figures(
    records: Sequence[Record],
    groups: Mapping[str, Mapping[str, Any]],
    budget: Mapping[str, float],
    costs: Mapping[str, float] | None,
) -> dict[str, Figure]:
    """Draw what a run that prunes channels allows; see `figures`."""
    drawn = {}
    if _keys(records, _COST):
        drawn["budget"] = budget_over_time(records, list(budget), reached=costs)
    if _keys(records, _KEPT):
        drawn["group_ratios"] = group_ratios_over_time(records, list(groups))
    if groups:
        drawn["groups"] = group_keep_ratios(groups)
    return drawn


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
    if final and _is_point(final):
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
        axes.axhline(
            dense_accuracy,
            color=drawing.MUTED,
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
    drawing.legend(axes)
    return figure


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
        "Keep ratio per layer", layers, low, map(drawing.shorten, layers)
    )
    axes.set_xscale("log")
    axes.set_xlim(low, 1)
    drawing.percent_ticks(axes.xaxis, low, 1)
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
    figure, axes = _bars(
        "Keep ratios of groups", groups, 0.0, drawing.group_names(groups)
    )
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: percent(x)))
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
    # So many layers that the picture would not end are drawn smaller instead.
    pitch = min(0.27, 30 / count)
    font = min(9.0, 60 * pitch)
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
    axes.set_ylim(count - 0.4, -0.6)
    axes.set_yticks(places, list(names), fontsize=font)
    axes.tick_params(axis="y", length=0, labelcolor=drawing.INK)
    axes.grid(visible=False, axis="y")
    return figure, axes


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
            drawing.log_ticks(axes)
        axes.set_ylabel("threshold")

    named = {key.removeprefix(_THRESHOLD): key for key in _keys(records, _THRESHOLD)}
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
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: percent(y)))
        axes.set_ylabel("channels kept")

    found = [key.removeprefix(_KEPT) for key in _keys(records, _KEPT)]
    ordered = dict.fromkeys([*(name for name in groups if name in found), *found])
    keys = (_KEPT + name for name in ordered)
    named = dict(zip(drawing.group_names(ordered), keys, strict=True))
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
      scale: Sets up the y axis, told the lowest value.
      unit: What is numbered where there are too many to name.
    """
    colours = drawing.layer_colours(list(named))
    labelled = len(named) <= drawing.MOST_LABELS
    height = max(3.9, 1.2 + 0.19 * len(named)) if labelled else 4.6
    figure, axes = drawing.figure(title, height=height)
    ends = []
    lowest = math.inf
    for name, key in named.items():
        steps, values = drawing.thin(*drawing.series(records, key))
        axes.plot(steps, values, color=colours[name], linewidth=1.7)
        ends.append((steps[-1], values[-1], name))
        lowest = min(lowest, values.min())
    scale(axes, lowest)
    drawing.steps(axes, records)
    if labelled:
        drawing.label_ends(axes, ends, colours)
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


@drawing.style
def budget_over_time(
    records: Sequence[Record],
    names: Sequence[str],
    *,
    reached: Mapping[str, float] | None = None,
) -> Figure:
    """Draw costs and their limits against the step, and the prices below them.

    Args:
      records: Lines with `budget/cost/<j>`, and `limit` and `price` in its place.
      names: Of the costs, by j.
      reached: The costs of the final network by name, drawn as points.

    Returns:
      The figure; without prices it has one panel.
    """
    prices = bool(_keys(records, _PRICE))
    figure = drawing.blank("Budget over time", height=3.7 + 1.2 * prices)
    panels = figure.subplots(
        1 + prices,
        sharex=True,
        squeeze=False,
        gridspec_kw={"height_ratios": (2.4, 1.0)[: 1 + prices]},
    )[:, 0]
    top = panels[0]
    highest = 1.0
    for j, name in enumerate(names):
        colour = drawing.QUALITATIVE[j % len(drawing.QUALITATIVE)]
        label = drawing.cost_name(name)
        steps, values = drawing.thin(*drawing.series(records, f"{_COST}{j}"))
        if not len(steps):
            continue
        top.plot(steps, values, color=colour, label=label)
        highest = max(highest, values.max())
        final = (reached or {}).get(name)
        if is_number(final):
            top.plot(
                steps[-1],
                final,
                "o",
                color=colour,
                markersize=7,
                markeredgecolor=drawing.PAPER,
                markeredgewidth=1.2,
                zorder=5,
                clip_on=False,
                label=f"rounded {100 * final:.2f}%",
            )
        steps, values = drawing.thin(*drawing.series(records, f"{_LIMIT}{j}"))
        if len(steps):
            # One limit stands out in a colour of its own; several go with their cost.
            own = drawing.ORANGE if len(names) == 1 else colour
            line = {"color": own, "linestyle": (0, (4, 2.5)), "linewidth": 1.6}
            top.plot(steps, values, label=f"limit {percent(values[-1])}", **line)
        steps, values = drawing.thin(*drawing.series(records, f"{_PRICE}{j}"))
        if len(steps):
            panels[-1].plot(steps, values, color=colour, linewidth=1.7)
    top.set_ylim(0, 1.06 * highest)
    top.yaxis.set_major_formatter(FuncFormatter(lambda y, _: percent(y)))
    top.set_ylabel("of the dense cost")
    drawing.legend(top)
    if prices:
        panels[-1].set_ylim(bottom=0)
        panels[-1].set_ylabel("price")
    for axes in panels:
        drawing.steps(axes, records, label=axes is panels[-1], name=axes is top)
    return figure


@drawing.style
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
    figure, axes = drawing.figure("Keep ratio over time", height=3.7)
    lowest = 1.0
    for key, label, colour, line in (
        ("target_keep_ratio", "target", drawing.ORANGE, (0, (4, 2.5))),
        ("keep_ratio", "kept", drawing.BLUE, "solid"),
    ):
        steps, values = drawing.series(records, key)
        shown = values > 0
        steps, values = drawing.thin(steps[shown], values[shown])
        if len(steps):
            axes.plot(steps, values, color=colour, linestyle=line, label=label)
            lowest = min(lowest, values.min())
    if is_positive(asked):
        axes.axhline(
            asked,
            color=drawing.MUTED,
            linewidth=1.3,
            linestyle=(0, (1, 2)),
            zorder=1.5,
            label=f"asked {percent(asked)}",
        )
        lowest = min(lowest, float(asked))
    axes.set_yscale("log")
    low = min(lowest * 0.8, 0.5)
    axes.set_ylim(low, 1.12)
    drawing.percent_ticks(axes.yaxis, low, 1)
    axes.set_ylabel("weights kept")
    drawing.steps(axes, records)
    drawing.legend(axes)
    return figure


@drawing.style
def regrowth_over_time(records: Sequence[Record]) -> Figure:
    """Draw how many weights a step prunes and how many it brings back.

    Args:
      records: Lines with `newly_pruned` and `regrown`, counts of single steps.

    Returns:
      The figure. Its scale is logarithmic above one weight, so that 0 has a place.
    """
    figure, axes = drawing.figure(
        "Weights that a step prunes and brings back", height=3.7
    )
    highest = 1.0
    for key, label, colour in zip(
        _REGROWTH, ("pruned", "regrown"), (drawing.ORANGE, drawing.GREEN), strict=True
    ):
        steps, values = drawing.series(records, key)
        if len(steps):
            drawing.noisy(axes, steps, values, colour=colour, label=label)
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
    drawing.steps(axes, records)
    drawing.legend(axes)
    return figure


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
    pitch = min(0.27, 30 / count)
    figure = drawing.blank(
        "Sensitivity and keep ratio", 1.1 + pitch * count, width=drawing.WIDE
    )
    places = np.arange(count)
    colours = list(drawing.layer_colours(list(groups)).values())
    panels = figure.subplots(1, 2, sharey=True)
    rise = "rise of the test loss at half the channels"
    for axes, key, label, shown in (
        (panels[0], "loss_rise", rise, "{:#.3g}".format),
        (panels[1], "keep_ratio", "channels kept by the run", percent),
    ):
        values = [group[key] for group in groups.values()]
        bars = axes.barh(places, values, 0.66, color=colours)
        axes.bar_label(
            bars,
            [shown(value) for value in values],
            padding=4,
            fontsize=min(8.5, 56 * pitch),
            color=drawing.INK,
        )
        axes.margins(x=0.12)
        axes.set_xlabel(label)
        axes.tick_params(axis="y", length=0, labelcolor=drawing.INK)
        axes.grid(visible=False, axis="y")
    panels[0].set_ylim(count - 0.4, -0.6)
    panels[0].set_yticks(
        places,
        drawing.group_names(groups),
        fontsize=min(9.0, 60 * pitch),
    )
    panels[1].set_xlim(0, 1)
    panels[1].xaxis.set_major_formatter(FuncFormatter(lambda x, _: percent(x)))
    return figure


@drawing.style
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
    figure = drawing.blank(
        "Loss and accuracy over time", height=2.0 + 1.7 * has_accuracy
    )
    halves = figure.subplots(has_loss + has_accuracy, sharex=True, squeeze=False)[:, 0]
    if has_loss:
        steps, values = drawing.series(records, "loss")
        drawing.noisy(halves[0], steps, values, colour=drawing.BLUE, label=None)
        if values.min() > 0:
            drawing.log_ticks(halves[0])
        halves[0].set_ylabel("training loss")
    if has_accuracy:
        axes = halves[-1]
        drawing.zoom(axes, [drawing.series(records, key) for key in _LEARNING[1:]])
        steps, values = drawing.series(records, "accuracy")
        if len(steps):
            drawing.noisy(
                axes, steps, values, colour=drawing.BLUE, label="training batches"
            )
        steps, values = drawing.series(records, "test_accuracy")
        if len(steps):
            steps, values = drawing.thin(steps, values)
            axes.plot(
                steps,
                values,
                color=drawing.GREEN,
                label="test set",
                zorder=4,
                marker="o" if len(steps) <= 60 else None,
                markersize=4.5,
                markeredgecolor=drawing.PAPER,
                markeredgewidth=0.8,
            )
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.6g}%"))
        axes.set_ylabel("accuracy")
        drawing.legend(axes)
    for axes in halves:
        drawing.steps(axes, records, label=axes is halves[-1], name=axes is halves[0])
    return figure


@drawing.style
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
    figure = drawing.blank("Accuracy against sparsity", height=5.4, width=drawing.WIDE)
    axes = figure.subplots()
    points = [point for line in methods.values() for point in line]
    drawing.error_scale(axes, [*points, *([dense] if dense else [])])
    sparsities = sorted({point["sparsity"] for point in points})
    span = (1 - sparsities[0]) / (1 - sparsities[-1]) if sparsities else 1.0
    axes.set_xscale("log")
    if sparsities:
        room = max(span, 2.0) ** (0.04 + 0.005 * len(methods))
        axes.set_xlim(1 / (1 - sparsities[0]) / room, room / (1 - sparsities[-1]))
    ends, colours = [], {}
    for number, (name, line) in enumerate(methods.items()):
        colour = colours[name] = drawing.QUALITATIVE[number % len(drawing.QUALITATIVE)]
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
            marker=drawing.MARKS[number % len(drawing.MARKS)],
            markersize=7,
            markeredgecolor=drawing.PAPER,
            markeredgewidth=1.0,
            zorder=3,
        )
        for x, point in zip(xs, line, strict=True):
            values = point["accuracies"]
            axes.plot([x] * len(values), values, ".", color=colour, alpha=0.4, ms=4.5)
        ends.append((xs[-1], means[-1], name))
    if dense:
        low, high = (dense["mean"] + sign * (dense["spread"] or 0) for sign in (-1, 1))
        axes.axhspan(low, high, color=drawing.MUTED, alpha=0.13, linewidth=0)
        axes.axhline(
            dense["mean"],
            color=drawing.MUTED,
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
    drawing.legend(axes)
    drawing.label_ends(axes, ends, colours)
    return figure


@drawing.style
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
    figure = drawing.blank(
        "Every threshold schedule is an L1 coefficient", 8.6, width=drawing.WIDE
    )
    heights = (0.7, 1.5, 2.4)
    top, middle, bottom = figure.subplots(
        3, sharex=True, gridspec_kw={"height_ratios": heights}
    )
    epochs = np.arange(len(learning_rate) + 1)
    top.stairs(learning_rate, epochs, color=drawing.MUTED, linewidth=1.6)
    top.set_ylabel("learning rate")
    low, high = 1 / 12, 12
    colours, ends = {}, []
    for number, (name, (thresholds, values)) in enumerate(curves.items()):
        colours[name] = drawing.QUALITATIVE[number % len(drawing.QUALITATIVE)]
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
    drawing.label_ends(bottom, ends, colours, height=7.4 * heights[-1] / sum(heights))
    return figure


def _is_point(point: Mapping[str, Any]) -> bool:
    return is_positive(point.get("compression")) and any(
        is_number(point.get(k)) for k in ("accuracy", "accuracy_soft", "accuracy_hard")
    )


def _keys(records: Sequence[Record], prefix: str) -> list[str]:
    """List the keys of a prefix that have a value somewhere, as they come."""
    return list(
        dict.fromkeys(
            key
            for record in records
            for key, value in record.items()
            if key.startswith(prefix) and is_number(value)
        )
    )
