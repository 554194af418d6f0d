"""Which channels stay: how many of every group, and which.

Every choice of this library ends here: keep ratios become numbers of channels
(`channel_counts`), and numbers of channels with importances become channel masks
(`important_channels`), for `graph.compact`.

    counts = channel_counts(graph, 0.5, multiple_of=8)
    masks = important_channels(graph, filter_norms(graph)(params), counts)
    small = graph.compact(masks, params)

Groups that are left out of a choice, or have a keep ratio of their own, are given by
patterns everywhere: `fixed={"*/head/*": 1.0, "stem/kernel:3": 0.5}`. The role of groups
stands for all of them, in patterns and in keep ratios: `{"heads": 0.75, "mlp": 0.5}`.
"""

import math
import numbers
from collections.abc import Mapping
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jaxprune.base._checks import check_key
from jaxprune.channels._flow.checks import leaves_of
from jaxprune.channels._graph import ChannelGraph, Group, check_graph
from jaxprune.masks._counts import exact_count, keep_count
from jaxprune.tree._names import matched, near

KeepRatio = float | Mapping[str, Any]
"""The fraction kept of every group, or by name or role; others keep all channels."""

Fixed = Mapping[str, float]
"""Roles, or patterns of group names, to keep ratios; the first that matches counts."""


def check_groups(call: str, graph: ChannelGraph) -> None:
    """Refuse a graph of which nothing can be removed, and what is no graph."""
    check_graph(call, graph)
    if not graph.groups:
        raise ValueError(
            f"`{call}(graph)`: the graph must have a group of channels, and has none. "
            "`print(graph)` says for each axis why its channels must stay; a function "
            "that also returns its features pins them, for instance."
        )


def check_known(call: str, graph: ChannelGraph, names: Any) -> None:
    """Refuse names that are not those of groups."""
    for name in names:
        if name not in graph.groups:
            raise ValueError(
                f"`{call}`: {name!r} must be the name of a group, or a role where "
                f"ratios are given. {near(str(name), [*graph.roles, *graph.groups])}"
            )


def ratios_by_name(
    call: str, graph: ChannelGraph, ratios: Mapping[str, Any]
) -> dict[str, Any]:
    """Return by group name what is given by name or by role; a name counts first.

    Raises:
      ValueError: if a key is neither the name nor the role of a group.
    """
    roles = graph.roles
    check_known(call, graph, [key for key in ratios if key not in roles])
    found = {key: ratio for key, ratio in ratios.items() if key not in roles}
    for role in ratios.keys() & roles.keys():
        found = {**dict.fromkeys(roles[role], ratios[role]), **found}
    return found


def fixed_ratios(
    call: str, graph: ChannelGraph, fixed: Fixed | None
) -> dict[str, float]:
    """Return the keep ratios that are given by pattern, by group name.

    Args:
      call: the public function that was called, for messages.
      graph: the channel graph.
      fixed: roles, patterns as of `fnmatch`, or names; the first that matches a group
        counts.

    Raises:
      ValueError: if a pattern matches no group, or a ratio is outside (0, 1].
    """
    found: dict[str, float] = {}
    for pattern, ratio in (fixed or {}).items():
        if not isinstance(ratio, numbers.Real) or not 0 < ratio <= 1:
            raise ValueError(
                f"`{call}(fixed={{{pattern!r}: {ratio!r}}})`: must be a keep ratio in "
                "(0, 1]; 1.0 keeps all of its channels."
            )
        names = graph.roles.get(pattern) or matched(pattern, graph.groups)
        if not names:
            raise ValueError(
                f"`{call}(fixed={{{pattern!r}: ...}})`: the pattern must match a "
                "group, or be a role; it matches none. "
                + near(pattern, [*graph.roles, *graph.groups])
            )
        for name in names:
            found.setdefault(name, float(ratio))
    return found


def units(graph: ChannelGraph, multiple_of: int) -> dict[str, int]:
    """Return what the number of channels of each group must be a multiple of.

    Hardware computes rows of products. A channel of a group may be several of them: a
    block of a group normalisation, or a head with all its features. With r rows for
    each channel at one weight, whole multiples of m rows are whole multiples of

        m / gcd(m, r)

    channels; of several weights the least common multiple counts. Where an axis holds
    channels of several groups (heads and features), r is the number of neighbours that
    belong to one channel, so that the product of both numbers is right as well.
    """
    flow, names = graph._traced.program.flow, graph._traced.names
    number = {name: i for i, name in enumerate(names)}
    shared: dict[tuple[str, int], int] = {}
    for group in graph.groups.values():
        for member in group.members:
            place = member.leaf, member.axis
            shared[place] = shared.get(place, 0) + 1
    found = {}
    for name, group in graph.groups.items():
        steps = [1]
        products = [m for m in group.members if m.role != "member"] or group.members
        for member in products:
            alone = shared[member.leaf, member.axis] == 1
            rows = _neighbours(member.channels, alone)
            # Axes that one product makes, or reads, side by side are rows of one axis.
            leaf, shape = number[member.leaf], graph.leaves[member.leaf].shape
            made = (leaf, member.axis) in flow.producers
            sides = flow.producers if made else flow.consumers
            for axis in range(member.axis + 1, len(shape)):
                rows *= shape[axis] if (leaf, axis) in sides else 1
            steps.append(multiple_of // math.gcd(multiple_of, rows))
        found[name] = min(math.lcm(*steps), group.size)
    return found


def _neighbours(channels: np.ndarray, alone: bool) -> int:
    """Return how many rows of an axis one channel has."""
    if alone:
        here = channels[channels >= 0]
        return len(here) // (int(here.max()) + 1)
    runs = np.split(channels, np.flatnonzero(np.diff(channels)) + 1)
    return min(len(run) for run in runs if run[0] >= 0)


def channel_counts(
    graph: ChannelGraph,
    keep_ratio: KeepRatio,
    *,
    multiple_of: int = 1,
    fixed: Fixed | None = None,
) -> dict[str, int]:
    """Return the number of channels kept of every group, rounded down to a multiple.

        count = u floor(floor(k n) / u),    at least u, and n if k = 1

    with k the keep ratio, n the size of the group and u the number of channels that
    make up `multiple_of` rows (the group itself if it has fewer). Of experts as many
    stay as a router chooses (`group.fewest`). Rounded down, so that
    a limit that the ratios meet is still met, save for groups that the minimum
    enlarges.

    Args:
      graph: the channel graph.
      keep_ratio: the fraction kept of every group, or of each by name or by role, in
        (0, 1]; a name counts before a role. Heads and their features multiply: half of
        both leave a quarter of the weights between them. `round_to_limits` finds counts
        of a given cost.
      multiple_of: the number of rows of a weight that counts are rounded to. Vector
        units compute 8, 16 or 128 channels at a time, and what is left over costs them
        as much. A channel that is several rows (a block of a group normalisation, a
        head of attention) counts as these. A group that keeps all channels
        keeps its size.
      fixed: roles, or patterns of group names, to keep ratios in (0, 1] that count
        instead.

    Returns:
      The number of channels kept, by group name.

    Raises:
      ValueError: if the graph has no groups, a ratio is outside (0, 1], a name or a
        pattern is that of no group, or `multiple_of` is no whole number of at least 1.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxprune.channels import trace_channels
      >>> params = {"w1": jnp.ones((3, 40)), "w2": jnp.ones((40, 2))}
      >>> mlp = lambda params, x: jnp.tanh(x @ params["w1"]) @ params["w2"]
      >>> graph = trace_channels(mlp, params, jnp.ones((1, 3)))
      >>> channel_counts(graph, 0.5), channel_counts(graph, 0.5, multiple_of=8)
      ({'w1:1': 20}, {'w1:1': 16})
      >>> channel_counts(graph, {"mlp": 0.25})
      {'w1:1': 10}
    """
    return counts_of("channel_counts", graph, keep_ratio, multiple_of, fixed)


def counts_of(
    call: str,
    graph: ChannelGraph,
    keep_ratio: KeepRatio,
    multiple_of: int,
    fixed: Fixed | None,
) -> dict[str, int]:
    """Return `channel_counts`, with messages of another function."""
    check_groups(call, graph)
    whole = isinstance(multiple_of, int) and not isinstance(multiple_of, bool)
    if not whole or multiple_of < 1:
        raise ValueError(
            f"`{call}(..., multiple_of={multiple_of!r})`: must be a whole number, at "
            "least 1. Pass 8, 16 or 128; 1 for no rounding."
        )
    if not isinstance(keep_ratio, Mapping):
        keep_ratio = dict.fromkeys(graph.groups, keep_ratio)
    given = ratios_by_name(f"{call}(graph, keep_ratio)", graph, keep_ratio)
    ratios = {**given, **fixed_ratios(call, graph, fixed)}
    for ratio in ratios.values():
        exact_count(call, ratio, 1)
    steps = units(graph, multiple_of)
    return {
        name: rounded_down(ratios.get(name, 1), group, steps[name])
        for name, group in graph.groups.items()
    }


def rounded_down(ratio: Any, group: Group, step: int) -> int:
    """Return the largest number of channels, a multiple or all, within a ratio.

    At least one multiple stays, and as many as the group needs.
    """
    size = group.size
    count = keep_count(ratio, size)
    if abs(ratio * size - (count + 1)) < 1e-9 * size:
        count += 1  # 2/3 of three channels are two, though 0.666... is less.
    least = min(math.ceil(group.fewest / step) * step, size)
    return count if count == size else max(least, count - count % step)


def random_channel_masks(
    key: jax.Array,
    graph: ChannelGraph,
    keep_ratio: KeepRatio,
    *,
    multiple_of: int = 1,
    fixed: Fixed | None = None,
) -> dict[str, np.ndarray]:
    """Return channel masks that keep a random fraction of every group.

        mask = one of all masks of `channel_counts` channels, each equally likely

    Args:
      key: a typed PRNG key, shape ().
      graph: the channel graph.
      keep_ratio: as for `channel_counts`.
      multiple_of: as for `channel_counts`.
      fixed: as for `channel_counts`.

    Returns:
      Group name to bool, shape (channels,).

    Raises:
      ValueError: as `channel_counts`.

    Examples:
      >>> from jaxprune.channels import trace_channels
      >>> params = {"w1": jnp.ones((3, 8)), "w2": jnp.ones((8, 2))}
      >>> mlp = lambda params, x: jnp.tanh(x @ params["w1"]) @ params["w2"]
      >>> graph = trace_channels(mlp, params, jnp.ones((1, 3)))
      >>> masks = random_channel_masks(jax.random.key(0), graph, 0.5)
      >>> int(masks["w1:1"].sum())
      4
    """
    counts = counts_of("random_channel_masks", graph, keep_ratio, multiple_of, fixed)
    check_key("random_channel_masks", key)
    # One draw for all groups: the draw is compiled once, not for every size.
    ends = np.cumsum([group.size for group in graph.groups.values()])
    drawn = np.split(np.asarray(_bits(key, (int(ends[-1]),))), ends[:-1])
    ranks = (np.argsort(np.argsort(bits, kind="stable")) for bits in drawn)
    return {n: rank < counts[n] for n, rank in zip(graph.groups, ranks, strict=True)}


def important_channels(
    graph: ChannelGraph, scores: Mapping[str, Any], counts: Mapping[str, Any]
) -> dict[str, Any]:
    """Return channel masks that keep the most important channels of each group.

        mask_c = True for the count_g channels of the largest score, ties by position

    Args:
      graph: the channel graph.
      scores: group name to importances, shape (channels,), any real dtype; what an
        `Importance` of `jaxprune.channels` returns, for instance.
      counts: group name to the number of channels kept, from 1 to the size of the
        group. Groups that are not named get no mask: they keep all channels.

    Returns:
      Group name to bool, shape (channels,), for `graph.compact`: NumPy arrays; where
      scores or counts are traced by `jit`, JAX arrays, and NaN then comes last.

    Raises:
      ValueError: if the graph has no groups, a name is that of no group, a group of
        `counts` has no scores, scores have another shape or are NaN, or a count is out
        of range.

    Examples:
      >>> from jaxprune.channels import trace_channels
      >>> params = {"w1": jnp.ones((3, 4)), "w2": jnp.ones((4, 2))}
      >>> mlp = lambda params, x: jnp.tanh(x @ params["w1"]) @ params["w2"]
      >>> graph = trace_channels(mlp, params, jnp.ones((1, 3)))
      >>> scores = {"w1:1": jnp.array([0.1, 3.0, 0.2, 0.2])}
      >>> important_channels(graph, scores, {"w1:1": 2})["w1:1"].tolist()
      [False, True, True, False]
    """
    call = "important_channels"
    check_groups(call, graph)
    check_known(f"{call}(graph, scores, counts)", graph, counts)
    check_known(f"{call}(graph, scores, counts)", graph, scores)
    return {
        name: _most_important_of(call, graph.groups[name], scores.get(name), count)
        for name, count in counts.items()
    }


def _most_important_of(call: str, group: Group, scores, count):
    if scores is None or np.shape(scores) != (group.size,):
        raise ValueError(
            f"`{call}(graph, scores, counts)`: the scores of group {group.name!r} must "
            f"have shape ({group.size},), one for each channel, got "
            f"{None if scores is None else np.shape(scores)}. `filter_norms(graph)` "
            "makes such scores of the parameters."
        )
    if isinstance(scores, jax.core.Tracer) or isinstance(count, jax.core.Tracer):
        return most_important(jnp.asarray(scores), count)
    scores = np.asarray(scores).astype(np.float64)
    if np.isnan(scores).any():
        raise ValueError(
            f"`{call}(graph, scores, counts)`: scores must be numbers, those of group "
            f"{group.name!r} are NaN at channels "
            f"{np.flatnonzero(np.isnan(scores)).tolist()}. The weights they come from "
            "are probably NaN: look at the loss."
        )
    whole = np.ndim(count) == 0 and np.issubdtype(np.asarray(count).dtype, np.integer)
    if not whole or not group.fewest <= count <= group.size:
        raise ValueError(
            f"`{call}(graph, scores, counts)`: the count of group {group.name!r} must "
            f"be a whole number from {group.fewest} to {group.size}, got {count!r}. "
            "`channel_counts` turns keep ratios into counts."
        )
    return most_important(scores, count, xp=np)


def most_important(importance, count, valid=None, *, xp: Any = jnp):
    """Mark the `count` most important channels of every group, in any namespace.

    Args:
      importance: floating, shape (..., C); ties are settled by position, NaN comes
        last.
      count: integer, shape (...,).
      valid: bool, shape (..., C): False marks padding, which is never kept.
      xp: `jax.numpy` or `numpy`.

    Returns:
      bool, shape (..., C).
    """
    here = xp.ones(importance.shape, bool) if valid is None else valid
    order = xp.argsort(xp.where(here, -importance, xp.inf), axis=-1, stable=True)
    position = xp.argsort(order, axis=-1)
    return (position < xp.asarray(count)[..., None]) & here


def largest_channels(
    graph: ChannelGraph,
    params: Any,
    keep_ratio: KeepRatio,
    *,
    multiple_of: int = 1,
    fixed: Fixed | None = None,
) -> dict[str, Any]:
    """Return channel masks that keep the channels with the largest weights.

        importance_c = sum over producers of sum w[..., c, ...]^2

    If nothing produces the channels, all members count.

    Args:
      graph: the channel graph.
      params: the parameters that were traced.
      keep_ratio: as for `channel_counts`; ties are settled by position.
      multiple_of: as for `channel_counts`.
      fixed: as for `channel_counts`.

    Returns:
      Group name to bool, shape (channels,), for `graph.compact`.

    Raises:
      ValueError: as `channel_counts`, if names or shapes of the parameters are not
        those that were traced, and if a weight is NaN.

    Examples:
      >>> from jaxprune.channels import trace_channels
      >>> params = {"w1": jnp.array([[1.0, -3.0, 2.0]]), "w2": jnp.ones((3, 2))}
      >>> mlp = lambda params, x: jnp.tanh(x @ params["w1"]) @ params["w2"]
      >>> graph = trace_channels(mlp, params, jnp.ones((1, 1)))
      >>> largest_channels(graph, params, 0.67)["w1:1"].tolist()
      [False, True, True]
    """
    call = "largest_channels"
    counts = counts_of(call, graph, keep_ratio, multiple_of, fixed)
    leaves = leaves_of(graph, params, "largest_channels(graph, params, ...)")
    return {
        name: _most_important_of(call, group, _squares(group, leaves), counts[name])
        for name, group in graph.groups.items()
    }


def _squares(group: Group, leaves: Mapping[str, Any]) -> np.ndarray:
    """Return the sum of squares of the weights that make each channel, float64."""
    return np.sum(
        [
            m.sums(np.square(np.asarray(leaves[m.leaf], np.float64)))
            for m in group.makers
        ],
        axis=0,
    )


_bits = jax.jit(jax.random.bits, static_argnums=1)
