"""What methods for channels share: which groups are learned, rows, final masks."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxprune.channels._counts import (
    Fixed,
    check_groups,
    fixed_ratios,
    important_channels,
    rounded_down,
)
from jaxprune.channels._gates import GatePlan, plan_gates
from jaxprune.channels._graph import ChannelGraph


class Rows(NamedTuple):
    """Groups of several sizes as the rows of one matrix, padded at the end.

    Attributes:
      call: the public function that was called, for messages.
      names: of the groups.
      sizes: their numbers of channels.
    """

    call: str
    names: tuple[str, ...]
    sizes: tuple[int, ...]

    @property
    def valid(self) -> np.ndarray:
        """Bool, shape (groups, largest size): False for padding."""
        return np.arange(max(self.sizes))[None] < np.array(self.sizes)[:, None]

    def pad(self, scores: Mapping[str, Any]) -> jax.Array:
        """Return scores by group as float32, shape (groups, largest size)."""
        rows = []
        for name, size in zip(self.names, self.sizes, strict=True):
            shape = jnp.shape(scores[name])
            if shape != (size,):
                raise ValueError(
                    f"`{self.call}(importance=...)`: what it returns for group "
                    f"{name!r} must have shape ({size},), one number for each "
                    f"channel, got {shape}. `channels.filter_norms(graph)` returns "
                    "such scores."
                )
            rows.append(jnp.pad(scores[name], (0, max(self.sizes) - size)))
        return jnp.stack(rows).astype(jnp.float32)

    def unpad(self, rows: jax.Array) -> dict[str, jax.Array]:
        """Return the rows of a matrix by group, without padding."""
        pairs = zip(self.names, self.sizes, strict=True)
        return {name: rows[i, :size] for i, (name, size) in enumerate(pairs)}


class Gated(NamedTuple):
    """The groups of a graph, by what becomes of them.

    Attributes:
      fixed: the keep ratios that are given, by name.
      learned: the names of the others.
      held: of what is fixed and not whole, the numbers of channels.
      plan: where learned and held groups are read.
      rows: these groups as the rows of a matrix.
    """

    fixed: dict[str, float]
    learned: tuple[str, ...]
    held: dict[str, int]
    plan: GatePlan
    rows: Rows


def gated_groups(call: str, graph: ChannelGraph, fixed: Fixed | None) -> Gated:
    """Tell apart which groups are learned, held and left whole.

    Args:
      call: the public function that was called, for messages.
      graph: the channel graph.
      fixed: patterns of group names to keep ratios that are not learned.

    Raises:
      ValueError: if the graph has no groups, all are fixed, or as `fixed_ratios`.
    """
    check_groups(call, graph)
    given = fixed_ratios(call, graph, fixed)
    learned = tuple(name for name in graph.groups if name not in given)
    if not learned:
        raise ValueError(
            f"`{call}(fixed={fixed})`: must leave a group whose keep ratio is learned; "
            f"the groups are {list(graph.groups)}."
        )
    held = {
        name: rounded_down(ratio, graph.groups[name], 1)
        for name, ratio in given.items()
        if ratio < 1
    }
    plan = plan_gates(graph, [n for n in graph.groups if n in learned or n in held])
    rows = Rows(call, tuple(plan.sizes), tuple(plan.sizes.values()))
    return Gated(given, learned, held, plan, rows)


def masks_of(graph: ChannelGraph, scores: Mapping[str, Any], counts) -> dict[str, Any]:
    """Return the masks of the most important channels; whole where nothing is said."""
    scores = {name: scores[name] for name in scores if name in counts}
    kept = important_channels(graph, scores, counts)
    groups = graph.groups.items()
    return {n: kept.get(n, np.ones(group.size, bool)) for n, group in groups}
