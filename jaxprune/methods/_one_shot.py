"""Pruners that prune once: the network is dense until its masks are taken."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from jaxprune import tree
from jaxprune.base._checks import check_callable
from jaxprune.base._protocols import Params, Pruned, Pruner
from jaxprune.masks._distributions import Distribution
from jaxprune.methods._weights import (
    Network,
    check_distribution,
    check_min_keep_ratio,
    minimum_of,
    network,
)

LossFn = Callable[[Params], jax.Array]
"""Parameters to a scalar loss, on data that the function holds."""


def prune_once(
    call: str,
    scores: Callable[[Network], dict[str, jax.Array]],
    *,
    distribution: Distribution,
    min_keep_ratio: Any,
    where: tree.Where,
) -> Pruner:
    """Return a pruner that keeps the weights of the highest scores.

    Args:
      call: the public factory, for messages.
      scores: scores of the selected leaves, by name.
      distribution: how what is kept is divided among layers.
      min_keep_ratio: the minimum that every layer keeps.
      where: which leaves are pruned.

    Raises:
      ValueError: `min_keep_ratio` is outside [0, 1].
    """
    check_min_keep_ratio(call, min_keep_ratio)
    check_distribution(call, distribution)

    def apply(params, variables, /, *, key=None, step=None):
        del variables, key, step
        return Pruned(network(call, params, where).params, {})

    def hard_masks(params, variables, /, *, keep_ratio=None):
        del variables
        if keep_ratio is None:
            raise ValueError(
                f"`{call}(...).masks(params, variables)`: a method that prunes once "
                "has an order of weights but no size of its own, got keep_ratio=None. "
                "Call `masks(..., keep_ratio=...)`."
            )
        net = network(call, params, where)
        return net.scored(scores(net), keep_ratio, min_keep_ratio, distribution)

    return Pruner(
        lambda params, /: {},
        apply,
        hard_masks,
        has_own_size=False,
        minimum=minimum_of(call, where, min_keep_ratio),
    )


def compiled(scores: Callable[..., dict[str, jax.Array]], loss_fn: LossFn):
    """Return `params, chosen -> scores`, compiled, of scores that derive a loss.

    Gradients of arrays that are sharded over devices are compiled: run one operation
    after the other they can exhaust the threads of a CPU.
    """
    return jax.jit(functools.partial(scores, loss_fn))


def prune_by_loss(
    call: str, scores: Callable[..., dict[str, jax.Array]], loss_fn: LossFn, **options
) -> Pruner:
    """Return a pruner by scores that derive a loss.

    Args:
      call: the public factory, for messages.
      scores: `loss_fn, params, chosen -> scores` of the chosen leaves by name.
      loss_fn: see `LossFn`.
      **options: see `prune_once`.
    """
    check_callable(call, "loss_fn", loss_fn, "`lambda params: loss(params, batch)`")
    run = compiled(scores, loss_fn)
    return prune_once(call, lambda net: run(net.params, net.arrays), **options)


def loss_gradient(loss_fn: LossFn, params: Params, chosen: dict[str, Any]):
    """Return the gradient of a loss in the selected leaves, and that function.

    Leaves that are not selected are constants, so integers among them do no harm.

    Args:
      loss_fn: see `LossFn`.
      params: all parameters.
      chosen: the selected leaves by name.

    Returns:
      `chosen -> gradient`, and the gradient at `chosen`, by name.
    """
    slope = jax.grad(lambda some: loss_fn(tree.replace(params, some)))
    return slope, slope(chosen)
