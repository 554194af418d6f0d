"""Pictures of a whole network over the steps: learning, sparsity, budget."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from experiments.logging.formatting import cost_name, is_number, is_positive, percent
from experiments.report.plots import drawing, scales
from experiments.report.plots.series import (
    COST,
    LEARNING,
    LIMIT,
    MULTIPLIER,
    RATE,
    REGROWTH,
    Record,
    recorded_keys,
    series,
    thin,
)


@drawing.style
def learning_curves(records: Sequence[Record]) -> Figure:
    """Draw loss, accuracy and learning rate against the step, one above the other.

    Args:
      records: Lines with `loss`, `accuracy` (of the training batches) and, in some,
        `test_accuracy` or `learning_rate`.

    Returns:
      The figure; a part without data is left out.
    """
    has_loss = any(is_number(r.get("loss")) for r in records)
    has_accuracy = any(is_number(r.get(k)) for r in records for k in LEARNING[1:])
    has_rate = any(is_number(r.get(RATE)) for r in records)
    ratios = [1.0] * (has_loss + has_accuracy) + [0.55] * has_rate
    figure = drawing.blank(
        "Loss and accuracy over time",
        height=2.0 + 1.7 * has_accuracy + 0.95 * has_rate,
    )
    halves = figure.subplots(
        len(ratios),
        sharex=True,
        squeeze=False,
        gridspec_kw={"height_ratios": ratios},
    )[:, 0]
    if has_rate:
        steps, values = thin(*series(records, RATE))
        halves[-1].plot(steps, values, color=drawing.MUTED, linewidth=1.6)
        halves[-1].set_ylim(bottom=0)
        halves[-1].set_ylabel("learning rate")
    if has_loss:
        steps, values = series(records, "loss")
        _noisy(halves[0], steps, values, colour=drawing.BLUE, label=None)
        if values.min() > 0:
            scales.log_ticks(halves[0])
        halves[0].set_ylabel("training loss")
    if has_accuracy:
        _accuracies(halves[int(has_loss)], records)
    for axes in halves:
        scales.steps(axes, records, label=axes is halves[-1], name=axes is halves[0])
    return figure


def _accuracies(axes: Axes, records: Sequence[Record]) -> None:
    """Draw the accuracies on training batches and of evaluations."""
    scales.zoom(axes, [series(records, key) for key in LEARNING[1:]])
    steps, values = series(records, "accuracy")
    if len(steps):
        _noisy(axes, steps, values, colour=drawing.BLUE, label="training batches")
    steps, values = series(records, "test_accuracy")
    if len(steps):
        steps, values = thin(steps, values)
        axes.plot(
            steps,
            values,
            color=drawing.GREEN,
            label="evaluation",
            zorder=4,
            marker="o" if len(steps) <= 60 else None,
            markersize=4.5,
            markeredgecolor=drawing.PAPER,
            markeredgewidth=0.8,
        )
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.6g}%"))
    axes.set_ylabel("accuracy")
    drawing.legend(axes)


@drawing.style
def keep_ratio_over_time(
    records: Sequence[Record], *, target: float | None = None
) -> Figure:
    """Draw the keep ratio, and the one aimed at, against the step.

    Args:
      records: Lines with `keep_ratio` and perhaps `target_keep_ratio`.
      target: The keep ratio of the budget, drawn as a line across.

    Returns:
      The figure.
    """
    figure, axes = drawing.figure("Keep ratio over time", height=3.7)
    lowest = 1.0
    for key, label, colour, line in (
        ("target_keep_ratio", "target", drawing.ORANGE, (0, (4, 2.5))),
        ("keep_ratio", "kept", drawing.BLUE, "solid"),
    ):
        steps, values = series(records, key)
        drawn = values > 0
        steps, values = thin(steps[drawn], values[drawn])
        if len(steps):
            axes.plot(steps, values, color=colour, linestyle=line, label=label)
            lowest = min(lowest, values.min())
    if is_positive(target):
        axes.axhline(
            target,
            color=drawing.MUTED,
            linewidth=1.3,
            linestyle=(0, (1, 2)),
            zorder=1.5,
            label=f"target {percent(target)}",
        )
        lowest = min(lowest, float(target))
    axes.set_yscale("log")
    low = min(lowest * 0.8, 0.5)
    axes.set_ylim(low, 1.12)
    scales.percent_ticks(axes.yaxis, low, 1)
    axes.set_ylabel("weights kept")
    scales.steps(axes, records)
    drawing.legend(axes)
    return figure


@drawing.style
def budget_over_time(
    records: Sequence[Record],
    names: Sequence[str],
    *,
    reached: Mapping[str, float] | None = None,
) -> Figure:
    """Draw costs and their limits against the step, and the multipliers below them.

    Args:
      records: Lines with `budget/cost/<j>`, and `limit` and `multiplier` in its place.
      names: Of the costs, by j.
      reached: The costs of the final network by name, drawn as points.

    Returns:
      The figure; without multipliers it has one panel.
    """
    multipliers = bool(recorded_keys(records, MULTIPLIER))
    figure = drawing.blank("Budget over time", height=3.7 + 1.2 * multipliers)
    panels = figure.subplots(
        1 + multipliers,
        sharex=True,
        squeeze=False,
        gridspec_kw={"height_ratios": (2.4, 1.0)[: 1 + multipliers]},
    )[:, 0]
    top = panels[0]
    highest = 1.0
    for j, name in enumerate(names):
        colour = drawing.QUALITATIVE[j % len(drawing.QUALITATIVE)]
        label = cost_name(name)
        steps, values = thin(*series(records, f"{COST}{j}"))
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
        steps, values = thin(*series(records, f"{LIMIT}{j}"))
        if len(steps):
            # One limit stands out in a colour of its own; several go with their cost.
            own = drawing.ORANGE if len(names) == 1 else colour
            line = {"color": own, "linestyle": (0, (4, 2.5)), "linewidth": 1.6}
            top.plot(steps, values, label=f"limit {percent(values[-1])}", **line)
        steps, values = thin(*series(records, f"{MULTIPLIER}{j}"))
        if len(steps):
            panels[-1].plot(steps, values, color=colour, linewidth=1.7)
    top.set_ylim(0, 1.06 * highest)
    scales.percents(top.yaxis)
    top.set_ylabel("of the dense cost")
    drawing.legend(top)
    if multipliers:
        panels[-1].set_ylim(bottom=0)
        panels[-1].set_ylabel("multiplier")
    for axes in panels:
        scales.steps(axes, records, label=axes is panels[-1], name=axes is top)
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
        REGROWTH, ("pruned", "regrown"), (drawing.ORANGE, drawing.GREEN), strict=True
    ):
        steps, values = series(records, key)
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
    scales.steps(axes, records)
    drawing.legend(axes)
    return figure


def _noisy(
    axes: Axes, steps: np.ndarray, values: np.ndarray, *, colour: str, label: str | None
) -> None:
    """Draw a noisy series faintly and its moving average clearly."""
    width = 2 * (len(values) // 60) + 1
    if width > 1:
        axes.plot(*thin(steps, values), color=colour, alpha=0.28, linewidth=0.9)
        padded = np.pad(values, width // 2, mode="reflect")
        values = np.convolve(padded, np.full(width, 1 / width), mode="valid")
    axes.plot(*thin(steps, values), color=colour, label=label)
