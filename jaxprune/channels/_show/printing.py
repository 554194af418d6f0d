"""Channel groups and blocks as tables of text."""

import re
from collections.abc import Iterable
from typing import Any

from jaxprune.channels._flow.reasons import Reason
from jaxprune.tree._names import matched

_NUMBER = re.compile(r"\d+")

_LISTS = ("producers", "consumers", "other members")

Cells = tuple[str, str, tuple[tuple[str, ...], ...]]
"""A name, a number, and lists of names."""


def table(graph: Any) -> str:
    """Return the groups of a graph, its blocks, then what is pinned and why.

    Groups that differ in the numbers of layers only are one line, with how many they
    are; their name is then the pattern of just these groups.
    """
    lines = [("role", "group", "size", "layers", *_LISTS)]
    for role, names in graph.roles.items():
        cells = [_cells_of_group(graph.groups[name]) for name in names]
        lines += [(role, *line) for line in _bundled(cells, graph.groups)]
    lines = _aligned(lines)
    if graph.blocks:
        cells = [(b.name, str(b.layers), (b.leaves,)) for b in graph.blocks.values()]
        head = "block", "layers", "blocks", "leaves"
        lines += ["", *_aligned([head, *_bundled(cells, graph.blocks)])]
    return "\n".join([*lines, "", *_pinned_lines(graph)])


def _cells_of_group(group) -> Cells:
    others = tuple(dict.fromkeys(m.leaf for m in group.members if m.role == "member"))
    return group.name, str(group.size), (group.producers, group.consumers, others)


def _bundled(lines: Iterable[Cells], names: Iterable[str]) -> list[tuple[str, ...]]:
    """Return one line for those that differ in numbers of layers only."""
    bundles: dict[Any, list[Cells]] = {}
    for name, size, lists in lines:
        key = size, _NUMBER.sub("#", repr((name, lists)))
        bundles.setdefault(key, []).append((name, size, lists))
    found = []
    for bundle in bundles.values():
        pattern = _pattern([name for name, _, _ in bundle])
        whole = matched(pattern, names) == [name for name, _, _ in bundle]
        for same in [bundle] if whole else [[line] for line in bundle]:
            name, size, lists = _merged(same)
            found.append((name, size, str(len(same)), *map(_shorten, lists)))
    return found


def _merged(lines: list[Cells]) -> Cells:
    _, size, lists = lines[0]
    columns = [
        zip(*(line[2][n] for line in lines), strict=True) for n in range(len(lists))
    ]
    merged = tuple(tuple(map(_pattern, column)) for column in columns)
    return _pattern([line[0] for line in lines]), size, merged


def _pattern(names) -> str:
    """Return names that differ in numbers only as one, with `*` where they do."""
    numbers = zip(*map(_NUMBER.findall, names), strict=True)
    shown = iter([n[0] if len(set(n)) == 1 else "*" for n in numbers])
    return _NUMBER.sub(lambda _: next(shown), names[0])


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
