"""How unevenly a network keeps its weights: a prior on the layers' densities."""

import math

import jax
import jax.numpy as jnp

from jaxprune import tree
from jaxprune.base._protocols import Cost, Params
from jaxprune.channels._graph import ChannelGraph


def relative_entropy(
    params: Params | ChannelGraph, where: tree.Where = tree.kernels
) -> Cost:
    """Return the relative entropy of the layers' densities to the common one.

        D = sum_l n_l (k_l log(k_l / k) + (1 - k_l) log((1 - k_l) / (1 - k))) >= 0
        k = sum_l n_l k_l / sum_l n_l

    in nats, for layers of n_l weights with keep ratios k_l. If all masks of a size are
    equally likely, exp(-D) is, to within factors of sqrt(n_l), the probability of these
    numbers in the layers relative to that of the likeliest ones (Stirling's formula
    for the multivariate hypergeometric distribution). So

        weighted(relative_entropy(params), T / number_of_training_examples)

    added to a mean loss that is a negative log likelihood gives at T = 1 the most
    probable layer densities a posteriori, and at larger T ones that trust the training
    data less. It is 0 where all layers are equally dense.

    For channels the layers are the groups of a graph that have keep ratios, and n_l the
    weights of the group: a weight between two groups counts half in each.

    Args:
      params: the parameters, possibly abstract: only shapes are used. Or the graph of
        their channels.
      where: the leaves that count; the selection given to the pruner. Not read for a
        graph.

    Returns:
      `keep_ratios -> float32 scalar`. Keep ratios are float32 in [0, 1] of shape () or
      (layers,), for stacked layers of equal size. Derivatives stay finite at 0 and 1:
      the logarithm of a ratio is that of half a weight at least.

    Raises:
      ValueError: no leaf is selected. When the cost is called: a selected leaf has no
        keep ratio, or another leaf has one; of a graph, what has one is no group.

    Examples:
      >>> import jax.numpy as jnp
      >>> params = {"a": jnp.ones((2, 4)), "b": jnp.ones((2, 4))}
      >>> cost = relative_entropy(params)
      >>> even = {"a": jnp.float32(0.25), "b": jnp.float32(0.25)}
      >>> uneven = {"a": jnp.float32(0.5), "b": jnp.float32(0.0)}
      >>> round(float(cost(even)), 4), round(float(cost(uneven)), 4)
      (0.0, 3.4522)
    """
    if isinstance(params, ChannelGraph):
        return _of_groups(_weights_of_groups(params))
    sizes = tree.sizes(params, where)

    def cost(keep_ratios):
        if set(keep_ratios) != set(sizes):
            raise ValueError(
                "`relative_entropy(params, where)(keep_ratios)`: keep ratios of "
                f"{sorted(sizes)} are needed, got those of {sorted(keep_ratios)}. Give "
                "it the `where` of the pruner."
            )
        return _entropy(sizes, keep_ratios)

    return cost


def _of_groups(weights: dict[str, float]) -> Cost:
    """Return the cost of the groups that have keep ratios: others are kept whole."""

    def cost(keep_ratios):
        if not keep_ratios or not set(keep_ratios) <= set(weights):
            raise ValueError(
                "`relative_entropy(graph)(keep_ratios)`: keep ratios must be of groups "
                f"of the graph, {sorted(weights)}, got those of {sorted(keep_ratios)}. "
                "Trace the network that is pruned."
            )
        return _entropy({name: weights[name] for name in keep_ratios}, keep_ratios)

    return cost


def _entropy(sizes, keep_ratios) -> jax.Array:
    total = sum(sizes.values())
    common = sum(
        size / total * jnp.mean(keep_ratios[name]) for name, size in sizes.items()
    )
    return sum(
        (
            float(size) * jnp.mean(_divergence(keep_ratios[name], common, size))
            for name, size in sizes.items()
        ),
        jnp.float32(0),
    )


def _weights_of_groups(graph: ChannelGraph) -> dict[str, float]:
    """Return how many weights belong to each group, shared out among their axes."""
    axes: dict[str, set[int]] = {}
    for group in graph.groups.values():
        for member in group.members:
            axes.setdefault(member.leaf, set()).add(member.axis)
    return {
        name: sum(
            math.prod(graph.leaves[m.leaf].shape)
            * float((m.channels >= 0).mean())
            / len(axes[m.leaf])
            for m in group.members
        )
        for name, group in graph.groups.items()
    }


def _divergence(ratio, common, size):
    """Return the relative entropy of two Bernoulli distributions, in nats."""
    least = 0.5 * jnp.size(ratio) / size

    def term(p, q):
        return p * (jnp.log(jnp.maximum(p, least)) - jnp.log(jnp.maximum(q, least)))

    return term(ratio, common) + term(1 - ratio, 1 - common)
