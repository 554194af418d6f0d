"""The pictures that the data of a run allows, without pyplot's global state."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from experiments.logging.formatting import is_number, is_positive
from experiments.logging.measure import Measure, measure_of
from experiments.logging.summary import channel_limits
from experiments.report.plots import bars, drawing, over_time
from experiments.report.plots.accuracy import against_compression


@drawing.style
def figures(
    summary: Mapping[str, Any], records: Sequence[over_time.Record]
) -> dict[str, Figure]:
    """Draw every figure that summary and metrics of a run allow, by name, in order."""

    def has(*keys, test=is_number):
        return any(test(record.get(key)) for record in records for key in keys)

    final = summary.get("final") or {}
    layers = final.get("layers") or {}
    points = summary.get("points") or []
    budget = summary.get("budget") or {}
    measure = measure_of(summary)
    dense = summary.get(f"dense_{measure.key}")
    drawn = {}
    prunes_channels = bool(channel_limits(summary))
    # The final network alone is a number, not a picture; of channels there is one
    # more point, just before fine-tuning, which makes no curve either.
    if not prunes_channels and (
        any(_is_point(point, measure) for point in points)
        or (_is_point(final, measure) and is_number(dense))
    ):
        drawn["accuracy"] = against_compression(points, final, dense, measure)
    if has("loss", "accuracy", f"test_{measure.key}"):
        drawn["learning"] = over_time.learning(records)
    if prunes_channels:
        if over_time.recorded(records, "budget/cost/"):
            costs = summary.get("costs") or {}
            drawn["budget"] = over_time.budget(records, budget, costs)
        if over_time.recorded(records, "keep_ratio/"):
            drawn["group_ratios"] = over_time.group_ratios(records, list(layers))
        if layers:
            drawn["groups"] = bars.group_keep_ratios(layers)
        return drawn
    # A dense run keeps all of it all the time.
    if has("keep_ratio", test=lambda ratio: is_positive(ratio) and ratio < 1):
        drawn["keep_ratio"] = over_time.keep_ratio(records, budget.get("weights"))
    if layers:
        drawn["layers"] = bars.layer_keep_ratios(layers)
    if over_time.recorded(records, "threshold/"):
        drawn["thresholds"] = over_time.thresholds(records)
    if has("in_transition", test=is_positive):
        drawn["transition"] = over_time.transition(records)
    if has("newly_pruned", "regrown", test=is_positive):
        drawn["regrowth"] = over_time.regrowth(records)
    return drawn


def _is_point(network: Mapping[str, Any], measure: Measure) -> bool:
    """Tell whether a network has both numbers that place it in the picture."""
    return is_positive(network.get("compression")) and any(
        is_number(network.get(key))
        for key in (measure.key, f"{measure.key}_soft", f"{measure.key}_hard")
    )
