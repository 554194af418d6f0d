"""Masks over channels: made, read off masks over weights, and turned into such.

A *channel mask* is a bool array of shape (channels,), True for kept; *channel masks*
are a dictionary of them by group name. A *mask tree* has the parameters' structure.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxprune import tree as jtree
from jaxprune.base._checks import check_concrete
from jaxprune.base._final import Final
from jaxprune.base._protocols import Masks
from jaxprune.channels._blocks import Block
from jaxprune.channels._flow.checks import leaves_of
from jaxprune.channels._gates import gate_masks, plan_gates
from jaxprune.channels._graph import ChannelGraph, Group, check_graph


def channel_masks(
    graph: ChannelGraph, masks: Mapping[str, Any] | Masks
) -> dict[str, np.ndarray]:
    """Return channel masks, given as such or read off a mask tree.

    Of a mask tree, an index of an axis counts as removed if everything there is False.
    A channel is removed if some members say so; members that remove nothing of the
    group have no say, so masking only producers, or only consumers, is enough.

    Args:
      graph: the channel graph.
      masks: channel masks by group name, or a tree of bool arrays of the structure of
        the parameters, each of its parameter's shape, broadcastable to it, or `()`.

    Returns:
      Channel masks, checked; groups that stay whole may be missing.

    Raises:
      TypeError: if a mask is not boolean.
      ValueError: if a group or a leaf is unknown or of another size, if a whole group
        is removed, if members of one group disagree, or if what is pinned is removed.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxprune.channels import trace_channels
      >>> mlp = lambda params, x: jnp.tanh(x @ params["w1"]) @ params["w2"]
      >>> params = {"w1": jnp.array([[1.0, -3.0]]), "w2": jnp.array([[2.0], [1.0]])}
      >>> graph = trace_channels(mlp, params, jnp.ones((1, 1)))
      >>> left = np.array([[True, False]])
      >>> channel_masks(graph, {"w1": left, "w2": np.True_})["w1:1"].tolist()
      [True, False]
    """
    return read_masks("channel_masks", graph, masks)


def read_masks(
    call: str, graph: ChannelGraph, masks: Mapping[str, Any] | Masks
) -> dict[str, np.ndarray]:
    """As `channel_masks`, with messages that begin with the function called."""
    check_graph(call, graph)
    if isinstance(masks, Final):
        raise TypeError(
            f"`{call}(masks)`: must be masks, got a `Final`. Pass its `masks`."
        )
    check_concrete(f"{call}(masks)", masks)
    by_name = is_by_name(graph, masks)
    if not by_name and isinstance(masks, Mapping) and not _is_tree(graph, masks):
        unknown = sorted(set(map(str, masks)) - set(graph.groups))
        raise ValueError(
            f"`{call}(masks)`: must be channel masks by group name, or the tree of "
            f"parameters; {unknown} is neither. Groups: {list(graph.groups)}; blocks: "
            f"{list(graph.blocks)}."
        )
    read = dict(masks) if by_name else _from_tree(call, graph, masks)
    return {
        name: _checked(call, graph.groups[name], mask)
        if name in graph.groups
        else _checked_block(call, graph.blocks[name], mask)
        for name, mask in read.items()
    }


def is_by_name(graph: ChannelGraph, masks: Any) -> bool:
    """Return whether masks are by the names of groups and blocks, and no mask tree."""
    if not isinstance(masks, Mapping):
        return False
    others = masks.keys() - graph.groups.keys()
    named = all(isinstance(name, str) and ":block" in name for name in others)
    return named and (not others or others <= graph.blocks.keys())


def _checked_block(call: str, block: Block, mask) -> np.ndarray:
    mask = np.asarray(mask)
    if mask.dtype != np.bool_ or mask.shape != (block.layers,):
        raise ValueError(
            f"`{call}(masks)`: the mask of block {block.name!r} must be boolean, of "
            f"shape {(block.layers,)}, True for layers that stay, got {mask.dtype} of "
            f"shape {mask.shape}. Compare with zero, as in `gates != 0`."
        )
    return mask


def _is_tree(graph, masks) -> bool:
    return jtree.named_leaves(masks).keys() == graph.leaves.keys()


def _checked(call: str, group: Group, mask) -> np.ndarray:
    mask = np.asarray(mask)
    first = group.members[0]
    place = f"the mask of group {group.name!r} ({first.leaf!r}, axis {first.axis})"
    if mask.dtype != np.bool_:
        raise TypeError(
            f"`{call}(masks)`: {place} must be boolean, True for kept, "
            f"got {mask.dtype}. Compare with zero, as in `mask != 0`."
        )
    if mask.shape != (group.size,):
        raise ValueError(
            f"`{call}(masks)`: {place} must have shape {(group.size,)}, one "
            f"entry for each channel, got {mask.shape}. Make masks of this graph, with "
            "`largest_channels` for instance."
        )
    if mask.sum() < group.fewest > 1:
        raise ValueError(
            f"`{call}(masks)`: {place} must keep at least {group.fewest} experts, as "
            f"many as the router chooses, got {mask.sum()}. Keep more of them; "
            "`group.fewest` says how many."
        )
    if not mask.any():
        raise ValueError(
            f"`{call}(masks)`: {place} removes all of it, and nothing would "
            "be left to compute with. Keep at least one channel."
        )
    return mask


def _from_tree(call: str, graph, masks) -> dict[str, np.ndarray]:
    leaves = jtree.named_leaves(masks)
    if leaves.keys() != graph.leaves.keys():
        raise ValueError(
            f"`{call}(masks)`: must have the leaves that were traced, "
            f"{list(graph.leaves)}, got {list(leaves)}. Pass a mask for each of them, "
            "True where nothing goes."
        )
    gone = {name: _gone(call, graph, name, mask) for name, mask in leaves.items()}
    for pin in graph.pinned:
        _check_pinned(call, pin, gone[pin.leaf][pin.axis])
    removed = {name: _vote(call, group, gone) for name, group in graph.groups.items()}
    _check_whole(call, graph, gone, removed)
    return {name: ~lost for name, lost in removed.items()}


def _gone(call: str, graph, name, mask) -> list[np.ndarray]:
    """Return for every axis of a leaf the indices at which everything is masked."""
    shape, mask = graph.leaves[name].shape, np.asarray(mask)
    if mask.dtype != np.bool_:
        raise TypeError(
            f"`{call}(masks)`: the mask of leaf {name!r} must be boolean, True for "
            f"kept, got {mask.dtype}. Pass masks first, parameters after them, or "
            "compare with zero, as in `mask != 0`."
        )
    if mask.ndim not in (0, len(shape)) or any(
        m not in (1, n) for m, n in zip(mask.shape, shape, strict=False)
    ):
        raise ValueError(
            f"`{call}(masks)`: the mask of leaf {name!r} must have shape {shape}, one "
            f"that broadcasts to it, or (), got {mask.shape}. Pass True where nothing "
            "goes."
        )
    full = np.broadcast_to(mask, shape)
    axes = range(len(shape))
    return [
        np.logical_not(full.any(axis=tuple(e for e in axes if e != d))) for d in axes
    ]


def _check_pinned(call: str, pin, gone):
    if len(gone) > 1 and gone[pin.indices].any() and not gone.all():
        raise ValueError(
            f"`{call}(masks)`: the mask of leaf {pin.leaf!r}, axis {pin.axis}, removes "
            f"{np.flatnonzero(gone).tolist()}, which must stay: {pin.reason}. Keep "
            "them in the mask."
        )


def _vote(call: str, group: Group, gone) -> np.ndarray:
    """Return the channels that the members remove; those that do must agree."""
    said: tuple[Any, np.ndarray] | None = None
    for member in group.members:
        here = member.channels >= 0
        left = np.bincount(
            member.channels[here & ~gone[member.leaf][member.axis]],
            minlength=group.size,
        )
        removed = left == 0
        if not removed.any():
            continue
        if said is not None and (removed != said[1]).any():
            raise ValueError(
                f"`{call}(masks)`: group {group.name!r} must stay together, but "
                f"{_say(member, removed)}, and {_say(*said)}. The program couples "
                "them, so the same channels must go everywhere."
            )
        said = member, removed
    return np.zeros(group.size, bool) if said is None else said[1]


def _say(member, removed) -> str:
    channels = np.flatnonzero(removed).tolist()
    return f"leaf {member.leaf!r}, axis {member.axis}, removes channels {channels}"


def _check_whole(call: str, graph, gone, removed) -> None:
    """Check that what the leaves remove is removed channels, and nothing else."""
    lost: dict[tuple[str, int], np.ndarray] = {}
    for name, group in graph.groups.items():
        for member in group.members:
            channels = member.channels
            mine = (channels >= 0) & removed[name][np.maximum(channels, 0)]
            place = member.leaf, member.axis
            lost[place] = lost.get(place, np.zeros(len(channels), bool)) | mine
    for name, group in graph.groups.items():
        for member in group.members:
            place = member.leaf, member.axis
            here = gone[member.leaf][member.axis] & (member.channels >= 0)
            wrong = here & ~lost[place]
            if wrong.any():
                raise ValueError(
                    f"`{call}(masks)`: group {name!r} must stay together, but leaf "
                    f"{place[0]!r}, axis {place[1]}, removes indices "
                    f"{np.flatnonzero(wrong).tolist()} without the others of their "
                    "channels. The program couples them, so all must "
                    "go together."
                )


def removed_atoms(graph: ChannelGraph, masks: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return which identities the channel masks remove, as booleans."""
    removed = np.zeros(graph._traced.program.flow.atoms.count, bool)
    for name, mask in masks.items():
        if name in graph.groups:
            removed[graph.groups[name]._atoms[~mask]] = True
    return removed


def consumer_masks(
    graph: ChannelGraph, params: Any, masks: Mapping[str, Any] | Masks
) -> Masks:
    """Return a mask tree under which nobody reads the removed channels.

        mask[c, ...] = False   for every kernel that contracts over a removed channel c

    Masked are the weights that read a removed channel: the input rows of every kernel
    that contracts over it. This equals removing it, whatever its bias or norm. Where
    two activations meet in a product (queries and keys), no weight stands there; then
    all members of the group are masked, so that one of the activations is zero, which
    is exact if all that lies between (a bias is a member too) maps zero to zero.

    Args:
      graph: the channel graph.
      params: the parameters that were traced, possibly abstract.
      masks: channel masks, or a mask tree.

    Returns:
      A tree of bool arrays of the structure of `params`: of the parameter's shape
      where something is masked, else the scalar True.

    Raises:
      ValueError: if two activations meet over removed channels, and neither needs to be
        zero when its parameters are; `graph.masked` masks there too. If names or
        shapes of the parameters are not those that were traced.
      TypeError: as `channel_masks`.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxprune.channels import trace_channels
      >>> mlp = lambda params, x: jnp.tanh(x @ params["w1"]) @ params["w2"]
      >>> params = {"w1": jnp.array([[1.0, -3.0]]), "w2": jnp.array([[2.0], [1.0]])}
      >>> graph = trace_channels(mlp, params, jnp.ones((1, 1)))
      >>> masks = {"w1:1": np.array([True, False])}
      >>> consumer_masks(graph, params, masks)["w2"].tolist()
      [[True], [False]]
    """
    leaves_of(graph, params, "consumer_masks(graph, params, masks)")
    read = read_masks("consumer_masks", graph, masks)
    gates = {name: mask for name, mask in read.items() if not mask.all()}
    blocks = sorted(gates.keys() - graph.groups.keys())
    if blocks:
        raise ValueError(
            f"`consumer_masks(masks)`: must be masks of channels, {blocks} are blocks, "
            "which no masks of parameters leave out. Use `graph.masked`, or "
            "`graph.compact`."
        )
    return gate_masks(plan_gates(graph, gates), params, gates)
