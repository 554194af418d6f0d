"""A picture of channel groups: rails that run past the weights that they couple.

One line for each weight that makes or reads channels, in the order of the program; one
rail for each group, from the first such weight to the last. Rails that do not overlap
share a column, so that a plain chain takes two columns, whatever its depth, and a
residual stream one more for each width.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

_INK, _MUTED, _FAINT = "#1c2530", "#667281", "#d5dbe2"
# Of similar lightness, to be told apart on light and on dark ground.
_COLOURS = (
    *("#3b78e7", "#e07a1f", "#23966a", "#d1495b", "#8a5fd0", "#1593a8"),
    *("#b0891a", "#c2529b", "#6f8f2a", "#9a6a4b", "#5c7fa8", "#4a9d9c"),
)
_LINE, _COLUMN, _LETTER = 0.26, 0.62, 0.0711  # inches
_MONO = {"family": "DejaVu Sans Mono", "fontsize": 8.5, "va": "center"}


class Row(NamedTuple):
    """One weight.

    Attributes:
      leaf: its name.
      shape: its shape.
      reads: the groups that it reads.
      makes: the groups that it makes.
      ends: `input`, `output` or `pinned` for axes that it reads or makes and that
        cannot shrink.
    """

    leaf: str
    shape: tuple[int, ...]
    reads: tuple[str, ...]
    makes: tuple[str, ...]
    ends: tuple[str, ...]


def rows_of(graph: Any) -> list[Row]:
    """Return the weights that make or read channels, in the order of the program."""
    flow, names = graph._traced.program.flow, graph._traced.names
    reads: dict[str, list[str]] = {name: [] for name in names}
    makes: dict[str, list[str]] = {name: [] for name in names}
    for group in graph.groups.values():
        for leaf in group.consumers:
            reads[leaf].append(group.name)
        for leaf in group.producers:
            makes[leaf].append(group.name)
    ends: dict[str, list[str]] = {name: [] for name in names}
    places = {(names[leaf], axis) for leaf, axis in flow.consumers | flow.producers}
    for pin in graph.pinned:
        if (pin.leaf, pin.axis) in places:
            end = "input" if pin.touches_input else "pinned"
            ends[pin.leaf].append("output" if pin.touches_output else end)
    return [
        Row(
            names[i],
            tuple(graph.leaves[names[i]].shape),
            tuple(reads[names[i]]),
            tuple(makes[names[i]]),
            tuple(dict.fromkeys(ends[names[i]])),
        )
        for i in sorted(range(len(names)), key=lambda i: flow.first_use.get(i, 0))
        if reads[names[i]] or makes[names[i]] or ends[names[i]]
    ]


def spans_of(rows: Sequence[Row]) -> dict[str, tuple[int, int]]:
    """Return for every group the first and the last row that it passes."""
    spans: dict[str, tuple[int, int]] = {}
    for number, row in enumerate(rows):
        for name in (*row.reads, *row.makes):
            first, _ = spans.get(name, (number, number))
            spans[name] = first, number
    return spans


def columns_of(spans: dict[str, tuple[int, int]]) -> dict[str, int]:
    """Give every rail the first column that is free for all of its length.

    The longest rails come first, so that those of a residual stream stand together at
    the left. One row stays free between two rails, for the size at the head.
    """
    taken: list[list[tuple[int, int]]] = []
    columns = {}
    for name in sorted(spans, key=lambda name: spans[name][0] - spans[name][1]):
        first, last = spans[name]
        column = 0
        while column < len(taken) and any(
            first <= end and start <= last for start, end in taken[column]
        ):
            column += 1
        if column == len(taken):
            taken.append([])
        taken[column].append((first, last))
        columns[name] = column
    return columns


def draw(graph: Any) -> Any:
    """Draws the groups of a graph; see `ChannelGraph.plot`."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "`graph.plot()`: matplotlib is needed, and not installed. Install it with "
            "`pip install 'jaxprune[plot]'`; `print(graph)` needs nothing."
        ) from error
    rows = rows_of(graph)
    spans = spans_of(rows)
    columns = columns_of(spans)
    sizes = {name: group.size for name, group in graph.groups.items()}
    width = max(columns.values(), default=-1) + 1
    cells = [(r.leaf, "×".join(map(str, r.shape)), ", ".join(r.ends)) for r in rows]
    letters = [max(map(len, column)) + 2 for column in zip(*cells, strict=True)]
    right = (width + 0.25) * _COLUMN
    inches = right + 0.3 + _LETTER * max(sum(letters), 24), (len(rows) + 2) * _LINE
    figure = Figure(figsize=inches)
    axes = figure.add_axes((0, 0, 1, 1), frame_on=False, xticks=[], yticks=[])
    axes.set(xlim=(0, inches[0]), ylim=(inches[1], 0))
    place = {name: (0.5 + column) * _COLUMN for name, column in columns.items()}
    colour = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(sizes)}
    for number, row in enumerate(rows):
        _draw_row(axes, row, _height(number), place, colour, right)
        x = right + 0.1
        for cell, length, ink in zip(
            cells[number], letters, (_INK, _MUTED, _MUTED), strict=True
        ):
            axes.text(x, _height(number), cell, color=ink, **_MONO)
            x += _LETTER * length
    for name, (first, last) in spans.items():
        heights = _height(first), _height(last)
        _draw_group(axes, place[name], heights, str(sizes[name]), colour[name])
    _draw_key(axes, _height(len(rows)), right)
    return figure


def _draw_group(axes, x: float, heights, size: str, colour: str) -> None:
    axes.plot([x] * 2, heights, color=colour, lw=3.5, zorder=2)
    axes.text(
        x + 0.09,
        heights[0] - 0.5 * _LINE,
        size,
        color=colour,
        fontsize=8,
        fontweight="bold",
        va="center",
    )


def _height(number: float) -> float:
    return (number + 1) * _LINE


def _draw_row(axes, row: Row, y: float, place, colour, right: float) -> None:
    touched = [place[name] for name in (*row.reads, *row.makes)]
    start = min(touched, default=right)
    axes.plot([start, right], [y, y], color=_FAINT, lw=1, zorder=1)
    for names, face in ((row.makes, None), (row.reads, "white")):
        for name in names:
            both = name in row.reads and name in row.makes
            axes.plot(
                place[name],
                y,
                marker="D" if both else "o",
                markersize=6.5,
                markeredgewidth=1.8,
                color=colour[name],
                markerfacecolor=face or colour[name],
                zorder=3,
            )


def _draw_key(axes, y: float, right: float) -> None:
    """Says what the marks mean, below the last row."""
    for x, face, words in ((0.0, _MUTED, "makes"), (0.75, "white", "reads")):
        x += right + 0.15
        axes.plot(
            x,
            y,
            marker="o",
            markersize=6.5,
            markeredgewidth=1.8,
            color=_MUTED,
            markerfacecolor=face,
        )
        axes.text(x + 0.12, y, words, color=_MUTED, fontsize=8, va="center")
