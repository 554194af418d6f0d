"""Penalties on whole channels (SSL, MorphNet), as a proximal step.

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
from experiments.plans.allocation import channels_of, rounded
from experiments.plans.channels import Masks
from experiments.plans.fields import NOT_NEGATIVE, Field, Fields
from experiments.plans.method import (
    CHANNELS,
    Config,
    Method,
    Plan,
    Task,
    channel_limits,
)
from experiments.plans.optimizers import pruning_learning_rate, weights_optimizer
from jaxprune import channels
from jaxprune import tree as jtree
from jaxprune.channels import Member

Norms = Callable[[Any], dict[str, jax.Array]]


def group_lasso(config: Config, task: Task) -> Plan:
    """SSL: a penalty on the norm of each channel's filters and scales.

    References:
      Wen et al., "Learning Structured Sparsity in Deep Neural Networks", NeurIPS 2016,
      arXiv:1608.03665.
    """
    return _penalised(
        config, task, dict.fromkeys(channels_of(config, task).graph.groups, 1.0)
    )


def morphnet(config: Config, task: Task) -> Plan:
    """MorphNet: the penalty on a channel is what it costs; then uniform expansion.

    The penalty of a group is the derivative of the first cost of the budget in its keep
    ratio, per channel. As all scales of a group are removed together, they are
    penalised together, by their norm.

    References:
      Gordon et al., "MorphNet: Fast & Simple Resource-Constrained Structure Learning of
      Deep Networks", CVPR 2018, arXiv:1711.06798.
    """
    known = channels_of(config, task)
    cost = known.costs[next(iter(channel_limits(config)))]
    groups = known.graph.groups
    per_ratio = {n: cost({n: 1.0}) - cost({n: 0.0}) for n in groups}
    per_channel = {n: per_ratio[n] / groups[n].size for n in groups}
    mean = sum(per_channel.values()) / len(per_channel)
    weights = {n: float(slope / mean) for n, slope in per_channel.items()}
    return _penalised(config, task, weights, scales_only=True)


def _penalised(
    config: Config, task: Task, weights: Mapping[str, float], scales_only: bool = False
) -> Plan:
    """Trains under a penalty; what is left, scaled by one factor, is the allocation."""
    known = channels_of(config, task)
    rate = pruning_learning_rate(config, task)
    strengths = {
        n: config.method.channel_penalty * weight for n, weight in weights.items()
    }
    norms_of = jax.jit(channel_norms(known.graph, scales_only=scales_only))
    optimizer = optax.chain(
        weights_optimizer(config, rate),
        optax.masked(
            shrink_channels(known.graph, strengths, rate, scales_only=scales_only),
            {"params": True, "variables": False},
        ),
    )

    def allocate(state: Any) -> Masks:
        norms = {
            n: np.asarray(x) for n, x in norms_of({"params": state.params}).items()
        }
        left = {n: max(float(np.mean(x > 0)), 1 / len(x)) for n, x in norms.items()}
        if config.method.round_to_budget:
            counts = rounded(config, task, left)
        else:
            counts = {n: round(left[n] * len(x)) for n, x in norms.items()}
        return channels.important_channels(known.graph, norms, counts)

    return Plan(
        pruner=jaxprune.identity(),
        budget=jaxprune.unlimited(),
        optimizer=optimizer,
        allocate=allocate,
    )


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


_FIELDS: Fields = {
    "channel_penalty": Field(0.003, "Strength of the penalty.", NOT_NEGATIVE),
    "round_to_budget": Field(True, "Whether the budget is met, or the rest kept."),
}

GROUP_LASSO = Method(
    title="SSL",
    full_title="Structured sparsity learning",
    plan=group_lasso,
    fields=_FIELDS,
    budget=CHANNELS,
)

MORPHNET = Method(
    title="MorphNet",
    full_title="MorphNet",
    plan=morphnet,
    fields=_FIELDS,
    budget=CHANNELS,
)
