"""Shared parts of the methods whose network computes with soft-thresholded weights."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from jaxprune import tree
from jaxprune.base._protocols import Pruned, Pruner
from jaxprune.masks._apply import apply_masks
from jaxprune.methods._weights import minimum_of, network, variables_like
from jaxprune.tree._selection import Weights


class Rule(NamedTuple):
    """What a method says about one leaf, given its variable.

    Attributes:
      shrink: `(leaf, variable) -> weights`, what the network computes with.
      score: `(leaf, variable) -> scores`, the order of the weights.
      keep_ratio: `(leaf, variable, weights, share, floor) -> float32`, the
        differentiable fraction kept, shape () or (layers,); `share` is the size of a
        layer relative to all selected weights, `floor` its minimum count.
    """

    shrink: Callable[[Weights, jax.Array], jax.Array]
    score: Callable[[Weights, jax.Array], jax.Array]
    keep_ratio: Callable[[Weights, jax.Array, jax.Array, float, int], jax.Array]


def soft_thresholds(
    call: str,
    rule: Rule,
    *,
    init_value: Any,
    min_keep_ratio: Any,
    where: tree.Where,
    optimizer: optax.GradientTransformation,
) -> Pruner:
    """Return the pruner of a rule, one variable for each layer.

    Args:
      call: the public factory, for messages.
      rule: see `Rule`.
      init_value: where all variables start.
      min_keep_ratio: what every layer keeps at least when masks are made.
      where: which leaves are pruned.
      optimizer: what the variables are trained with if nothing else is given.
    """

    def shrunk(net, variables):
        return {n: rule.shrink(leaf, variables[n]) for n, leaf in net.leaves.items()}

    def apply(params, variables, /, *, key=None, step=None):
        del key, step
        net = network(call, params, where, variables)
        pruned = shrunk(net, variables)
        floors = net.floors(min_keep_ratio)
        total = sum(leaf.array.size for leaf in net.leaves.values())
        ratios = {}
        for name, leaf in net.leaves.items():
            share = leaf.layer_size / total
            ratios[name] = rule.keep_ratio(
                leaf, variables[name], pruned[name], share, floors[name]
            )
        return Pruned(tree.replace(net.params, pruned), ratios)

    def hard_masks(params, variables, /, *, keep_ratio=None):
        net = network(call, params, where, variables)
        scores = {n: rule.score(leaf, variables[n]) for n, leaf in net.leaves.items()}
        if keep_ratio is not None:
            return net.scored(scores, keep_ratio, min_keep_ratio)
        kept = {name: weights != 0 for name, weights in shrunk(net, variables).items()}
        return net.above_threshold(kept, scores, min_keep_ratio)

    def final_weights(params, variables, kept, /):
        net = network(call, params, where, variables)
        return apply_masks(tree.replace(net.params, shrunk(net, variables)), kept)

    return Pruner(
        variables_like(call, where, init_value),
        apply,
        hard_masks,
        final_weights,
        optimizer,
        minimum=minimum_of(call, where, min_keep_ratio),
    )
