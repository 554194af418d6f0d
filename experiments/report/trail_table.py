"""The trail of a run as a table, from the dense network to the final one."""

import functools
from collections.abc import Mapping
from typing import Any

import pandas as pd

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
from experiments.logging.measure import Measure, measure_of
from experiments.logging.summary import channel_limits


def as_text(summary: Mapping[str, Any]) -> str:
    """Lay out the trail for any terminal and log."""
    return text_table(lay_out(summary), left=["checkpoint"])


def lay_out(summary: Mapping[str, Any]) -> Any:
    """Return the points of a run and its final network as a data frame of texts.

    The column `accuracy`, or `bits per byte`, holds that of networks with exact zeros,
    so that it compares from the dense network to the final one. Columns without any
    value are left out.
    """
    limits, measure = channel_limits(summary), measure_of(summary)
    row = functools.partial(_row, limits=limits, measure=measure)
    rows = [row(count(p.get("step")), p) for p in summary.get("points") or []]
    dense = summary.get(f"dense_{measure.key}")
    if is_number(dense):
        point = {"sparsity": 0.0, "keep_ratio": 1.0, "compression": 1.0}
        costs = dict.fromkeys(limits, 1.0)
        point |= {measure.key: dense, "costs": costs}
        rows.insert(0, row("dense", point))
    if summary.get("final"):
        rows.append(row("final", summary["final"]))
    table: Any = pd.DataFrame(rows, columns=[*row("", {})])
    return table.loc[:, (table != MISSING).any() | (table.columns == "step")]


def _row(
    name: str, point: Mapping[str, Any], limits: Mapping[str, float], measure: Measure
):
    sparsity, costs = point.get("sparsity"), point.get("costs") or {}
    return {
        "step": name,
        **{cost_name(cost): score(costs.get(cost)) for cost in limits},
        "sparsity": f"{100 * sparsity:.3f}%" if is_number(sparsity) else MISSING,
        "keep ratio": fraction(point.get("keep_ratio")),
        "compression": times(point.get("compression")),
        f"soft {measure.name}": measure.show(point.get(f"{measure.key}_soft")),
        measure.name: measure.show(
            point.get(f"{measure.key}_hard", point.get(measure.key))
        ),
        "top-5": score(point.get("accuracy_top5")),
        "checkpoint": str(point.get("checkpoint") or MISSING),
    }
