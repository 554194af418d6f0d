"""How many weights change sides in a step: pruned ones that return, and the reverse.

A soft threshold keeps training the weights that it prunes, so they may come back. What
a step did is counted by comparing the network before and after it. The step itself is
not touched, so its numbers are the same, looked at or not; a look costs one pass over
the prunable weights and, while the step runs, one byte for each of them.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import jaxprune

Zeros = dict[str, jax.Array]


def make_zeros(
    pruner: jaxprune.Pruner | jaxprune.ChannelPruner, *, first_step: int = 0
) -> Callable[[Any, Any, jax.Array], Zeros]:
    """Returns `(params, variables, step) -> zeros`, where the network has exact zeros.

    The pruner counts steps from `first_step`, at which the phase began.
    """

    @jax.jit
    def zeros(params, variables, step):
        pruned = pruner.apply(params, variables, step=step - first_step)
        kernels = jaxprune.tree.select(pruned.params, jaxprune.kernels)
        return {name: leaf == 0 for name, leaf in kernels.items()}

    return zeros


@jax.jit
def changes(before: Zeros, after: Zeros) -> dict[str, jax.Array]:
    """Counts the weights that were zero before and are not after, and the reverse.

    >>> before = {"kernel": jnp.array([True, True, False])}
    >>> after = {"kernel": jnp.array([False, True, True])}
    >>> {name: int(count) for name, count in changes(before, after).items()}
    {'newly_pruned': 1, 'regrown': 1}
    """

    def count(one, other):
        counts = [jnp.sum(one[name] & ~other[name], dtype=jnp.int32) for name in one]
        return jnp.sum(jnp.stack(counts))

    return {"regrown": count(before, after), "newly_pruned": count(after, before)}
