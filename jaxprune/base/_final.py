"""What finalizing returns: the pruned network with a report of its sizes."""

import dataclasses
import enum
from collections.abc import Mapping
from typing import NamedTuple

from jaxprune.base._protocols import Masks, Params


class PruningWarning(UserWarning):
    """The final network may differ from the one that was trained."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinalReport:
    """Sizes of a final network and the verdict of its budget; prints as a table.

    Attributes:
      keep_ratio: the fraction of the prunable weights (or of the channels) that the
        final network keeps.
      own_keep_ratio: the fraction that the method keeps by its own rule, at the values
        to which its variables were trained; None if it has no rule of its own.
      costs: of the final network, by the names of the limits. Of a transformation with
        a `sparsity` the limit is that of the density.
      limits: the most that they may be, by the same names.
      emptied: the names of leaves (or groups) of which nothing is left.
      result: the last `jaxprune.budgets.Result` of the budget, of the network that was
        trained; None if nothing was limited while training.
      score_trained: what `evaluate` returned for the network that was trained.
      score: what `evaluate` returned for the final network.
    """

    keep_ratio: float
    own_keep_ratio: float | None
    costs: Mapping[str, float]
    limits: Mapping[str, float]
    emptied: tuple[str, ...]
    result: enum.IntEnum | None = None
    score_trained: float | None = None
    score: float | None = None

    def __str__(self) -> str:
        rows = [("keep ratio", f"{self.keep_ratio:.6f}")]
        if self.own_keep_ratio is not None:
            rows.append(("keep ratio by the method", f"{self.own_keep_ratio:.6f}"))
        for name, cost in self.costs.items():
            rows.append((name, f"{cost:.6f} of at most {self.limits[name]:.6f}"))
        if self.result is not None:
            rows.append(("budget while training", self.result.name))
        if self.emptied:
            rows.append(("emptied", ", ".join(self.emptied)))
        for name, score in (("trained", self.score_trained), ("final", self.score)):
            if score is not None:
                rows.append((f"score, {name}", f"{score:.6g}"))
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name.ljust(width)}  {value}" for name, value in rows)


class Final(NamedTuple):
    """A pruned network, from `Pruning.finalize` or `transforms.finalize`.

    Attributes:
      params: the weights that the final network computes with. A method that shrinks
        weights (soft thresholds) gives them shrunk; a `ChannelPruner` gives them of
        their shapes, with zeros where a removed channel would be read.
      masks: a tree like the parameters, True where a weight is kept, for
        `freeze_pruned`; of a `ChannelPruner` masks of channels by group, for
        `graph.compact`.
      report: the sizes, the costs and their limits.
    """

    params: Params
    masks: Masks
    report: FinalReport
