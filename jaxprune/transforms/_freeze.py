"""Frozen masks: pruned weights stay zero while the others train."""

from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import optax

from jaxprune import tree
from jaxprune.base._checks import varying_axes
from jaxprune.base._dtypes import widest
from jaxprune.base._protocols import Masks
from jaxprune.transforms import _arguments as checks
from jaxprune.transforms import _watch as watch_
from jaxprune.tree._selection import check_masks


class FreezePrunedState(NamedTuple):
    """State of `freeze_pruned`.

    Attributes:
      masks: bool arrays, of the structure of the parameters.
      watch: a `Watch` of the pruned weights, which must be zero once an update was
        made; see `jaxprune.check`.
    """

    masks: Masks
    watch: watch_.Watch


def freeze_pruned(masks: Masks) -> optax.GradientTransformationExtraArgs:
    """Hold pruned weights at zero while the others train.

        u <- where(mask, u, -w)

    Last in a chain, it makes `w + u` exactly zero outside the masks whatever comes
    before: weight decay and momentum cannot bring a pruned weight back. Updates of
    leaves whose mask is the scalar True pass unchanged.

    The masks live in the state, so a step that is compiled once serves all masks of
    the same shapes, and a checkpoint of the optimizer's state holds them. For other
    masks make a new state with `init`.

    An optimizer behind it would rescale the updates, and a pruned weight would come
    back: `jaxprune.check(state)` raises then.

    Args:
      masks: see `jaxprune.base.Masks`: a tree of bool arrays of the structure of the
        parameters, each of the shape of its parameter or (). Inside `optax.masked` and
        `optax.partition` leaves that the transformation does not see may have masks,
        which are not used.

    Returns:
      A transformation with state `FreezePrunedState`; `update` needs `params`. An
      update has the wider of its own dtype and that of the parameter.

    Raises:
      ValueError: from `init`, if the masks do not fit the parameters or a pruned weight
        is not finite, which no update can take to zero; from `update`, if `params` is
        missing.
      TypeError: from `init`, if a mask is not boolean, or that of a leaf that is not
        floating prunes.

    Examples:
      >>> import jax.numpy as jnp, optax
      >>> params = {"w": jnp.array([3.0, 0.0])}
      >>> masks = {"w": jnp.array([True, False])}
      >>> tx = optax.chain(optax.sgd(1.0), freeze_pruned(masks))
      >>> grads = {"w": jnp.array([1.0, 1.0])}
      >>> updates, _ = tx.update(grads, tx.init(params), params)
      >>> optax.apply_updates(params, updates)["w"].tolist()
      [2.0, 0.0]
    """

    def init(params):
        if checks.is_abstract(params):
            return jax.eval_shape(init, params)
        ours = _of_the_same_leaves(masks, params)
        if jax.tree.leaves(params):
            check_masks("freeze_pruned(masks)", params, ours)
            _check_types(params, ours)
            _check_finite(params, ours)
        # A copy: the caller's masks must survive the donation of the state.
        ours = jax.tree.map(lambda m: jnp.array(m, copy=True), ours)
        nothing = jnp.zeros_like(_back(params, ours))
        return FreezePrunedState(ours, watch_.begin(nothing != 0))

    def update(updates, state, params=None, **extra_args):
        del extra_args
        params = checks.require_params("freeze_pruned", params)
        back = _back(params, state.masks)
        # Each mask needs its own weight alone, so that shards are as good as the whole.
        axes = varying_axes(back) - varying_axes(state.watch.expected)
        back = jax.lax.psum(back, tuple(axes)) if axes else back
        came_back = state.watch.expected & (back > 0)
        updates = jax.tree.map(_frozen, state.masks, updates, params)
        started = state.watch.expected | True
        return updates, state._replace(
            watch=watch_.proceed(state.watch, came_back, started)
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _of_the_same_leaves(masks: Any, params: Any) -> Any:
    """Return the masks of the leaves that are there.

    optax hides leaves behind `MaskedNode`, and asks with a placeholder without leaves
    where a state has trees like the parameters.
    """
    if not jax.tree.leaves(params):
        return params
    if not any(isinstance(x, optax.MaskedNode) for x in _nodes(params)):
        return masks
    known = tree.named_leaves(masks)
    missing = sorted(set(tree.named_leaves(params)) - set(known))
    if missing:
        raise ValueError(
            f"`freeze_pruned(masks)`: every leaf must have a mask, {missing} have none."
            " Pass masks of the structure of all parameters."
        )
    return jax.tree.map(lambda name: known[name], tree.names(params))


def _nodes(params: Any) -> list[Any]:
    return jax.tree.leaves(params, is_leaf=lambda x: isinstance(x, optax.MaskedNode))


def _check_types(params: Any, masks: Masks) -> None:
    """Refuse masks of leaves that no update takes to zero exactly."""
    names = tree.named_leaves(params)
    for (name, p), m in zip(names.items(), jax.tree.leaves(masks), strict=True):
        kept = not jnp.ndim(m) and (isinstance(m, jax.core.Tracer) or bool(m))
        if not (kept or _prunable(p)):
            raise TypeError(
                f"`freeze_pruned(masks)`: only floating arrays can be pruned, leaf"
                f" {name!r} has dtype {p.dtype}. Its mask must be the scalar True."
            )


def _check_finite(params: Any, masks: Masks) -> None:
    """Refuse pruned weights that no addition takes to zero."""
    names = tree.named_leaves(params)
    for (name, p), m in zip(names.items(), jax.tree.leaves(masks), strict=True):
        if not _prunable(p) or isinstance(p, jax.core.Tracer):
            continue
        wrong = _not_finite(p, m)
        if isinstance(wrong, jax.core.Tracer):
            continue
        if bool(wrong):
            raise ValueError(
                f"`freeze_pruned(masks)`: a pruned weight of leaf {name!r} is not"
                " finite, and no update takes it to zero. Call"
                " `jaxprune.apply_masks(params, masks)` first."
            )


@jax.jit
def _not_finite(param: jax.Array, mask: jax.Array) -> jax.Array:
    return jnp.any(~jnp.isfinite(param) & ~mask)


def _prunable(param: Any) -> bool:
    """Return whether a leaf has weights that a mask may prune."""
    return jnp.issubdtype(param.dtype, jnp.inexact)


def _back(params: Any, masks: Masks) -> jax.Array:
    """Return the number of pruned weights that are not zero, int32."""
    counts = [
        jnp.sum((p != 0) & ~m, dtype=jnp.int32)
        for p, m in zip(jax.tree.leaves(params), jax.tree.leaves(masks), strict=True)
        if _prunable(p)
    ]
    return sum(counts, jnp.zeros([], jnp.int32))


def _frozen(mask: jax.Array, update: Any, param: Any) -> Any:
    """Return the update of one leaf, wide enough to take pruned weights to zero."""
    if update is None or not _prunable(param):
        return update
    same = update.dtype == param.dtype
    dtype = param.dtype if same else widest(update.dtype, param.dtype)
    return jnp.where(mask, update.astype(dtype), -param.astype(dtype))
