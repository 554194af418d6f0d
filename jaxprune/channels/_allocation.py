"""From keep ratios to numbers of channels that meet a budget exactly.

Keep ratios are numbers between 0 and 1, channels are whole. Rounded one by one they may
cost a little more than the budget, or a lot less; `round_to_budget` rounds all of them
together.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from jaxprune.base._checks import round_up
from jaxprune.base._protocols import Cost
from jaxprune.channels._choice import channel_counts
from jaxprune.channels._graph import ChannelGraph

_TINY = 1e-9  # a keep ratio must be positive; one channel stays anyway

Limits = Sequence[tuple[Cost, float]]
"""Costs, and the most that each may be, as fractions of the dense cost."""


def round_to_budget(
    graph: ChannelGraph,
    keep_ratios: Mapping[str, float],
    limits: Limits,
    *,
    multiple_of: int = 1,
) -> dict[str, int]:
    """Rounds keep ratios to numbers of channels whose costs meet all limits.

    The ratios are scaled by one factor, the largest at which rounding down still meets
    the limits; then channels are added back, always in the group that is furthest
    below its own share, while they fit. What is returned never costs more than asked,
    and no channel of any group could be added without costing more.

    Args:
      graph: the channel graph.
      keep_ratios: group name to the fraction wanted, in [0, 1]; groups that are not
        named are wanted whole.
      limits: pairs of a cost and its limit, in (0, 1].
      multiple_of: numbers of channels are multiples of this, or the whole group.

    Returns:
      Group name to the number of channels kept, at least one (or one multiple).

    Raises:
      ValueError: if a limit is below the cost of the fewest channels, naming that.

    >>> import jax.numpy as jnp
    >>> from jaxprune import costs
    >>> from jaxprune.channels import trace_channels
    >>> def mlp(params, x):
    ...     return jnp.tanh(x @ params["w1"]) @ params["w2"]
    >>> params = {"w1": jnp.ones((3, 8)), "w2": jnp.ones((8, 2))}
    >>> graph = trace_channels(mlp, params, jnp.ones((1, 3)))
    >>> round_to_budget(graph, {"w1:1": 0.9}, [(costs.macs(graph), 0.7)])
    {'w1:1': 5}
    """
    sizes = {name: group.size for name, group in graph.groups.items()}
    unknown = keep_ratios.keys() - sizes.keys()
    if unknown:
        raise ValueError(
            f"`round_to_budget`: no group is called {sorted(unknown)}; the groups are "
            f"{list(sizes)}."
        )
    wanted = {name: float(keep_ratios.get(name, 1.0)) for name in sizes}
    for name, ratio in wanted.items():
        if not 0 <= ratio < math.inf:
            raise ValueError(
                f"`round_to_budget(keep_ratios=...)`: {ratio} of {name!r} must be "
                "finite and not negative. Look at the loss: a keep ratio that is not "
                "finite comes from a network that diverged."
            )
    least = {name: min(multiple_of, size) for name, size in sizes.items()}
    _check_reachable(sizes, least, limits)

    def rounded(factor: float) -> dict[str, int]:
        ratios = {n: min(max(factor * k, _TINY), 1.0) for n, k in wanted.items()}
        return channel_counts(graph, ratios, multiple_of=multiple_of)

    def fits(counts: Mapping[str, int]) -> bool:
        return _within({n: count / sizes[n] for n, count in counts.items()}, limits)

    counts = rounded(largest(lambda factor: fits(rounded(factor)), 0.0, _most(wanted)))
    counts = counts if fits(counts) else least
    full: set[str] = set()
    while len(full) < len(sizes):
        name = min(
            sizes.keys() - full,
            key=lambda n: (counts[n] / (sizes[n] * max(wanted[n], _TINY)), n),
        )
        more = {**counts, name: min(counts[name] + multiple_of, sizes[name])}
        if counts[name] < sizes[name] and fits(more):
            counts = more
        else:
            full.add(name)
    return {name: counts[name] for name in sizes}


def uniform_ratio(graph: ChannelGraph, limits: Limits) -> float:
    """The largest keep ratio that, given to every group, meets all limits.

    Args:
      graph: the channel graph.
      limits: pairs of a cost and its limit, in (0, 1].

    Raises:
      ValueError: if a limit is below the cost of one channel in every group.
    """
    sizes = {name: group.size for name, group in graph.groups.items()}
    _check_reachable(sizes, dict.fromkeys(sizes, 1), limits)

    return largest(lambda ratio: _within(dict.fromkeys(sizes, ratio), limits), 0.0, 1.0)


def largest(fits: Callable[[float], bool], low: float, high: float) -> float:
    """The largest number in [low, high] that fits, by bisection to 2^-20 of the range.

    Args:
      fits: a predicate that holds at `low` and stays false once it is.
      low: the least number.
      high: the largest number.
    """
    if fits(high):
        return high
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _most(wanted: Mapping[str, float]) -> float:
    """The factor at which every group is whole."""
    positive = [ratio for ratio in wanted.values() if ratio > 0]
    return 1 / min(positive, default=1.0)


def _within(ratios: Mapping[str, float], limits: Limits) -> bool:
    """Whether the costs meet their limits, to the rounding of sums of fractions."""
    for cost, limit in limits:
        value = cost(ratios)
        rounding = 1e-12 if isinstance(value, float) else 1e-6
        if not float(value) <= limit * (1 + rounding):
            return False
    return True


def _check_reachable(sizes, least, limits: Limits) -> None:
    ratios = {name: least[name] / sizes[name] for name in sizes}
    for i, (cost, limit) in enumerate(limits):
        if not 0 < limit <= 1 or not _within(ratios, [(cost, limit)]):
            raise ValueError(
                f"`limits[{i}]`: the limit {limit} must be between "
                f"{round_up(float(cost(ratios)))}, the smallest reachable cost (the "
                "fewest channels in every group), and 1, the dense cost."
            )
