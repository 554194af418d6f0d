"""The trail of a run as a table, from the dense network to the final one."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.logging.formatting import (
    MISSING,
    cost_name,
    count,
    fraction,
    is_number,
    score,
    text_table,
    times,
)
from experiments.logging.summary import channel_limits
from experiments.report import pages


def as_text(summary: Mapping[str, Any]) -> str:
    """Lay out the points of a run and its final network as a text table.

    Args:
      summary: The content of `summary.json`.

    Returns:
      The table in plain ASCII apart from paths, for any terminal and log. Columns
      that no row has a value for are left out.
    """
    header, rows = lay_out(summary)
    return text_table(header, rows, left=_words(header))


def as_markup(summary: Mapping[str, Any]) -> str:
    """Lay out the same for a page, or say that there is nothing."""
    header, rows = lay_out(summary)
    if not rows:
        return "<p>No point was reached.</p>"
    kinds = [row[0] if row[0] in ("dense", "final") else "" for row in rows]
    return pages.table(header, rows, left=_words(header), kinds=kinds)


def lay_out(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Lay out the header and the rows of the trail.

    The column `accuracy` holds that of networks with exact zeros, so that it compares
    from the dense network to the final one.
    """
    limits = channel_limits(summary)
    header = ["step", *map(cost_name, limits), "sparsity", "keep ratio"]
    header += ["compression", "soft accuracy", "accuracy", "checkpoint"]
    named = [(count(p.get("step")), p) for p in summary.get("points") or []]
    dense = summary.get("dense_accuracy")
    if is_number(dense):
        point = {"sparsity": 0.0, "keep_ratio": 1.0, "compression": 1.0}
        costs = dict.fromkeys(limits, 1.0)
        named.insert(0, ("dense", {**point, "accuracy": dense, "costs": costs}))
    if summary.get("final"):
        named.append(("final", summary["final"]))
    rows = []
    for name, point in named:
        sparsity, costs = point.get("sparsity"), point.get("costs") or {}
        rows.append(
            [
                name,
                *(score(costs.get(cost)) for cost in limits),
                f"{100 * sparsity:.3f}%" if is_number(sparsity) else MISSING,
                fraction(point.get("keep_ratio")),
                times(point.get("compression")),
                score(point.get("accuracy_soft")),
                score(point.get("accuracy_hard", point.get("accuracy"))),
                str(point.get("checkpoint") or MISSING),
            ]
        )
    used = [
        column
        for column, name in enumerate(header)
        if name == "step" or any(row[column] != MISSING for row in rows)
    ]
    return [header[i] for i in used], [[row[i] for i in used] for row in rows]


def _words(header: Sequence[str]) -> set[int]:
    """The columns that hold words, not numbers."""
    return {column for column, name in enumerate(header) if name == "checkpoint"}
