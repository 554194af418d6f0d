"""Recorded numbers and names as texts, and tables of texts for the terminal."""

import math
import re
from collections.abc import Container, Iterable
from typing import Any, SupportsFloat, TypeGuard

import tabulate

tabulate.MIN_PADDING = 0  # or the trail of a run does not fit a terminal of 80 columns

MISSING = "–"
"""Stands where nothing was recorded."""

_ASCII = str.maketrans("×–", "x-")


def is_number(value: Any) -> TypeGuard[float]:
    """Tell whether a recorded value is a finite number, as `None` and lacks are not."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    )


def is_positive(value: Any) -> TypeGuard[float]:
    """Tell whether a recorded value is a finite number above zero."""
    return is_number(value) and value > 0


def percent(fraction: SupportsFloat) -> str:
    """Show a fraction with three significant digits, such as `1.95%`."""
    return f"{100 * float(fraction):.3g}%"


def score(value: Any) -> str:
    """Show a recorded accuracy or cost, a fraction, with two digits: `99.12%`."""
    return f"{100 * value:.2f}%" if is_number(value) else MISSING


def fraction(value: Any) -> str:
    """Show a recorded fraction with three significant digits: `1.95%`."""
    return percent(value) if is_number(value) else MISSING


def times(value: Any) -> str:
    """Show a recorded factor: `53.0×`."""
    if not is_number(value):
        return MISSING
    return f"{value:.1f}×" if value < 1000 else f"{value:,.0f}×"


def count(value: Any) -> str:
    """Show a recorded number of things: `106,000`."""
    return f"{value:,}" if is_number(value) else MISSING


def duration(seconds: Any) -> str:
    """Show recorded seconds as a reader says them: `1 min 23 s`; nothing if missing."""
    if not is_number(seconds):
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def round_up(value: float) -> str:
    """Show a positive number with two digits after the point, rounded up.

    >>> round_up(0.1201), round_up(0.0)
    ('0.13', '0.01')
    """
    return f"{max(math.ceil(100 * value - 1e-9), 1) / 100:.2f}"


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


def text_table(table: Any, *, left: Container[str]) -> str:
    """Lay out a data frame of texts in plain ASCII; numbers end at the right."""
    align = ["left" if name in left else "right" for name in table]
    text = table.to_markdown(
        index=False, tablefmt="simple", colalign=align, disable_numparse=True
    )
    return text.translate(_ASCII)
