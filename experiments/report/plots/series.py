"""Series of numbers from the records of a run, the lines of `metrics.jsonl`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.logging.formatting import is_number

Record = Mapping[str, Any]

# What names of numbers in the records begin with; layers, groups or costs follow.
THRESHOLD, KEPT = "threshold/", "keep_ratio/"
COST, LIMIT = "budget/cost/", "budget/limit/"
MULTIPLIER = "budget/multiplier/"
LEARNING = ("loss", "accuracy", "test_accuracy")
RATE = "learning_rate"
REGROWTH = ("newly_pruned", "regrown")


def recorded_keys(records: Sequence[Record], prefix: str) -> list[str]:
    """List the keys of a prefix that have a value somewhere, as they come."""
    return list(
        dict.fromkeys(
            key
            for record in records
            for key, value in record.items()
            if key.startswith(prefix) and is_number(value)
        )
    )


def series(records: Sequence[Record], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Collect the steps and values of one number where it was recorded."""
    pairs = [(r["step"], r[key]) for r in records if is_number(r.get(key))]
    steps, values = np.array(pairs, float).reshape(-1, 2).T
    return steps, values


def thin(
    steps: np.ndarray, values: np.ndarray, most: int = 600
) -> tuple[np.ndarray, np.ndarray]:
    """Leave out points that no screen can show; first and last stay."""
    if len(steps) <= most:
        return steps, values
    kept = np.linspace(0, len(steps) - 1, most).round().astype(int)
    return steps[kept], values[kept]
