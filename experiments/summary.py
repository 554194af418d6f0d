"""What a run says of itself when it ends, in `summary.json`."""

from collections.abc import Mapping
from typing import Any

SUMMARY_FILE = "summary.json"


def channel_limits(summary: Mapping[str, Any]) -> dict[str, float]:
    """The limits of a run that prunes channels, by cost; none for other runs."""
    budget = summary.get("budget") or {}
    return {name: x for name, x in budget.items() if name != "weights"}
