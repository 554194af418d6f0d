"""What channels unstructured pruning has left in use.

Masks over single weights make a network sparse, not small. But a channel can go for
good if its weights are all zero on the side of its consumers, or of its producers:

    masks = live_channels(graph, pruned_params)
    small = graph.compact(masks, pruned_params)
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxprune.channels._flow.atoms import Axis
from jaxprune.channels._flow.checks import leaves_of
from jaxprune.channels._graph import ChannelGraph, Group, check_graph


def live_channels(graph: ChannelGraph, params: Any) -> dict[str, np.ndarray]:
    """Find the channels that pruned weights have left in use.

        live_c = any(w_rc != 0 for every r that reads c)

    A channel is dead, and can be removed exactly, if every weight that reads it is
    zero. Removing it may leave others without a consumer, so this is repeated until
    nothing changes. A channel that only its own zeros feed is dead too, if no bias or
    norm of it is left and what lies between maps zero to zero; one that still carries
    a constant stays, until `fold_constants` has moved the constant on. Where
    activations are multiplied or summed over a channel (queries and keys; norms, where
    the graph lets channels behind them go), it is dead if all weights on both sides are
    zero.

    Args:
      graph: the channel graph.
      params: the parameters that were traced, pruned.

    Returns:
      Channel masks for `compact`; of a group that is dead as a whole the first channel
      stays.

    Raises:
      ValueError: if names or shapes are not those that were traced.
    """
    check_graph("live_channels", graph)
    named = leaves_of(graph, params, "live_channels(graph, params)")
    weights = {name: np.array(leaf) for name, leaf in named.items()}
    flow = graph._traced.program.flow
    masks = {name: np.ones(group.size, bool) for name, group in graph.groups.items()}
    met = {name: meets_activations(graph, g) for name, g in graph.groups.items()}
    inexact = [axis for _, axis in (*flow.unmaskable, *flow.renormalised)]
    inexact += [route.axis for route in flow.routes]  # A logit of 0 is one.
    kept = {name for name, g in graph.groups.items() if _lies_on(graph, g, inexact)}
    changed = True
    while changed:
        changed = False
        for name, group in graph.groups.items():
            if name in kept:
                continue
            if met[name]:
                live = _read(group, weights) | _made(group, weights)
            else:
                live = _read(group, weights) & _fed(flow, graph, group, weights)
            live[0] |= not live.any()
            if (live < masks[name]).any():
                masks[name] &= live
                changed = True
                _clear(group, masks[name], weights)
    return masks


def meets_activations(graph: ChannelGraph, group: Group) -> bool:
    """Whether activations are multiplied, or summed, over the channels of a group."""
    products = graph._traced.program.flow.activation_products
    return _lies_on(graph, group, products)


def _lies_on(graph: ChannelGraph, group: Group, axes: Sequence[Axis]) -> bool:
    """Whether channels of a group lie on one of the axes."""
    atoms = graph._traced.program.flow.atoms
    return any(
        np.isin(atoms.resolve(axis), group._atoms).any()
        for axis in axes
        if isinstance(axis, np.ndarray)
    )


def _used(group: Group, weights, roles) -> np.ndarray:
    """Whether any weight of members with a role is not zero, for every channel."""
    used = np.zeros(group.size, bool)
    for member in group.members:
        if member.role in roles:
            array = weights[member.leaf]
            others = tuple(d for d in range(array.ndim) if d != member.axis)
            here = (member.channels >= 0) & (array != 0).any(axis=others)
            used[member.channels[here]] = True
    return used


def _read(group, weights) -> np.ndarray:
    return _used(group, weights, ("consumer", "both"))


def _fed(flow, graph, group, weights) -> np.ndarray:
    names = graph._traced.names
    nonzero = {(names[leaf], axis) for leaf, axis in flow.nonzero_reads}
    if any((m.leaf, m.axis) in nonzero for m in group.members):
        return np.ones(group.size, bool)
    return _made(group, weights)


def _made(group, weights) -> np.ndarray:
    return _used(group, weights, ("producer", "both", "member"))


def _clear(group, mask, weights) -> None:
    for member in group.members:
        gone = (member.channels >= 0) & ~mask[np.maximum(member.channels, 0)]
        array = np.moveaxis(weights[member.leaf], member.axis, 0)
        array[gone] = 0
