"""Channel groups as a table of text."""

from typing import Any

from jaxprune.channels._flow.reasons import Reason


def table(graph: Any) -> str:
    """Return the groups of a graph, then what is pinned and why."""
    from_to = ("group", "size", "producers", "consumers", "other members")
    lines: list[tuple[str, ...]] = [from_to]
    for group in graph.groups.values():
        others = [m.leaf for m in group.members if m.role == "member"]
        cells = group.producers, group.consumers, tuple(dict.fromkeys(others))
        lines.append((group.name, str(group.size), *map(_shorten, cells)))
    return "\n".join([*_aligned(lines), "", *_pinned_lines(graph)])


def _pinned_lines(graph) -> list[str]:
    lines = [("pinned", "indices", "reason")]
    windows = [pin for pin in graph.pinned if _is_window(pin)]
    for pin in graph.pinned:
        if not _is_window(pin):
            place = f"{pin.leaf}:{pin.axis}"
            lines.append((place, str(len(pin.indices)), pin.reason))
    reason = "axes of size 1, and those that convolutions slide along"
    return _aligned([*lines, (f"{len(windows)} axes", "", reason)])


def _is_window(pin) -> bool:
    return pin.kind in (Reason.WINDOW, Reason.SIZE_ONE)


def _shorten(names, most: int = 2) -> str:
    more = [f"and {len(names) - most} more"] if len(names) > most else []
    return ", ".join([*names[:most], *more])


def _aligned(lines) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
