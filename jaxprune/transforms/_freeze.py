"""optax transformations that keep a pruned network pruned."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxprune.base._protocols import Masks
from jaxprune.masks import _select as jmasks


class FreezePrunedState(NamedTuple):
    """State of `freeze_pruned`.

    Attributes:
      masks: bool arrays, of the structure of the parameters.
    """

    masks: Masks


def freeze_pruned(masks: Masks) -> optax.GradientTransformationExtraArgs:
    """Holds pruned weights at zero while the others train.

        u <- where(mask, u, -w)

    Put last in a chain, it makes `w + u` exactly zero outside the masks whatever comes
    before: weight decay and momentum cannot bring a pruned weight back.

    The masks live in the state, so a step that is compiled once serves all masks of
    the same shapes, and a checkpoint of the optimizer's state holds them.

    Args:
      masks: see `base.Masks`; of the structure of what the transformation will see.

    Returns:
      An optax transformation; `update` needs `params`.

    Raises:
      ValueError, TypeError: from `init`, if the masks do not fit the parameters.

    >>> import jax.numpy as jnp, optax
    >>> params = {"w": jnp.array([3.0, 0.0])}
    >>> tx = optax.chain(optax.sgd(1.0), freeze_pruned({"w": jnp.array([True, False])}))
    >>> grads = {"w": jnp.array([1.0, 1.0])}
    >>> updates, _ = tx.update(grads, tx.init(params), params)
    >>> optax.apply_updates(params, updates)["w"].tolist()
    [2.0, 0.0]
    """

    def init(params):
        if not jax.tree.leaves(params):
            # Nothing to freeze, or `optax.tree.map_params` asks where the
            # parameter-shaped trees of the state are.
            return FreezePrunedState(params)
        jmasks.validate(params, masks)
        # A copy: the caller's masks must survive the donation of the state.
        return FreezePrunedState(jax.tree.map(lambda m: jnp.array(m, copy=True), masks))

    def update(updates, state, params=None, **extra_args):
        del extra_args
        if params is None:
            raise ValueError(
                "`freeze_pruned(...).update(updates, state)`: the parameters are "
                "needed to hold pruned weights at zero. Call "
                "`update(updates, state, params)`."
            )
        updates = jax.tree.map(
            lambda m, u, p: jnp.where(m, u, -p).astype(u.dtype),
            state.masks,
            updates,
            params,
        )
        return updates, state

    return optax.GradientTransformationExtraArgs(init, update)
