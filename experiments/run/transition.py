"""How many weights a soft mask has not decided about: condition (8) of [LTP], watched.

Thresholds are learned from the weights in the band in which the mask changes. If
updates throw weights across it, or none is left in it, learning ends early.

References:
  [LTP] Azarian, Bhalgat, Lee, Blankevoort, "Learned Threshold Pruning", 2020,
  arXiv:2003.00075, Sec. 3.2 and Eq. (8).
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import jaxprune

METRIC = "in_transition"
"""The metric: the share of the prunable weights that are in the band."""

_LOW = 1 / (1 + math.exp(4))


def make_share(
    pruner: Any, *, first_step: int = 0
) -> Callable[[Any, Any, jax.Array], jax.Array]:
    """Returns `(params, variables, step) -> float32`, the share of weights in the band.

    A weight is in it where |w^2 - tau| < 4 T, which is where the mask that it is
    multiplied with is between 1.8 and 98.2 %.

    Args:
      pruner: one that multiplies weights with soft masks.
      first_step: the step at which the phase began, from which the pruner counts.
    """

    @jax.jit
    def share(params, variables, step):
        pruned = pruner.apply(params, variables, step=step - first_step)
        weights = jaxprune.tree.select(params, jaxprune.kernels)
        soft = jaxprune.tree.select(pruned.params, jaxprune.kernels)
        inside, total = jnp.float32(0), 0
        for name, w in weights.items():
            mask = soft[name] / jnp.where(w == 0, 1, w)
            inside += jnp.sum((mask > _LOW) & (mask < 1 - _LOW), dtype=jnp.float32)
            total += w.size
        return inside / total

    return share
