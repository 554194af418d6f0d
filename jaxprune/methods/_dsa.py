"""Differentiable sparsity allocation: a learned keep ratio for every channel group.

Each group g has one variable, the logit theta_g of its keep ratio alpha_g. While
training, every channel is kept at random, with probabilities that rise with its
importance and whose mean is alpha_g (`keep_probabilities`); the derivative of the loss
in the probabilities becomes one in alpha_g. What is pruned is not read
(`channel_gates`), so the network that is trained is the one that compaction leaves.

References:
  [DSA] Ning et al., "DSA: More Efficient Budgeted Pruning via Differentiable Sparsity
  Allocation", ECCV 2020, arXiv:2004.02164.
"""

import math
from collections.abc import Callable, Mapping
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from jaxprune.base._protocols import Pruned, Pruner
from jaxprune.channels._gates import apply_gates, gate_masks, plan_gates
from jaxprune.channels._graph import ChannelGraph
from jaxprune.channels._importance import Importance, norm_scales
from jaxprune.masks._select import keep_count
from jaxprune.methods._keep_probabilities import (
    bernoulli_mask,
    concrete_mask,
    deterministic_mask,
    keep_probabilities,
    most_important,
)

Sampling = Literal["bernoulli", "concrete", "deterministic"]


def dsa(
    graph: ChannelGraph,
    *,
    importance: Importance | None = None,
    sharpness: optax.ScalarOrSchedule,
    sampling: Sampling = "bernoulli",
    floor: float = 0.01,
    init_logit: float = 5.0,
) -> Pruner:
    """Learns how many channels every group keeps.

        alpha_g = sigmoid(theta_g)                                      [DSA] Sec. 3.4
        mean_i sigmoid(beta_2 (log b_i - log beta_1)) = alpha_g         [DSA] Sec. 3.3
        m_i ~ Bernoulli(p_i)

    Args:
      graph: channels of the network, from `trace_channels`.
      importance: b, `params -> {group: (channels,)}`; the scales of norms if not given,
        as published.
      sharpness: beta_2 > 0, a number or a schedule of the step; the paper has
        0.05 * 1.1^epoch.
      sampling: `bernoulli` with the straight-through derivative, as published;
        `concrete` relaxes it; `deterministic` keeps the round(alpha C) most important
        channels, with the derivative of the probabilities.
      floor: the least keep probability, so that no channel is lost for good while
        ratios are learned; in [0, 1).
      init_logit: theta at the start; 5 keeps 99.3 %.

    Returns:
      A pruner whose variables and keep ratios are named by group, each of shape ().
      `apply` needs a `key` unless sampling is deterministic. `masks` keeps the
      round(alpha C) most important channels of each group, one at the least, or with
      `keep_ratio` k the floor(k C) of every group, and masks the weights that read the
      others; to meet a budget exactly give it variables from `round_to_budget`.

    Raises:
      ValueError: if a group has no norm and no importance is given, or a number is out
        of range. When applied, if a key is needed and missing.
    """
    if not 0 <= floor < 1:
        raise ValueError(f"`dsa(floor={floor})`: must be in [0, 1); 0.01 is usual.")
    if not callable(sharpness) and not 0 < sharpness < math.inf:
        raise ValueError(
            f"`dsa(sharpness={sharpness})`: must be positive and finite; see "
            "`sharpness_schedule`."
        )
    if sampling not in ("bernoulli", "concrete", "deterministic"):
        raise ValueError(
            f"`dsa(sampling={sampling!r})`: must be bernoulli, concrete or "
            "deterministic."
        )
    if not graph.groups:
        raise ValueError(
            "`dsa(graph)`: the graph has no group of channels to prune; `print(graph)` "
            "says why each axis is pinned."
        )
    plan = plan_gates(graph)
    importance = norm_scales(graph) if importance is None else importance
    names, sizes = list(plan.sizes), jnp.array(list(plan.sizes.values()))
    valid = jnp.arange(max(plan.sizes.values()))[None] < sizes[:, None]
    sharpness_at: Callable = (
        sharpness if callable(sharpness) else lambda step: sharpness
    )

    def init(params, /):
        del params
        return {name: jnp.full((), init_logit, jnp.float32) for name in names}

    def apply(params, variables, /, *, key=None, step=None):
        ratios = jax.nn.sigmoid(jnp.stack([variables[name] for name in names]))
        scores = _padded(importance(params))
        probabilities, _ = keep_probabilities(
            ratios,
            scores,
            sharpness_at(0 if step is None else step),
            floor=floor,
            valid=valid,
        )
        if sampling == "deterministic":
            gates = deterministic_mask(probabilities, scores, _counts(ratios), valid)
        elif key is None:
            raise ValueError(
                f"`dsa(sampling={sampling!r}).apply(..., key=None)`: masks are drawn "
                "at random; give a typed PRNG key, a new one for every step, such as "
                "`jax.random.fold_in(key, step)`."
            )
        elif sampling == "bernoulli":
            gates = bernoulli_mask(key, probabilities)
        else:
            gates = concrete_mask(key, probabilities)
        seen = apply_gates(plan, params, _by_name(gates))
        return Pruned(seen, dict(zip(names, ratios, strict=True)))

    def masks(params, variables, /, *, keep_ratio=None):
        if keep_ratio is None:
            ratios = jax.nn.sigmoid(jnp.stack([variables[name] for name in names]))
            counts = _counts(ratios)
        else:
            given = [keep_count(keep_ratio, size) for size in plan.sizes.values()]
            counts = jnp.maximum(jnp.array(given), 1)
        kept = most_important(_padded(importance(params)), counts, valid)
        return gate_masks(plan, params, _by_name(kept))

    def _counts(ratios):
        counts = jnp.clip(jnp.round(ratios * sizes), 1, sizes)
        return jnp.nan_to_num(counts, nan=1).astype(jnp.int32)

    def _padded(scores: Mapping[str, jax.Array]) -> jax.Array:
        for name, size in plan.sizes.items():
            if scores[name].shape != (size,):
                raise ValueError(
                    f"`dsa(importance=...)`: {scores[name].shape} of {name!r} must be "
                    f"({size},), one number for each channel of the group."
                )
        widest = valid.shape[1]
        rows = [jnp.pad(scores[n], (0, widest - len(scores[n]))) for n in names]
        return jnp.stack(rows).astype(jnp.float32)

    def _by_name(gates: jax.Array) -> dict[str, jax.Array]:
        return {name: gates[i, : plan.sizes[name]] for i, name in enumerate(names)}

    return Pruner(init, apply, masks)


def sharpness_schedule(
    initial: float, growth: float, steps_per_epoch: int
) -> optax.Schedule:
    """beta_2 = initial * growth^epoch, the epochs counted in fractions of a step.

    Args:
      initial: beta_2 at step 0, positive; 0.05 in the paper.
      growth: the factor per epoch; 1.1 in the paper.
      steps_per_epoch: steps.

    References:
      [DSA] Appendix, hyper-parameters.
    """
    return lambda step: initial * growth ** (step / steps_per_epoch)
