"""The leaves that a transformation prunes; all others pass through it unchanged.

A tree of the selected leaves has `optax.MaskedNode` in the place of the others, as
inside `optax.masked`, so that `optax.tree.map_params` finds it in a state.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxprune import tree
from jaxprune.tree._selection import held_masks


def selection(call: str, params: Any, where: tree.Where | None) -> Any:
    """Return `where` as a tree of Python bools like the parameters.

    Args:
      call: the public function, for messages.
      params: a pytree of arrays, possibly abstract or without leaves.
      where: see `tree.select`; None selects `tree.kernels`.

    Returns:
      A tree of the structure of `params`.

    Raises:
      ValueError: nothing is selected, or a selected leaf is empty.
      TypeError: a selected leaf is not a floating-point array.
    """
    if not jax.tree.leaves(params):
        # optax's placeholder for parameters, or all leaves are masked.
        return params
    chosen = tree.kernels if where is None else where
    call = f"{call}(..., where=...)"
    tree.select(params, chosen, call=call)
    return jax.tree.map(bool, tree.resolve(params, chosen, call=call))


def only(chosen: Any, whole: Any) -> Any:
    """Return the selected leaves of a tree, and `optax.MaskedNode` for the others."""
    return jax.tree.map(lambda c, x: x if c else optax.MaskedNode(), chosen, whole)


def merge(chosen: Any, selected: Any, others: Any) -> Any:
    """Return the leaves of `selected` where they are chosen, else those of `others`."""
    return jax.tree.map(lambda c, x, y: x if c else y, chosen, selected, others)


def hold(params: Any, where: tree.Where | None, selected: Any) -> Any:
    """Return selected leaves with zeros where the masks of a selection prune already.

    A weight at zero is kept by no prox and ranks last, so what was pruned stays so.

    Args:
      params: all parameters.
      where: see `tree.selection`; only its `masks` are used.
      selected: a tree from `only`, like the parameters.
    """
    if where is None or not jax.tree.leaves(params):
        return selected
    held = held_masks(params, where)
    if not held:
        return selected
    leaves = tree.named_leaves(selected)
    return tree.replace(
        selected,
        {n: jnp.where(held[n], x, 0) for n, x in leaves.items() if n in held},
    )
