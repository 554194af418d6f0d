"""What networks are compared by: their accuracy or, of texts, their bits per byte."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from experiments.logging.formatting import MISSING, is_number


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measure:
    """A number that says how good a network is.

    Attributes:
      key: its name in summaries, metrics and tables of runs.
      name: its name in prose.
      sign: 1 if more is better, -1 if less is.
      scale: what a recorded number is multiplied with to be shown.
      digits: how many of it are shown behind the point.
      unit: what stands behind it, and what differences of it are called.
    """

    key: str
    name: str
    sign: int
    scale: float
    digits: int
    unit: tuple[str, str]

    def number(self, value: float) -> str:
        """Show a number without its unit: `99.12` or `2.310`."""
        return f"{self.scale * value:.{self.digits}f}"

    def show(self, value: Any) -> str:
        """Show a recorded number: `99.12%` or `2.310`."""
        return self.number(value) + self.unit[0] if is_number(value) else MISSING

    def change(self, before: float, after: float) -> str:
        """Show how a number changed: `−0.31 points` or `+0.120 bits`."""
        change = f"{self.scale * (after - before):+.{self.digits}f}"
        return f"{change} {self.unit[1]}".replace("-", "−")


ACCURACY = Measure(
    key="accuracy",
    name="accuracy",
    sign=1,
    scale=100,
    digits=2,
    unit=("%", "points"),
)
BITS_PER_BYTE = Measure(
    key="bits_per_byte",
    name="bits per byte",
    sign=-1,
    scale=1,
    digits=3,
    unit=("", "bits"),
)
MEASURES = (ACCURACY, BITS_PER_BYTE)


def measure_of(summary: Mapping[str, Any]) -> Measure:
    """Return what a run is measured by; older runs had the accuracy alone."""
    known = {measure.key: measure for measure in MEASURES}
    return known[summary.get("measure", ACCURACY.key)]
