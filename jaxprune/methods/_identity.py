"""The dense network, as a pruner."""

from jaxprune.base._protocols import Pruned, Pruner
from jaxprune.masks._select import nonzero_masks


def identity() -> Pruner:
    """The dense network: it sees its parameters as they are.

    Its masks are the entries that are not exactly zero, so it is also the pruner for
    fine-tuning a network that has been pruned, and for methods that prune inside the
    optimizer.

    >>> import jax.numpy as jnp
    >>> pruner = identity()
    >>> pruner.masks({"w": jnp.array([0.0, 2.0])}, {})["w"].tolist()
    [False, True]
    """

    def apply(params, variables, /, *, key=None, step=None):
        del variables, key, step
        return Pruned(params, {})

    def masks(params, variables, /, *, keep_ratio=None):
        del variables
        if keep_ratio is not None:
            raise ValueError(
                f"`identity().masks(keep_ratio={keep_ratio})`: the dense network has "
                "no order in which to prune. Use `magnitude(...)`, or leave "
                "`keep_ratio` out for the mask of the nonzero entries."
            )
        return nonzero_masks(params)

    return Pruner(lambda params: {}, apply, masks)
