"""Penalties on whole channels, as a proximal step behind an optimizer.

The penalty of a channel is a multiple of the norm of everything that makes it, in all
members of its group: filters and the scales of norms. Its proximal step shrinks them
together, and to exact zeros together:

    w_c <- max(1 - eta lambda_g sqrt(n_c) / |w_c|, 0) w_c

with n_c the number of weights of the channel.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxprune
from jaxprune import tree as jtree
from jaxprune.channels import Member

Norms = Callable[[Any], dict[str, jax.Array]]


def channel_norms(graph: jaxprune.ChannelGraph, *, scales_only: bool = False) -> Norms:
    """Returns `tree -> {group: |w_c| / sqrt(n_c)}`; the tree is that of the graph.

    Args:
      graph: the channel graph; trees have the names of its leaves.
      scales_only: whether the scales of norms count alone.
    """
    members = _members(graph, scales_only)

    def norms(params):
        leaves = jtree.named_leaves(params)
        found = {}
        for name, group in graph.groups.items():
            total, count = jnp.zeros(group.size), 0
            for member in members[name]:
                weights = leaves[member.leaf]
                total += member.sums(jnp.square(weights))
                here = int(np.sum(member.channels >= 0))
                count += weights.size * here // weights.shape[member.axis]
            found[name] = jnp.sqrt(total * (group.size / count))
        return found

    return norms


def shrink_channels(
    graph: jaxprune.ChannelGraph,
    strengths: Mapping[str, float],
    learning_rate: optax.Schedule,
    *,
    scales_only: bool = False,
) -> optax.GradientTransformation:
    """The proximal step of the penalty; last in a chain.

    Args:
      graph: the channel graph; trees have the names of its leaves.
      strengths: lambda, by group.
      learning_rate: eta, a schedule of the step.
      scales_only: whether the scales of norms are penalised alone.
    """
    members = _members(graph, scales_only)
    norms_of = channel_norms(graph, scales_only=scales_only)

    def init(params):
        del params
        return optax.ScaleByScheduleState(count=jnp.zeros([], jnp.int32))

    def update(updates, state, params=None):
        moved = jax.tree.map(jnp.add, params, updates)
        rate = learning_rate(state.count)
        leaves, shrunk = jtree.named_leaves(moved), {}
        for name, norm in norms_of(moved).items():
            factor = jnp.maximum(1 - rate * strengths[name] / (norm + 1e-12), 0)
            for member in members[name]:
                weights = shrunk.get(member.leaf, leaves[member.leaf])
                # Index -1, of what belongs to another group, finds the 1 at the end.
                each = jnp.append(factor, 1.0)[member.channels]
                shape = [-1 if d == member.axis else 1 for d in range(weights.ndim)]
                shrunk[member.leaf] = weights * each.reshape(shape)
        updates = jax.tree.map(jnp.subtract, jtree.replace(moved, shrunk), params)
        count = optax.safe_increment(state.count)
        return updates, optax.ScaleByScheduleState(count=jnp.asarray(count))

    return optax.GradientTransformation(init, update)


def _members(graph, scales_only: bool) -> dict[str, list[Member]]:
    """What makes the channels of every group, by its name."""
    found = {}
    for name, group in graph.groups.items():
        found[name] = [
            member
            for member in group.members
            if member.leaf.endswith("/scale")
            or (member.role == "producer" and not scales_only)
        ]
        if not found[name]:
            raise ValueError(
                f"channel penalties: group {name!r} has no norm, and nothing else of "
                "it is penalised. Use `group_lasso`."
            )
    return found
