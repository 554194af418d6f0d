"""Which channels stay: how many of every group, and which."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxprune.channels._flow.checks import leaves_of
from jaxprune.channels._graph import ChannelGraph, Group
from jaxprune.masks._select import keep_count

KeepRatio = float | Mapping[str, Any]
"""The fraction kept of every group, or of each by name; groups not named stay whole."""


def channel_counts(
    graph: ChannelGraph, keep_ratio: KeepRatio, *, multiple_of: int = 1
) -> dict[str, int]:
    """Turns keep ratios into numbers of channels, rounded down to a multiple.

        count = m floor(floor(k n) / m),    at least min(m, n), and n if k = 1

    with k the keep ratio, n the size of the group and m `multiple_of`. Rounded down,
    so that a budget that the ratios meet is still met, save for groups that the least
    count enlarges. Vector units compute 8, 16 or 128 channels at a time, and what is
    left over costs them as much.

    Args:
      graph: the channel graph.
      keep_ratio: the fraction kept of every group, or of each by name, in (0, 1].
      multiple_of: what the counts are multiples of; a group that stays whole keeps its
        size, whatever it is.

    Returns:
      The number of channels kept, by group name.

    Raises:
      ValueError: if a ratio is outside (0, 1], a name is that of no group, or
        `multiple_of` is no whole number of at least 1.

    >>> import jax.numpy as jnp
    >>> from jaxprune.channels import trace_channels
    >>> params = {"w1": jnp.ones((3, 40)), "w2": jnp.ones((40, 2))}
    >>> mlp = lambda params, x: jnp.tanh(x @ params["w1"]) @ params["w2"]
    >>> graph = trace_channels(mlp, params, jnp.ones((1, 3)))
    >>> channel_counts(graph, 0.5), channel_counts(graph, 0.5, multiple_of=8)
    ({'w1:1': 20}, {'w1:1': 16})
    """
    whole = isinstance(multiple_of, int) and not isinstance(multiple_of, bool)
    if not whole or multiple_of < 1:
        raise ValueError(
            "`channel_counts(..., multiple_of=...)` must be a whole number, at least "
            f"1, got {multiple_of!r}. Pass 8, 16 or 128; 1 for no rounding."
        )
    if not isinstance(keep_ratio, Mapping):
        keep_ratio = dict.fromkeys(graph.groups, keep_ratio)
    unknown = keep_ratio.keys() - graph.groups.keys()
    if unknown:
        raise ValueError(
            f"`channel_counts(graph, keep_ratio)`: {sorted(unknown)} are no groups; "
            f"the groups are {list(graph.groups)}. Ratios must come from this graph."
        )
    counts = {}
    for name, group in graph.groups.items():
        ratio = keep_ratio.get(name, 1)
        count = keep_count(ratio, group.size)
        if abs(ratio * group.size - (count + 1)) < 1e-9 * group.size:
            count += 1  # 2/3 of three channels are two, though 0.666... is less.
        if count < group.size:
            least = min(multiple_of, group.size)
            count = max(least, count - count % multiple_of)
        counts[name] = count
    return counts


def random_channel_masks(
    key: jax.Array, graph: ChannelGraph, keep_ratio: KeepRatio, *, multiple_of: int = 1
) -> dict[str, np.ndarray]:
    """Keeps a random fraction of every group.

    Args:
      key: a typed PRNG key.
      graph: the channel graph.
      keep_ratio: as for `channel_counts`.
      multiple_of: as for `channel_counts`.
    """
    counts = channel_counts(graph, keep_ratio, multiple_of=multiple_of)
    keys = jax.random.split(key, max(len(graph.groups), 1))
    masks = {}
    for one, (name, group) in zip(keys, graph.groups.items(), strict=False):
        order = np.asarray(jax.random.permutation(one, group.size))
        masks[name] = order < counts[name]
    return masks


def largest_channels(
    graph: ChannelGraph, params: Any, keep_ratio: KeepRatio, *, multiple_of: int = 1
) -> dict[str, np.ndarray]:
    """Keeps the channels whose producers have the largest weights.

        importance_c = sum over producers of sum w[..., c, ...]^2

    Args:
      graph: the channel graph.
      params: the parameters that were traced.
      keep_ratio: as for `channel_counts`; ties are settled by position.
      multiple_of: as for `channel_counts`.

    Raises:
      ValueError: as `channel_counts`, and if names or shapes of the parameters are not
        those that were traced.
    """
    leaves = leaves_of(graph, params, "largest_channels(graph, params, ...)")
    masks = {}
    counts = channel_counts(graph, keep_ratio, multiple_of=multiple_of)
    for name, group in graph.groups.items():
        scores = channel_scores(group, leaves)
        masks[name] = np.zeros(group.size, bool)
        masks[name][np.argsort(-scores, kind="stable")[: counts[name]]] = True
    return masks


def channel_scores(group: Group, leaves: Mapping[str, Any]) -> np.ndarray:
    """Returns the sum of squares of the producers' weights of every channel.

    If nothing produces the channels, all members count. Float64, shape (channels,).
    """
    chosen = [m for m in group.members if m.role in ("producer", "both")]
    scores = np.zeros(group.size)
    for member in chosen or group.members:
        weights = np.square(np.asarray(leaves[member.leaf], np.float64))
        others = tuple(d for d in range(weights.ndim) if d != member.axis)
        here = member.channels >= 0
        np.add.at(scores, member.channels[here], weights.sum(axis=others)[here])
    return scores
