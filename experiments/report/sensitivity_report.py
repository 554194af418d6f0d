"""What the command `sensitivity` measured, in words."""

from collections.abc import Mapping
from typing import Any

from experiments.logging.formatting import score

SENSITIVITY_FILE = "sensitivity.json"


def note(found: Mapping[str, Any]) -> str:
    """Say what `python -m experiments sensitivity` measured."""
    correlation = found["correlation"]
    agree = "no rank correlation, as one of them is the same everywhere"
    if correlation is not None:
        agree = f"Spearman rank correlation {correlation:+.2f}".replace("-", "−")
        if correlation < 0:
            agree += (
                ", so the groups that lose most keep least: either the allocation or "
                "this measure misjudges them"
            )
    return (
        "Each group alone loses the smaller half of its filters, in the dense network"
        f" of step {found['step']:,} (evaluation loss {found['loss']:.3f}, accuracy"
        f" {score(found['accuracy'])}), without training after. Rise of that loss"
        f" and keep ratio of {len(found['groups'])} groups: {agree}."
    )
