"""Gradients without their negative parts, so that what is trained only falls."""

import jax
import jax.numpy as jnp
import optax


def non_negative_gradients() -> optax.GradientTransformation:
    """Set negative gradients to zero, so that gradient descent raises no variable.

        g <- max(g, 0)

    Differentiable sparsity allocation is published with it: logits of keep ratios only
    fall until the limit is met. Place it in front of the optimizer of the variables,
    one without weight decay:
    `pruning.optimizer(weights, variables=chain(non_negative_gradients(), sgd(1.0)))`.

    Returns:
      A transformation without state. NaN stays NaN.

    Examples:
      >>> import jax.numpy as jnp, optax
      >>> tx = optax.chain(non_negative_gradients(), optax.sgd(0.5))
      >>> params, grads = jnp.ones(2), jnp.array([-2.0, 3.0])
      >>> updates, _ = tx.update(grads, tx.init(params), params)
      >>> optax.apply_updates(params, updates).tolist()
      [1.0, -0.5]

    References:
      Ning et al., DSA, ECCV 2020, arXiv:2004.02164, Sec. 3.4.
    """

    def project(updates, params):
        del params
        return jax.tree.map(lambda g: jnp.maximum(g, 0), updates)

    return optax.stateless(project)
