"""The trail of a run: ever sparser networks, each saved with its accuracies."""

import dataclasses
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax

import jaxprune
from experiments.logging.measure import ACCURACY, Measure
from jaxprune import io

FOLDER = "trail"


@dataclasses.dataclass
class Record:
    """What a run has found out so far; kept beside every checkpoint."""

    # Test accuracy, a fraction, or bits per byte before pruning, or None.
    dense_accuracy: float | None = None
    # The points of the trail, as in `summary.json`.
    points: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    seconds: float = 0.0  # how long the run has taken, interruptions left out
    # The states of the iterators over the training data, by name.
    data_state: dict[str, Any] = dataclasses.field(default_factory=dict)
    # The kept channels of every group, once they are decided, or None.
    channels: dict[str, list[int]] | None = None
    # How the budget stood when pruning ended, the name of a `Result`, or None.
    result: str | None = None
    # How long the run had taken at the end of each phase.
    phase_ends: dict[str, float] = dataclasses.field(default_factory=dict)


def compression_ladder(keep_ratio: float) -> tuple[float, ...]:
    """Return the keep ratios 1/2, 1/4, 1/8, ... above `keep_ratio`, then itself.

    >>> compression_ladder(0.1)
    (0.5, 0.25, 0.125, 0.1)
    """
    if not 0 < keep_ratio <= 1:
        raise ValueError(
            f"`compression_ladder(keep_ratio={keep_ratio})`: must be in (0, 1]."
        )
    rungs = math.ceil(-math.log2(keep_ratio)) - 1
    return (*(2.0**-i for i in range(1, rungs + 1)), keep_ratio)


def next_rung(ladder: tuple[float, ...], points: list, keep_ratio: float):
    """Returns the lowest rung of the ladder newly reached, or None.

    The last rung is left out: it is reached when the pruning phase ends.

    >>> next_rung((0.5, 0.25, 0.1), [{"keep_ratio": 0.5}], 0.24)
    0.25
    >>> next_rung((0.5, 0.25, 0.1), [{"keep_ratio": 0.25}], 0.24)
    """
    done = min((point["keep_ratio"] for point in points), default=1.0)
    reached = [rung for rung in ladder[:-1] if keep_ratio <= rung < done]
    return min(reached, default=None)


def save_network(
    workdir: Path, step: int, params: Any, batch_stats: Any, point: dict[str, Any]
) -> None:
    """Saves a pruned network into the trail, with the numbers of its point."""
    network = {"params": params, "batch_stats": batch_stats}
    io.save(workdir / FOLDER, step, network, metadata=point)


def layers_of(params: Any, masks: Any) -> dict[str, dict[str, Any]]:
    """Returns size, count kept and keep ratio of every prunable leaf."""
    return {
        leaf.name: {"size": leaf.size, "kept": leaf.kept, "keep_ratio": leaf.keep_ratio}
        for leaf in counts(params, masks).leaves
    }


def counts(params: Any, masks: Any) -> jaxprune.Report:
    """Counts what the masks keep, whether they are applied already or not."""
    return jaxprune.summarize(jax.eval_shape(lambda p: p, params), masks)


def smallest(
    trail: Iterable[io.Entry], *, accuracy: float, measure: Measure = ACCURACY
) -> io.Entry:
    """Returns the smallest network of a trail that is accurate enough.

    Args:
      trail: entries whose metadata hold `accuracy_hard` (a fraction; of texts
        `bits_per_byte_hard`) and `kept_weights`.
      accuracy: the minimum accuracy, in [0, 1], or the maximum of bits per byte.
      measure: what networks are compared by.

    Raises:
      LookupError: if none is; the message says how accurate the best is.
    """
    trail = list(trail)
    enough = [e for e in trail if _quality(e, measure) >= measure.sign * accuracy]
    if not enough:
        values = [e.metadata[f"{measure.key}_hard"] for e in trail]
        best = max(values, key=lambda x: measure.sign * x, default=None)
        raise LookupError(
            f"`smallest(accuracy={accuracy})`: none of {len(trail)} checkpoints is "
            f"that accurate; the best has {best}. Accuracies are fractions in [0, 1]."
        )
    return min(
        enough, key=lambda e: (e.metadata["kept_weights"], -_quality(e, measure))
    )


def most_accurate(
    trail: Iterable[io.Entry], *, weights: int, measure: Measure = ACCURACY
) -> io.Entry:
    """Returns the most accurate network of a trail with at most `weights` weights.

    Args:
      trail: see `smallest`.
      weights: the most prunable weights it may keep.
      measure: see `smallest`.

    Raises:
      LookupError: if none is that small; the message says how small the smallest is.
    """
    trail = list(trail)
    small = [e for e in trail if e.metadata["kept_weights"] <= weights]
    if not small:
        fewest = min((e.metadata["kept_weights"] for e in trail), default=None)
        raise LookupError(
            f"`most_accurate(weights={weights})`: none of {len(trail)} checkpoints is "
            f"that small; the smallest keeps {fewest} weights."
        )
    return max(small, key=lambda e: (_quality(e, measure), -e.metadata["kept_weights"]))


def _quality(entry: io.Entry, measure: Measure) -> float:
    """How good a network is: more is better."""
    return measure.sign * entry.metadata[f"{measure.key}_hard"]
