"""Pruners that prune once: the network is dense until its masks are taken."""

from collections.abc import Callable

import jax

from jaxprune import tree
from jaxprune.base._protocols import Params, Pruned, Pruner
from jaxprune.masks import _select as masks

LossFn = Callable[[Params], jax.Array]
"""Parameters to a scalar loss, on data that the function holds."""


def prune_once(
    call: str,
    named_masks: Callable[[Params, float], dict[str, jax.Array]],
    *,
    min_keep_ratio: float,
    where: tree.Where,
) -> Pruner:
    """A pruner of the masks that `named_masks(params, keep_ratio)` gives by leaf name.

    Args:
      call: the public factory, for messages.
      named_masks: masks of the selected leaves.
      min_keep_ratio: checked here, used by `named_masks`.
      where: which leaves are pruned.
    """
    masks.layer_floor(0, min_keep_ratio)  # checks the range

    def apply(params, variables, /, *, key=None, step=None):
        del variables, key, step
        tree.select(params, where)  # checks what is selected
        return Pruned(params, {})

    def hard_masks(params, variables, /, *, keep_ratio=None):
        del variables
        if keep_ratio is None:
            raise ValueError(
                f"`{call}(...).masks(params, variables)`: a method that prunes once "
                "has an order of weights but no size of its own, got keep_ratio=None. "
                "Call `masks(..., keep_ratio=...)`."
            )
        return masks.fill(params, named_masks(params, keep_ratio))

    return Pruner(lambda params, /: {}, apply, hard_masks)


def by_score(
    call: str,
    scores: Callable[..., dict[str, jax.Array]],
    loss_fn: LossFn,
    *,
    min_keep_ratio: float,
    where: tree.Where,
) -> Pruner:
    """A pruner that keeps the highest scores of the whole network.

    Args:
      call: see `prune_once`.
      scores: `(loss_fn, params, *, where) -> scores` of the selected leaves by name.
      loss_fn: see `LossFn`.
      min_keep_ratio: what every leaf keeps at the least.
      where: which leaves are pruned.
    """

    def named_masks(params, keep_ratio):
        return masks.global_masks(
            scores(loss_fn, params, where=where),
            keep_ratio=keep_ratio,
            min_keep_ratio=min_keep_ratio,
        )

    return prune_once(call, named_masks, min_keep_ratio=min_keep_ratio, where=where)
