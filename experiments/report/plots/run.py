"""The pictures that the data of a run allows.

Every function takes plain data, as `summary.json` and `metrics.jsonl` hold it, and
returns `Figure`s without touching pyplot's global state.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from experiments.logging.formatting import is_number, is_positive
from experiments.logging.summary import channel_limits
from experiments.report.plots.accuracy import accuracy_against_compression, is_point
from experiments.report.plots.layers import (
    group_keep_ratios,
    group_ratios_over_time,
    layer_keep_ratios,
    thresholds_over_time,
)
from experiments.report.plots.over_time import (
    budget_over_time,
    keep_ratio_over_time,
    learning_curves,
    regrowth_over_time,
)
from experiments.report.plots.series import (
    COST,
    KEPT,
    LEARNING,
    REGROWTH,
    THRESHOLD,
    Record,
    recorded_keys,
)


def figures(summary: Mapping[str, Any], records: Sequence[Record]) -> dict[str, Figure]:
    """Draw every figure that the data of a run allows.

    Args:
      summary: The content of `summary.json`.
      records: The lines of `metrics.jsonl`.

    Returns:
      Figures by name, in the order to show them. One whose data is missing, such as
      thresholds of a method that has none, is left out.
    """
    final = summary.get("final") or {}
    layers = final.get("layers") or {}
    points = summary.get("points") or []
    budget = summary.get("budget") or {}
    drawn = {}
    dense = summary.get("dense_accuracy")
    prunes_channels = bool(channel_limits(summary))
    # The final network alone is a number, not a picture; of channels there is one
    # more point, just before fine-tuning, which makes no curve either.
    if not prunes_channels and (
        any(map(is_point, points)) or (is_point(final) and is_number(dense))
    ):
        drawn["accuracy"] = accuracy_against_compression(
            points, final=final, dense_accuracy=dense
        )
    if any(is_number(r.get(k)) for r in records for k in LEARNING):
        drawn["learning"] = learning_curves(records)
    if prunes_channels:
        return drawn | _channel_figures(records, layers, budget, summary.get("costs"))
    kept = [r["keep_ratio"] for r in records if is_positive(r.get("keep_ratio"))]
    if min(kept, default=1.0) < 1.0:  # a dense run keeps all of it all the time
        target = budget.get("weights")
        drawn["keep_ratio"] = keep_ratio_over_time(records, target=target)
    if layers:
        drawn["layers"] = layer_keep_ratios(layers)
    if recorded_keys(records, THRESHOLD):
        drawn["thresholds"] = thresholds_over_time(records)
    if any(is_positive(r.get(k)) for r in records for k in REGROWTH):
        drawn["regrowth"] = regrowth_over_time(records)
    return drawn


def _channel_figures(
    records: Sequence[Record],
    groups: Mapping[str, Mapping[str, Any]],
    budget: Mapping[str, float],
    costs: Mapping[str, float] | None,
) -> dict[str, Figure]:
    """Draw what a run that prunes channels allows; see `figures`."""
    drawn = {}
    if recorded_keys(records, COST):
        drawn["budget"] = budget_over_time(records, list(budget), reached=costs)
    if recorded_keys(records, KEPT):
        drawn["group_ratios"] = group_ratios_over_time(records, list(groups))
    if groups:
        drawn["groups"] = group_keep_ratios(groups)
    return drawn
