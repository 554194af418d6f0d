"""Names beside the ends of lines, none over another."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from scipy import optimize


def label_ends(
    axes: Axes,
    ends: Sequence[tuple[float, float]],
    names: Sequence[str],
    colours: Sequence[str],
    *,
    height: float | None = None,
) -> None:
    """Name every line beside its end, the names spread so that none overlap.

    Args:
      axes: With the lines.
      ends: The last x and y of every line; at least one.
      names: Of the lines.
      colours: Of the lines.
      height: Of the axes in inches; without it they are alone in the figure.
    """
    axes.set_ylim(axes.get_ylim())  # what comes later must not move the ends
    where = axes.transData.transform(ends)
    heights = axes.transAxes.inverted().transform(where)[:, 1]
    figure = axes.get_figure(root=True)
    assert figure is not None  # every plot here makes its axes in one
    # 0.15 inches a line of text; the axes take about an inch less than the figure.
    gap = min(0.15 / (height or figure.get_figheight() - 1.1), 1.04 / len(ends))
    order = np.argsort(heights, kind="stable")
    for i, place in zip(map(int, order), spread(heights[order], gap), strict=True):
        axes.annotate(
            shorten(names[i]),
            ends[i],
            (1.045, place),
            textcoords=axes.transAxes,
            va="center",
            fontsize=8.5,
            color=colours[i],
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colours[i],
                "linewidth": 0.7,
                "alpha": 0.6,
                "shrinkA": 0,
                "shrinkB": 2,
                "relpos": (0, 0.5),
            },
        )


def spread(heights: np.ndarray, gap: float) -> np.ndarray:
    """Move ascending heights as little as need be to be `gap` apart.

    Least squares with the order as constraint: what remains after the gaps are taken
    off must not decrease.
    """
    offsets = gap * np.arange(len(heights))
    spread = optimize.isotonic_regression(heights - offsets).x + offsets
    # Back inside the axes as a whole, if it hangs out at one end.
    return spread - max(spread[-1] - 1.02, 0) + max(-0.02 - spread[0], 0)


def shorten(name: str, most: int = 30) -> str:
    """Cut a long name in its middle, where names of layers differ least."""
    return name if len(name) <= most else f"{name[: most // 2]}…{name[-most // 2 :]}"
