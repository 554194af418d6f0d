"""The two questions that a trail of checkpoints answers."""

from collections.abc import Iterable
from typing import Any, Protocol, TypeVar


class _Entry(Protocol):
    @property
    def metadata(self) -> dict[str, Any]: ...


E = TypeVar("E", bound=_Entry)


def smallest(trail: Iterable[E], *, accuracy: float) -> E:
    """Returns the smallest network of a trail that is accurate enough.

    Args:
      trail: entries whose metadata hold `accuracy_hard` (a fraction) and
        `kept_weights`.
      accuracy: the least accuracy, in [0, 1].

    Raises:
      LookupError: if none is; the message says how accurate the best is.
    """
    trail = list(trail)
    enough = [e for e in trail if e.metadata["accuracy_hard"] >= accuracy]
    if not enough:
        best = max((e.metadata["accuracy_hard"] for e in trail), default=None)
        raise LookupError(
            f"`smallest(accuracy={accuracy})`: none of {len(trail)} checkpoints is "
            f"that accurate; the best has {best}. Accuracies are fractions in [0, 1]."
        )
    return min(
        enough, key=lambda e: (e.metadata["kept_weights"], -e.metadata["accuracy_hard"])
    )


def most_accurate(trail: Iterable[E], *, weights: int) -> E:
    """Returns the most accurate network of a trail with at most `weights` weights.

    Args:
      trail: see `smallest`.
      weights: the most prunable weights it may keep.

    Raises:
      LookupError: if none is that small; the message says how small the smallest is.
    """
    trail = list(trail)
    small = [e for e in trail if e.metadata["kept_weights"] <= weights]
    if not small:
        least = min((e.metadata["kept_weights"] for e in trail), default=None)
        raise LookupError(
            f"`most_accurate(weights={weights})`: none of {len(trail)} checkpoints is "
            f"that small; the smallest keeps {least} weights."
        )
    return max(
        small, key=lambda e: (e.metadata["accuracy_hard"], -e.metadata["kept_weights"])
    )
