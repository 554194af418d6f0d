"""Mask trees: building, checking, applying and counting them.

A mask tree has the structure of the parameters; each leaf is a bool array, True for
kept, of the shape of its parameter, or the scalar True for a leaf that is never pruned.
"""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jaxprune import tree as jtree
from jaxprune.base._protocols import Masks, Params, keep
from jaxprune.tree._kernels import kernels
from jaxprune.tree._selection import check_masks, held_masks, weights


def fill(
    params: Params, named_masks: Mapping[str, jax.Array], where: jtree.Where = kernels
) -> Masks:
    """Return a mask tree from masks by leaf name; other leaves are kept.

    Args:
      params: a pytree of arrays, possibly abstract.
      named_masks: leaf name to a bool array of the shape of the leaf.
      where: the selection given to the pruner: masks that already hold for other
        leaves are taken over from it.

    Returns:
      See `jaxprune.base.Masks`.

    Raises:
      ValueError: a name is not that of a leaf.

    Examples:
      >>> import jax.numpy as jnp
      >>> params = {"w": jnp.ones(2), "b": jnp.ones(1)}
      >>> masks = fill(params, {"w": jnp.array([True, False])})
      >>> masks["w"].tolist(), masks["b"].tolist()
      ([True, False], True)
    """
    unknown = named_masks.keys() - jtree.named_leaves(params).keys()
    if unknown:
        raise ValueError(
            f"`fill(params, named_masks)`: {sorted(unknown)} are not names of leaves; "
            f"these are {list(jtree.named_leaves(params))}."
        )
    ones = jax.tree.map(lambda _: jnp.asarray(True), params)
    return jtree.replace(ones, {**held_masks(params, where), **named_masks})


def validate(params: Params, masks: Masks) -> None:
    """Check that masks fit their parameters.

    Args:
      params: a pytree of arrays, possibly abstract.
      masks: see `jaxprune.base.Masks`.

    Raises:
      ValueError: structures differ, or a mask has neither the shape of its parameter
        nor the shape `()`. Broadcasting a mask would prune other weights than meant.
      TypeError: a mask is not boolean.

    Examples:
      >>> import jax.numpy as jnp
      >>> validate({"w": jnp.ones((2, 3))}, {"w": jnp.ones((2, 3), bool)})
    """
    check_masks("validate(params, masks)", params, masks)


def apply_masks(params: Params, masks: Masks) -> Params:
    """Set to zero what is not kept.

        w_i = w_i if m_i else 0

    NaN and infinity become zero too.

    Args:
      params: a pytree of arrays.
      masks: see `jaxprune.base.Masks`.

    Returns:
      A tree of the structure, shapes and dtypes of `params`.

    Raises:
      ValueError, TypeError: see `validate`.

    Examples:
      >>> import jax.numpy as jnp
      >>> params = {"w": jnp.array([1.0, jnp.nan])}
      >>> apply_masks(params, {"w": jnp.array([True, False])})["w"].tolist()
      [1.0, 0.0]
    """
    check_masks("apply_masks(params, masks)", params, masks)
    return keep(params, masks)


def nonzero_masks(params: Params, where: jtree.Where = kernels) -> Masks:
    """Return the masks of the selected weights that are not exactly zero.

        m_i = 1 where w_i != 0

    Leaves that are not selected are kept: a bias that starts at zero must be free to
    move.

    Args:
      params: a pytree of arrays.
      where: which leaves are pruned; the kernels by default.

    Returns:
      See `jaxprune.base.Masks`. NaN counts as not zero.

    Raises:
      ValueError, TypeError: see `jaxprune.tree.select`.

    Examples:
      >>> import jax.numpy as jnp
      >>> params = {"kernel": jnp.array([[0.0, -0.0, 1e-30]]), "bias": jnp.zeros(3)}
      >>> masks = nonzero_masks(params)
      >>> masks["kernel"].tolist(), masks["bias"].tolist()
      ([[False, False, True]], True)
    """
    leaves = weights(params, where, call="nonzero_masks(params, where)")
    kept = {
        name: leaf.array != 0 if leaf.mask is None else (leaf.array != 0) & leaf.mask
        for name, leaf in leaves.items()
    }
    return fill(params, kept, where)


def kept_counts(params: Params, masks: Masks) -> dict[str, int]:
    """Count the kept entries of every leaf, exactly, on the host.

        k_l = sum_i m_li

    Args:
      params: a pytree of arrays, possibly abstract.
      masks: see `jaxprune.base.Masks`.

    Returns:
      Leaf name to count, a Python int.

    Raises:
      ValueError, TypeError: see `validate`.

    Examples:
      >>> import jax.numpy as jnp
      >>> kept_counts({"w": jnp.ones((2, 2))}, {"w": jnp.eye(2) > 0})
      {'w': 2}
    """
    check_masks("kept_counts(params, masks)", params, masks)
    leaves = jtree.named_leaves(params)
    masks = jax.tree.leaves(masks)
    counts = jax.device_get([jnp.sum(m, dtype=jnp.uint32) for m in masks])
    return {
        name: int(count) if jnp.shape(mask) else int(count) * math.prod(leaf.shape)
        for (name, leaf), mask, count in zip(leaves.items(), masks, counts, strict=True)
    }
