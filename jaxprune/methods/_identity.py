"""The dense network, as a pruner."""

from jaxprune import tree
from jaxprune.base._protocols import Pruned, Pruner
from jaxprune.masks._apply import nonzero_masks


def identity(*, where: tree.Where = tree.kernels) -> Pruner:
    """Compute with the parameters as they are.

    Its masks are the selected entries that are not exactly zero, so it is also the
    pruner for fine-tuning a network that has been pruned, and for methods that prune
    inside the optimizer.

    Args:
      where: which leaves have masks; the kernels by default.

    Returns:
      A pruner without variables and without keep ratios.

    Examples:
      >>> import jax.numpy as jnp
      >>> pruner = identity()
      >>> pruner.masks({"kernel": jnp.array([[0.0, 2.0]])}, {})["kernel"].tolist()
      [[False, True]]
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
        return nonzero_masks(params, where)

    return Pruner(lambda params, /: {}, apply, masks)
