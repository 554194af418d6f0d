"""From keep ratios to numbers of channels that meet limits exactly.

Keep ratios are numbers between 0 and 1, channels are whole. Rounded one by one they may
cost a little more than the limit, or a lot less; `round_to_limits` rounds all of them
together.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxprune.base._checks import check_concrete, round_up
from jaxprune.base._protocols import Cost, Limit
from jaxprune.channels._counts import (
    Fixed,
    check_groups,
    counts_of,
    fixed_ratios,
    ratios_by_name,
    rounded_down,
    units,
)
from jaxprune.channels._graph import ChannelGraph, check_graph

_END = 2**31 - 1  # a step at which every schedule has ended
_TINY = 1e-9  # a keep ratio must be positive; one channel stays anyway

Limits = Limit | Sequence[Limit]
"""One limit on a cost, or several that must all be met."""


def round_to_limits(
    graph: ChannelGraph,
    keep_ratios: Mapping[str, float],
    limits: Limits,
    *,
    multiple_of: int = 1,
    fixed: Fixed | None = None,
) -> dict[str, int]:
    """Return numbers of channels, near given keep ratios, whose costs meet all limits.

    The ratios are scaled by one factor, the largest at which rounding down still meets
    the limits; then channels are added back, always in the group whose count is the
    smallest fraction of its own target, while they fit. The result costs no more than
    the limits, and no channel of any group could be added without exceeding one.

        counts_g = channel_counts(f k_g) + what still fits,  f the largest that fits

    Args:
      graph: the channel graph.
      keep_ratios: group name or role to the target fraction, in [0, 1]; groups that are
        not named have the target 1.
      limits: one `Limit`, or a sequence of them; `at_most` a number in (0, 1].
      multiple_of: as for `channel_counts`.
      fixed: roles, or patterns of group names, to keep ratios in (0, 1]: the counts of
        these groups are those of `channel_counts`, and the others meet the limits.

    Returns:
      Group name to the number of channels kept, at least one (or one multiple).

    Raises:
      ValueError: if the graph has no groups, a name or a pattern is that of no group, a
        ratio is negative or not finite, or a limit is below the cost of the fewest
        channels, naming that cost.
      TypeError: if the limit is a schedule, or `limits` holds something else than
        `Limit` values.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxprune import costs
      >>> from jaxprune.base import Limit
      >>> from jaxprune.channels import trace_channels
      >>> def mlp(params, x):
      ...     return jnp.tanh(x @ params["w1"]) @ params["w2"]
      >>> params = {"w1": jnp.ones((3, 8)), "w2": jnp.ones((8, 2))}
      >>> graph = trace_channels(mlp, params, jnp.ones((1, 3)))
      >>> round_to_limits(graph, {"w1:1": 0.9}, Limit(costs.macs(graph), 0.7))
      {'w1:1': 5}
    """
    check_graph("round_to_limits", graph)
    call = "round_to_limits"
    fewest = _fewest(call, graph, multiple_of, fixed)
    wanted = _targets(call, graph, keep_ratios)
    bounds = _bounds(call, graph, limits, fewest)
    sizes, steps = _sizes(graph), units(graph, multiple_of)
    free = [name for name in sizes if name not in fixed_ratios(call, graph, fixed)]

    def rounded(factor: float) -> dict[str, int]:
        scaled = {n: min(max(factor * wanted[n], _TINY), 1.0) for n in free}
        groups = graph.groups
        counts = {n: rounded_down(scaled[n], groups[n], steps[n]) for n in free}
        return {**fewest, **counts}

    def fits(counts: Mapping[str, int]) -> bool:
        return within({n: count / sizes[n] for n, count in counts.items()}, bounds)

    most = _most({name: wanted[name] for name in free})
    counts = rounded(largest(lambda factor: fits(rounded(factor)), 0.0, most))
    counts = counts if fits(counts) else fewest
    return _filled(counts, sizes, steps, wanted, free, fits)


def _filled(counts, sizes, steps, wanted, free, fits) -> dict[str, int]:
    """Add channels while they fit, where most is missing of the target."""
    growing = set(free)
    while growing:
        name = min(
            growing,
            key=lambda n: (counts[n] / (sizes[n] * max(wanted[n], _TINY)), n),
        )
        more = {**counts, name: min(counts[name] + steps[name], sizes[name])}
        if counts[name] < sizes[name] and fits(more):
            counts = more
        else:
            growing.remove(name)
    return {name: counts[name] for name in sizes}


def uniform_ratio(
    graph: ChannelGraph, limits: Limits, *, fixed: Fixed | None = None
) -> float:
    """Return the largest keep ratio that, given to every group, meets all limits.

        max k  such that  cost_i(k, ..., k) <= at_most_i  for all i

    Of experts as many count as stay at least, where that is more.

    Args:
      graph: the channel graph.
      limits: one `Limit`, or a sequence of them; `at_most` a number in (0, 1].
      fixed: roles, or patterns of group names, to keep ratios in (0, 1] that these
        groups have instead; hand it to `channel_counts` or `largest_channels` too.

    Returns:
      The keep ratio, in (0, 1], to 2^-20.

    Raises:
      ValueError: if the graph has no groups, a pattern is that of no group, or a limit
        is below the cost of one channel in every group.
      TypeError: as `round_to_limits`.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxprune import costs
      >>> from jaxprune.base import Limit
      >>> from jaxprune.channels import trace_channels
      >>> mlp = lambda params, x: jnp.tanh(x @ params["w1"]) @ params["w2"]
      >>> params = {"w1": jnp.ones((3, 8)), "w2": jnp.ones((8, 2))}
      >>> graph = trace_channels(mlp, params, jnp.ones((1, 3)))
      >>> round(uniform_ratio(graph, Limit(costs.macs(graph), 0.5)), 3)
      0.5
    """
    call = "uniform_ratio"
    check_groups(call, graph)
    given = fixed_ratios(call, graph, fixed)
    bounds = _bounds(call, graph, limits, _fewest(call, graph, 1, fixed))

    needed = {n: g.fewest / g.size for n, g in graph.groups.items() if g.fewest > 1}

    def fits(ratio: float) -> bool:
        ratios = dict.fromkeys(graph.groups, ratio)
        ratios |= {name: max(ratio, least) for name, least in needed.items()}
        return within({**ratios, **given}, bounds)

    return largest(fits, 0.0, 1.0)


def important_layers(
    graph: ChannelGraph,
    scores: Mapping[str, Any],
    limits: Limits,
    *,
    keep_ratios: Mapping[str, float] | None = None,
) -> dict[str, np.ndarray]:
    """Return block masks without the least important layers, as many as limits ask for.

        mask_l = False for the layers l of smallest score, over all blocks together,
        as few as meet cost(keep ratios, fractions of layers left) <= at_most

    Args:
      graph: the channel graph.
      scores: by the name of a block its importances, shape (layers,), any real dtype;
        the magnitudes of the gradients of a loss in the gates of `graph.gated`, for
        instance. Blocks that are not named keep all layers.
      limits: one `Limit`, or a sequence of them, on costs that count blocks, as
        `costs.macs(graph, blocks=True)`; `at_most` a number in (0, 1].
      keep_ratios: the fractions of channels at which the costs are taken; all channels
        if not given.

    Returns:
      The name of each block in `scores` to bool, shape (layers,), for `graph.compact`.

    Raises:
      ValueError: if a name is that of no block, scores have another shape or are not
        finite, or the limits are not met without all of these layers.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxprune import costs
      >>> from jaxprune.base import Limit
      >>> from jaxprune.channels import trace_channels
      >>> def network(params, x):
      ...     x = x + x @ params["a"]
      ...     return (x + x @ params["b"]) @ params["c"]
      >>> params = dict.fromkeys("abc", jnp.ones((2, 2)))
      >>> graph = trace_channels(network, params, jnp.ones((1, 2)))
      >>> scores = {"a:block": jnp.array([1.0]), "b:block": jnp.array([3.0])}
      >>> limit = Limit(costs.macs(graph, blocks=True), 0.7)
      >>> important_layers(graph, scores, limit)
      {'a:block': array([False]), 'b:block': array([ True])}
    """
    call = "important_layers"
    check_graph(call, graph)
    ranked = _ranked_layers(call, graph, scores)
    masks = {name: np.ones(graph.blocks[name].layers, bool) for name in scores}
    several = isinstance(limits, Iterable) and not isinstance(limits, Limit)
    given: Any = limits if several else [limits]
    bounds = [(limit.cost, final_bound(limit)) for limit in given]
    ratios = dict(keep_ratios or {})
    for name, layer in [*ranked, (None, 0)]:
        left = {n: float(mask.mean()) for n, mask in masks.items()}
        if within({**ratios, **left}, bounds):
            return masks
        if name is not None:
            masks[name][layer] = False
    costs = [float(cost({**ratios, **left})) for cost, _ in bounds]
    raise ValueError(
        f"`{call}(graph, scores, limits)`: the limits {[most for _, most in bounds]} "
        f"must be at least the costs without any of these layers, {costs}. Raise them, "
        "name more blocks, or remove channels first and pass their `keep_ratios`."
    )


def _ranked_layers(call: str, graph, scores) -> list[tuple[str, int]]:
    """Return blocks and layers, the least important ones first."""
    ranked = []
    for place, (name, score) in enumerate(scores.items()):
        if name not in graph.blocks:
            raise ValueError(
                f"`{call}(graph, scores, limits)`: {name!r} must be the name of a "
                f"block. Pass scores of some of {list(graph.blocks)}."
            )
        values = np.asarray(score).astype(np.float64)
        shape = (graph.blocks[name].layers,)
        if values.shape != shape or not np.isfinite(values).all():
            raise ValueError(
                f"`{call}(graph, scores, limits)`: the scores of block {name!r} must "
                f"be finite, of shape {shape}, got {values.tolist()}. Pass one number "
                "for each layer."
            )
        ranked += [(value, place, i, name) for i, value in enumerate(values.tolist())]
    return [(name, layer) for _, _, layer, name in sorted(ranked)]


def largest(fits: Callable[[float], bool], low: float, high: float) -> float:
    """Return the largest number that fits, by bisection to 2^-20 of the range.

    Args:
      fits: a predicate that holds at `low` and stays false once it is.
      low: the smallest number.
      high: the largest number.
    """
    if fits(high):
        return high
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _sizes(graph: ChannelGraph) -> dict[str, int]:
    return {name: group.size for name, group in graph.groups.items()}


def _fewest(call, graph, multiple_of, fixed) -> dict[str, int]:
    """Return the fewest channels of every group; of fixed groups their counts."""
    return counts_of(call, graph, _TINY, multiple_of, fixed)


def _targets(call, graph, keep_ratios: Mapping[str, float]) -> dict[str, float]:
    check_concrete(f"{call}(graph, keep_ratios)", keep_ratios)
    given = ratios_by_name(f"{call}(graph, keep_ratios)", graph, keep_ratios)
    targets = {name: float(given.get(name, 1.0)) for name in graph.groups}
    for name, ratio in targets.items():
        if not 0 <= ratio < math.inf:
            raise ValueError(
                f"`{call}(keep_ratios={{{name!r}: {ratio}}})`: must be finite and not "
                "negative. Look at the loss: a keep ratio that is not finite comes "
                "from a network that diverged."
            )
    return targets


def final_bound(limit: Limit) -> float:
    """Return the bound at which the schedule of a limit ends."""
    bound: Any = limit.at_most
    value: Any = bound(jnp.int32(_END)) if callable(bound) else bound
    return float(value)


def check_limits(
    call: str, graph: ChannelGraph, limits: Limits, fixed: Fixed | None
) -> tuple[Limit, ...]:
    """Return limits as a tuple; refuse those that no network of the graph meets."""
    several = isinstance(limits, Iterable) and not isinstance(limits, Limit)
    given: Any = tuple(limits) if several else (limits,)
    if not given:
        raise ValueError(
            f"`{call}(limits={limits!r})`: must be a limit or several. Pass "
            "`at_most(costs.macs(graph), 0.5)`."
        )
    ends = [
        x._replace(at_most=final_bound(x)) if isinstance(x, Limit) else x for x in given
    ]
    _bounds(call, graph, ends, _fewest(call, graph, 1, fixed))
    return given


def _bounds(call, graph, limits: Limits, fewest) -> list[tuple[Cost, float]]:
    """Return costs with their bounds; refuse those that cannot be met."""
    check_concrete(f"{call}(limits)", limits)
    ratios = {n: count / graph.groups[n].size for n, count in fewest.items()}
    bounds = []
    several = isinstance(limits, Iterable) and not isinstance(limits, Limit)
    for i, limit in enumerate(limits if several else [limits]):
        if not isinstance(limit, Limit):
            raise TypeError(
                f"`{call}(limits)`: limits[{i}] must be a `Limit`, got {limit!r}. "
                "`at_most(cost, 0.5)` makes one."
            )
        where = f"`{call}(limits)`: `at_most` of {limit.name!r}"
        if callable(limit.at_most):
            raise TypeError(
                f"{where} must be a number, channels are counted once; got the "
                f"schedule {limit.at_most!r}. Pass its last value, as in "
                "`limit._replace(at_most=limit.at_most(last_step))`."
            )
        most = float(limit.at_most)
        if not 0 < most <= 1 or not within(ratios, [(limit.cost, most)]):
            raise ValueError(
                f"{where}, {most}, must be between "
                f"{round_up(float(limit.cost(ratios)))}, the smallest reachable cost "
                "(the fewest channels in every group), and 1, the dense cost. Raise "
                "the limit."
            )
        bounds.append((limit.cost, most))
    return bounds


def _most(targets: Mapping[str, float]) -> float:
    """Return the factor at which every group is whole."""
    positive = [ratio for ratio in targets.values() if ratio > 0]
    return 1 / min(positive, default=1.0)


def within(ratios: Mapping[str, float], bounds: Sequence[tuple[Cost, float]]) -> bool:
    """Return whether costs meet their bounds, to the rounding of sums of fractions."""
    for cost, most in bounds:
        value = cost(ratios)
        rounding = 1e-12 if isinstance(value, float) else 1e-6
        # A comparison with NaN is false: an undefined cost meets no bound.
        if not float(value) <= most * (1 + rounding):
            return False
    return True
