"""Pictures of recorded numbers over the steps of a run: lines in panels."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from experiments.logging.formatting import (
    cost_name,
    group_names,
    is_number,
    is_positive,
    percent,
)
from experiments.logging.measure import BITS_PER_BYTE, MEASURES
from experiments.report.plots import drawing, scales

Record = Mapping[str, Any]

# More layers than this get a colour scale instead of a label each.
_MOST_LABELS = 40


class Line(NamedTuple):
    """One number of the records."""

    key: str  # Its name in the records
    colour: str  # Of the line
    label: str | None = None  # In the legend
    noisy: bool = False  # Whether it is drawn faintly, and its moving average clearly
    # If given, a point at the last step, such as what was rounded to.
    end: float | None = None
    # Further properties of the line, as matplotlib names them.
    look: Mapping[str, Any] = {}


class Panel(NamedTuple):
    """Lines over one axis of steps."""

    name: str  # Of the y axis
    lines: Sequence[Line]  # Those without a recorded number are left out
    # Sets up the y axis, given the steps and the values of all lines.
    scale: Callable[[Axes, np.ndarray, np.ndarray], Any]
    height: float = 1.0  # Relative to the other panels


def over_time(
    title: str, records: Sequence[Record], panels: Sequence[Panel], height: float
) -> Figure:
    """Draw panels of lines over the steps, and mark where phases of the run end.

    Args:
      title: Of the figure.
      records: The lines of `metrics.jsonl`.
      panels: From the top; those of which nothing was recorded are left out.
      height: In inches, if no panel is left out.
    """
    found = {
        line.key: series(records, line.key) for panel in panels for line in panel.lines
    }
    drawn = [p for p in panels if any(len(found[line.key][0]) for line in p.lines)]
    missing = sum(panel.height for panel in panels if panel not in drawn)
    figure, every = drawing.stacked(
        title, height - 1.7 * missing, [panel.height for panel in drawn]
    )
    for axes, panel in zip(every, drawn, strict=True):
        lines = [line for line in panel.lines if len(found[line.key][0])]
        for line in lines:
            _draw(axes, line, *found[line.key])
        panel.scale(axes, *np.concatenate([found[line.key] for line in lines], axis=1))
        axes.set_ylabel(panel.name)
        _mark_phases(axes, records, name=axes is every[0])
        drawing.legend(axes)
    every[-1].set_xlabel("step")
    return figure


def series(records: Sequence[Record], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Collect the steps and values of one number where it was recorded."""
    pairs = [(r["step"], r[key]) for r in records if is_number(r.get(key))]
    steps, values = np.array(pairs, float).reshape(-1, 2).T
    return steps, values


def recorded(records: Sequence[Record], prefix: str) -> list[str]:
    """List what comes after a prefix in names of recorded numbers, as they come."""
    found = (
        key.removeprefix(prefix)
        for record in records
        for key, value in record.items()
        if key.startswith(prefix) and is_number(value)
    )
    return list(dict.fromkeys(found))


def _draw(axes: Axes, line: Line, steps: np.ndarray, values: np.ndarray) -> None:
    look = {"color": line.colour, **line.look}
    width = 2 * (len(values) // 60) + 1
    if line.noisy and width > 1:
        axes.plot(*_thin(steps, values), **look, alpha=0.28, linewidth=0.9)
        padded = np.pad(values, width // 2, mode="reflect")
        values = np.convolve(padded, np.full(width, 1 / width), mode="valid")
    axes.plot(*_thin(steps, values), **look, label=line.label)
    if line.end is not None:
        axes.plot(
            steps[-1],
            line.end,
            "o",
            color=line.colour,
            markersize=7,
            zorder=5,
            clip_on=False,
            label=f"rounded {100 * line.end:.2f}%",
            **drawing.EDGED,
        )


def _thin(steps: np.ndarray, values: np.ndarray, most: int = 600):
    """Leave out points that no screen can show; first and last stay."""
    if len(steps) <= most:
        return steps, values
    kept = np.linspace(0, len(steps) - 1, most).round().astype(int)
    return steps[kept], values[kept]


def _mark_phases(axes: Axes, records: Sequence[Record], *, name: bool) -> None:
    """Set up the axis of steps and mark where one phase of the run ends."""
    thousand = FuncFormatter(lambda x, _: f"{x / 1000:g}k" if x >= 1000 else f"{x:g}")
    axes.xaxis.set_major_formatter(thousand)
    axes.margins(x=0.015)
    last = {r["phase"]: r["step"] for r in records if "phase" in r}
    for before, after, mark, colour, side in (
        ("dense", "prune", "prune", drawing.MUTED, "left"),
        ("prune", "finetune", "finalize", drawing.RED, "right"),
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


# --------------------------------------------------------------------- the pictures


def learning(records: Sequence[Record]) -> Figure:
    """Draw loss, accuracy or bits per byte, and learning rate, one above the other."""
    evaluations = max(len(series(records, f"test_{m.key}")[0]) for m in MEASURES)
    dots = {"marker": "o" if evaluations <= 60 else None, "markersize": 4.5}
    dots |= {"zorder": 4, **drawing.EDGED, "markeredgewidth": 0.8}

    def accuracies(axes, steps, values):
        # After the first tenth: a rise from chance would hide all that follows.
        late = values[steps >= steps.min() + 0.1 * np.ptp(steps)]
        margin = max(0.08 * np.ptp(late), 0.002)
        axes.set_ylim(late.min() - margin, late.max() + margin)
        scales.percents(axes.yaxis)

    return over_time(
        "Loss and accuracy over time",
        records,
        [
            Panel(
                "training loss",
                [Line("loss", drawing.BLUE, noisy=True)],
                _logarithmic_if_positive,
            ),
            Panel(
                "accuracy",
                [
                    Line("accuracy", drawing.BLUE, "training batches", noisy=True),
                    Line("test_accuracy", drawing.GREEN, "evaluation", look=dots),
                ],
                accuracies,
            ),
            Panel(
                BITS_PER_BYTE.name,
                [Line(f"test_{BITS_PER_BYTE.key}", drawing.GREEN, look=dots)],
                _logarithmic_if_positive,
            ),
            Panel(
                "learning rate",
                [Line("learning_rate", drawing.MUTED, look={"linewidth": 1.6})],
                lambda axes, *_: axes.set_ylim(bottom=0),
                height=0.55,
            ),
        ],
        height=6.35,
    )


def keep_ratio(records: Sequence[Record], target: float | None) -> Figure:
    """Draw the keep ratio, the one aimed at and that of the budget."""

    def scale(axes, steps, values):
        lowest = min(values[values > 0], default=1.0)
        if is_positive(target):
            lowest = min(lowest, target)
            axes.axhline(
                target,
                color=drawing.MUTED,
                linewidth=1.3,
                linestyle=(0, (1, 2)),
                zorder=1.5,
                label=f"target {percent(target)}",
            )
        low = min(lowest * 0.8, 0.5)
        axes.set_yscale("log", nonpositive="mask")
        axes.set_ylim(low, 1.12)
        scales.percent_ticks(axes.yaxis, low, 1)

    dashed = {"linestyle": drawing.DASHED}
    lines = [
        Line("target_keep_ratio", drawing.ORANGE, "target", look=dashed),
        Line("keep_ratio", drawing.BLUE, "kept"),
    ]
    panel = Panel("weights kept", lines, scale)
    return over_time("Keep ratio over time", records, [panel], height=3.7)


def budget(
    records: Sequence[Record], limits: Mapping[str, float], reached: Mapping[str, float]
) -> Figure:
    """Draw costs with their limits, and the multipliers below them.

    Args:
      records: Lines with `budget/cost/<j>`, and `limit` and `multiplier` in its place.
      limits: The final ones by the name of the cost, in the order of j.
      reached: The costs of the final network, drawn as points.
    """
    costs, multipliers = [], []
    for j, (name, limit) in enumerate(limits.items()):
        colour = drawing.QUALITATIVE[j]
        # One limit stands out in a colour of its own; several go with their cost.
        own = drawing.ORANGE if len(limits) == 1 else colour
        dashed = {"linestyle": drawing.DASHED, "linewidth": 1.6}
        text = f"limit {percent(limit)}"
        end = reached.get(name)
        costs += [
            Line(f"budget/cost/{j}", colour, cost_name(name), end=end),
            Line(f"budget/limit/{j}", own, text, look=dashed),
        ]
        thin = {"linewidth": 1.7}
        multipliers.append(Line(f"budget/multiplier/{j}", colour, look=thin))

    def fractions(axes, steps, values):
        axes.set_ylim(0, 1.06 * max(values.max(), 1))
        scales.percents(axes.yaxis)

    panels = [
        Panel("of the dense cost", costs, fractions),
        Panel(
            "multiplier",
            multipliers,
            lambda axes, *_: axes.set_ylim(bottom=0),
            height=1 / 2.4,
        ),
    ]
    return over_time("Budget over time", records, panels, height=4.9)


def regrowth(records: Sequence[Record]) -> Figure:
    """Draw how many weights a step prunes and how many it brings back."""

    def scale(axes, steps, values):
        highest = max(values.max(), 1.0)
        # Logarithmic above one weight, so that 0 has a place.
        axes.set_yscale("symlog", linthresh=1, linscale=0.4)
        axes.set_ylim(0, 1.6 * highest)
        # Under three decades every 1, 2, 5 is named, above that powers alone.
        fronts = (1, 2, 5) if highest < 500 else (1,)
        ticks = [0, *(f * 10**e for e in range(9) for f in fronts)]
        ticks = [tick for tick in ticks if tick <= 1.6 * highest]
        axes.set_yticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.yaxis.set_minor_locator(NullLocator())

    lines = [
        Line("newly_pruned", drawing.ORANGE, "pruned", noisy=True),
        Line("regrown", drawing.GREEN, "regrown", noisy=True),
    ]
    panel = Panel("weights in one step", lines, scale)
    title = "Weights that a step prunes and brings back"
    return over_time(title, records, [panel], height=3.7)


def transition(records: Sequence[Record]) -> Figure:
    """Draw the share of the weights in the band of the soft masks."""

    def scale(axes, steps, values):
        axes.set_ylim(0, 1.1 * max(values.max(), 0.01))
        scales.percents(axes.yaxis)

    panel = Panel("of all weights", [Line("in_transition", drawing.BLUE)], scale)
    return over_time("Weights between kept and pruned", records, [panel], height=3.7)


def thresholds(records: Sequence[Record]) -> Figure:
    """Draw the threshold of every layer."""
    names = recorded(records, "threshold/")
    keys = [f"threshold/{name}" for name in names]
    panel = Panel("threshold", _in_depth(keys), _logarithmic_if_positive)
    return _by_layer("Thresholds over time", records, panel, names, unit="layer")


def group_ratios(records: Sequence[Record], groups: Sequence[str]) -> Figure:
    """Draw the keep ratio of every group of channels, in the order of `groups`."""

    def scale(axes, steps, values):
        axes.set_ylim(0, 1.04)
        scales.percents(axes.yaxis)

    found = recorded(records, "keep_ratio/")
    ordered = dict.fromkeys([*(name for name in groups if name in found), *found])
    lines = _in_depth([f"keep_ratio/{name}" for name in ordered])
    panel, names = Panel("channels kept", lines, scale), group_names(ordered)
    title = "Keep ratios of groups over time"
    return _by_layer(title, records, panel, names, unit="group")


def _in_depth(keys: Sequence[str]) -> list[Line]:
    """Make a line for every layer or group, in colours from the first to the last."""
    colours = drawing.depth_colours(len(keys))
    look = {"linewidth": 1.7}
    return [Line(k, c, look=look) for k, c in zip(keys, colours, strict=True)]


def _by_layer(
    title: str, records: Sequence[Record], panel: Panel, names: Sequence[str], unit: str
) -> Figure:
    """Draw up to 40 lines with names beside them; more share a colour scale."""
    count = len(names)
    labelled = count <= _MOST_LABELS
    height = max(3.9, 1.2 + 0.19 * count) if labelled else 4.6
    figure = over_time(title, records, [panel], height)
    (axes,) = figure.axes
    if labelled:
        drawing.name_lines(figure, axes.get_lines()[:count], names)
    else:
        scale = ScalarMappable(Normalize(1, count), drawing.DEPTH)
        bar = figure.colorbar(scale, ax=axes, pad=0.02, aspect=30)
        bar.set_label(unit, color=drawing.MUTED)
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    return figure


def _logarithmic_if_positive(axes: Axes, steps: np.ndarray, values: np.ndarray) -> None:
    if values.min() > 0:
        scales.log_ticks(axes)
