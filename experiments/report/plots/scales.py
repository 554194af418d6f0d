"""Scales of axes: where they begin and end, and what their ticks say."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def error_scale(axes: Axes, points: Iterable[tuple[float, float | None]]) -> None:
    """Make the y axis logarithmic in the errors, fitted to accuracies and spreads."""
    found = []
    for mean, spread in points:
        found += [mean - (spread or 0), mean, mean + (spread or 0)]
    errors = [1 - value for value in found if value < 1]
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


def percents(axis: Any) -> None:
    """Name the ticks of an axis of fractions in percent."""
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:.6g}%"))


def percent_ticks(axis: Any, low: float, high: float) -> None:
    """Choose the ticks of a logarithmic axis of fractions, named in percent."""
    decades = math.log10(high / low)
    subs = (1, 2, 5) if decades < 2.6 else (1,) if decades > 4 else (1, 3)
    axis.set_major_locator(LogLocator(10, subs))
    axis.set_minor_locator(NullLocator())
    percents(axis)


def log_ticks(axes: Axes) -> None:
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
