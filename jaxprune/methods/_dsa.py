"""Differentiable sparsity allocation: a learned keep ratio for every channel group.

Each group g has one variable, the logit theta_g of its keep ratio alpha_g. While
training, every channel is kept at random, with probabilities that rise with its
importance and whose mean is alpha_g (`keep_probabilities`); the derivative of the loss
in the probabilities becomes one in alpha_g. What is pruned is not read
(`jaxprune.channels.apply_gates`), so the network that is trained is the one that
compaction leaves.

References:
  [DSA] Ning et al., "DSA: More Efficient Budgeted Pruning via Differentiable Sparsity
  Allocation", ECCV 2020, arXiv:2004.02164.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax

from jaxprune.base._checks import check_positive, check_positive_int
from jaxprune.base._protocols import ChannelPruner, Pruned
from jaxprune.channels._counts import Fixed, most_important
from jaxprune.channels._gates import apply_gates
from jaxprune.channels._graph import ChannelGraph
from jaxprune.channels._importance import Importance, filter_norms, norm_scales
from jaxprune.methods._channel_rows import Gated, gated_groups, masks_of
from jaxprune.methods._keep_probabilities import (
    Sampler,
    bernoulli_mask,
    keep_probabilities,
)


def dsa(
    graph: ChannelGraph,
    *,
    importance: Importance | None = None,
    sharpness: optax.ScalarOrSchedule = 8.0,
    sampler: Sampler = bernoulli_mask,
    fixed: Fixed | None = None,
    floor: float = 0.01,
    init_logit: float = 5.0,
) -> ChannelPruner:
    """Learn how many channels every group keeps.

        alpha_g = sigmoid(theta_g)                                      [DSA] Sec. 3.4
        mean_i p_i = alpha_g,  p_i = sigmoid(beta_2 (log b_i - log beta_1))   Sec. 3.3
        m_i ~ Bernoulli(p_i),  dm_i / dp_i = 1

    Args:
      graph: channels of the network, from `trace_channels`.
      importance: b, `params -> {group: (channels,)}`; the scales of norms if not given,
        as published, and filter norms for groups without a norm.
      sharpness: beta_2 > 0, a number or a schedule of the step, as
        `sharpness_schedule` makes: how surely the more important of two channels stays.
        With 8 a channel twice as important as another has 2^8 times its odds. Where
        the logarithms of importances differ by 0.3, as scales of norms do, a draw then
        differs from the final choice in a fifth of the channels: few enough to train
        the network that is left, many enough that all channels are tried. (With 2 it
        is two fifths, with 32 a twentieth.)
      sampler: draws gates from keep probabilities: `bernoulli_mask` with the
        straight-through derivative, as published; `concrete_mask` relaxes it;
        `deterministic_mask` keeps the round(alpha C) most important channels; or any
        function of that form.
      fixed: roles, or patterns of group names, to keep ratios in (0, 1] that are not
        learned, as in `{"*/head/*": 1.0, "heads": 1.0}`; 1.0 keeps all channels. The
        first that matches counts.
      floor: the smallest keep probability, so that no channel is lost for good while
        ratios are learned; in [0, 1).
      init_logit: theta at the start; 5 keeps 99.3 %.

    Returns:
      A `ChannelPruner` whose variables are named by group, float32 of shape (). Its
      `apply` needs a `key`, for samplers that draw; its keep ratios are alpha_g. Its
      `masks` keep the round(alpha C) most important channels of each group, at least
      one, or with `counts` exactly so many: `round_to_limits` turns keep ratios into
      counts that meet limits. Its `optimizer` is Adam with rate 0.1 and b2 0.99: a
      penalty weight rises by orders of magnitude, which a long memory of squares would
      follow too late.

    Raises:
      ValueError: if the graph has no groups, all are fixed, a pattern matches no
        group, or a number is out of range. When applied, if a key is needed and
        missing.

    Examples:
      >>> from jaxprune import costs
      >>> from jaxprune.base import Limit
      >>> from jaxprune.channels import filter_norms, round_to_limits, trace_channels
      >>> mlp = lambda params, x: jnp.tanh(x @ params["w1"]) @ params["w2"]
      >>> params = {"w1": jnp.arange(24.0).reshape(3, 8), "w2": jnp.ones((8, 2))}
      >>> graph = trace_channels(mlp, params, jnp.ones((1, 3)))
      >>> pruner = dsa(graph, importance=filter_norms(graph))
      >>> variables = pruner.init(params)
      >>> key = jax.random.key(0)
      >>> pruned, ratios = pruner.apply(params, variables, key=key, step=0)
      >>> round(float(ratios["w1:1"]), 3)
      0.993
      >>> limit = Limit(costs.macs(graph), 0.5)
      >>> counts = round_to_limits(graph, jax.device_get(ratios), limit)
      >>> masks = pruner.masks(params, variables, counts=counts)
      >>> graph.compact(masks, params).trees[0]["w1"].shape
      (3, 4)

    References:
      [DSA], Sec. 3.3 and 3.4. The gradient counts channels with p_i < 1 alone, and
      gates are on what reads a channel, so that a dropped channel has a gradient.
    """
    _check(floor, sharpness)
    groups = gated_groups("dsa", graph, fixed)
    parts = _Parts(
        graph=graph,
        groups=groups,
        importance=_published(graph) if importance is None else importance,
        sharpness=sharpness if callable(sharpness) else lambda step: sharpness,
        sampler=sampler,
        floor=floor,
    )

    def init(params, /):
        del params
        return {name: jnp.full((), init_logit, jnp.float32) for name in groups.learned}

    def apply(params, variables, /, *, key=None, step=None):
        return _apply(parts, params, variables, key, step)

    def masks(params, variables, /, *, counts=None):
        return _masks(parts, params, variables, counts)

    optimizer = optax.adam(0.1, b2=0.99)
    return ChannelPruner(init, apply, masks, graph, optimizer, groups.fixed)


class _Parts(NamedTuple):
    """What the functions of the pruner share."""

    graph: ChannelGraph
    groups: Gated
    importance: Importance
    sharpness: Callable[[Any], Any]
    sampler: Sampler
    floor: float


def _apply(parts: _Parts, params, variables, key, step) -> Pruned:
    rows = parts.groups.rows
    ratios = _ratios(parts, variables)
    stacked = jnp.stack([ratios[name] for name in rows.names])
    scores = rows.pad(parts.importance(params))
    probabilities, _ = keep_probabilities(
        stacked,
        scores,
        parts.sharpness(0 if step is None else step),
        floor=parts.floor,
        valid=jnp.asarray(rows.valid),
    )
    sizes = jnp.array(rows.sizes)
    kept = most_important(scores, _counts(stacked, sizes), rows.valid)
    gates = rows.unpad(parts.sampler(key, probabilities, kept))
    return Pruned(apply_gates(parts.groups.plan, params, gates), ratios)


def _masks(parts: _Parts, params, variables, counts: Any) -> dict[str, Any]:
    sizes = {name: group.size for name, group in parts.graph.groups.items()}
    if counts is None:
        counts = dict(parts.groups.held)
        for name, theta in variables.items():
            if not isinstance(theta, jax.core.Tracer) and np.isnan(theta):
                raise ValueError(
                    f"`dsa(...).masks(variables={{{name!r}: {theta}}})`: must be a "
                    "number; the keep ratios have diverged. Look at the loss and at "
                    "the penalty."
                )
            counts[name] = _counts(jax.nn.sigmoid(theta), sizes[name])
    return masks_of(parts.graph, parts.importance(params), counts)


def _ratios(parts: _Parts, variables) -> dict[str, jax.Array]:
    """Return the keep ratios of all groups that are gated, float32 of shape ()."""
    return {
        name: jnp.float32(parts.groups.fixed[name])
        if name in parts.groups.held
        else jax.nn.sigmoid(variables[name])
        for name in parts.groups.rows.names
    }


def _counts(ratios, sizes) -> jax.Array:
    counts = jnp.clip(jnp.round(ratios * sizes), 1, sizes)
    return jnp.nan_to_num(counts, nan=1).astype(jnp.int32)


def _check(floor, sharpness) -> None:
    if not 0 <= floor < 1:
        raise ValueError(f"`dsa(floor={floor})`: must be in [0, 1); 0.01 is usual.")
    if not callable(sharpness) and not 0 < sharpness < math.inf:
        raise ValueError(
            f"`dsa(sharpness={sharpness})`: must be positive and finite. Leave it out, "
            "or pass `sharpness_schedule(steps)`."
        )


def _published(graph: ChannelGraph) -> Importance:
    """Return the importance of the paper, and one for groups that it leaves out."""
    return norm_scales(graph, otherwise=filter_norms(graph))


def sharpness_schedule(
    steps: int, *, initial: float = 0.34, final: float = 689.0, every: int = 1
) -> optax.Schedule:
    """Return a sharpness that grows by the same factor at every step.

        beta_2(t) = initial (final / initial)^(t / steps),   final from t = steps on

    With `every` it grows in jumps: t stands for the last multiple of `every`.

    The authors' is 0.05 * 1.1^epoch while epochs 20 to 100 prune; those are the
    defaults of the two ends. A shorter search needs the same range, not the same rate.

    Args:
      steps: the number of updates over which it grows, at least 1.
      initial: beta_2 at step 0, positive.
      final: beta_2 at the end, positive.
      every: the number of updates between two jumps, at least 1; that of an epoch for
        the schedule as published.

    Returns:
      A schedule of the step, float32.

    Raises:
      ValueError: if a number is not positive and finite.

    Examples:
      >>> beta_2 = sharpness_schedule(100, initial=1.0, final=100.0)
      >>> [round(float(beta_2(t))) for t in (0, 50, 100, 200)]
      [1, 10, 100, 100]

    References:
      [DSA] Appendix, hyper-parameters.
    """
    check_positive_int("sharpness_schedule", "every", every)
    for name, value in (("steps", steps), ("initial", initial), ("final", final)):
        check_positive("sharpness_schedule", name, value)
    growth = math.log(final / initial)

    def schedule(step):
        jump = jnp.asarray(step, jnp.int32) // every * every
        done = jnp.clip(jump.astype(jnp.float32) / steps, 0, 1)
        return initial * jnp.exp(growth * done)

    return schedule
