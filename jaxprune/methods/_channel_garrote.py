"""The latent garrote for channels: limits met at every step, with learned widths.

======  ===============  =======================================================
symbol  here             meaning
======  ===============  =======================================================
s_g     `variables`      logit of the keep ratio of a group, relative to the others
a       -                common logit; makes the limits hold
C_g     `group.size`     channels of the group
b_i     `importance`     how much a channel matters
c_g     -                std(b) / mean(b) in the group, a constant for derivatives
t_g     -                threshold on the importance; unit: importance
p       `power`          how hard the threshold is, in units of c_g
m_g     -                channels per unit of log t_g at the threshold
======  ===============  =======================================================

The keep ratio of a group is k_g = sigmoid(a + s_g), with the largest a at which the
whole numbers of channels meet every limit. Along networks of equal cost

    0 = sum_g W_g (d(a) + d(s_g)),   W_g = d(cost)/d(k_g) k_g (1 - k_g)
    d(k_g) = k_g (1 - k_g) (d(s_g) + d(a)),   d(log t_g) = -C_g d(k_g) / m_g

for the cost that binds. `apply` differentiates by these.

References:
  [Breiman] Better subset regression using the nonnegative garrote, 1995,
    doi:10.1080/00401706.1995.10484371.
  [DSA] Ning et al., DSA: More Efficient Budgeted Pruning via Differentiable Sparsity
    Allocation, 2020, arXiv:2004.02164.
  [LATS] Chen et al., A Unified Framework for Soft Threshold Pruning, 2023,
    arXiv:2302.13019.
  [LTP] Azarian et al., Learned Threshold Pruning, 2020, arXiv:2003.00075.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax

from jaxprune import tree
from jaxprune.base._checks import check_positive, check_positive_int
from jaxprune.base._protocols import ChannelPruner, Limit, Pruned
from jaxprune.channels._allocation import Limits, check_limits, final_bound
from jaxprune.channels._counts import Fixed, most_important
from jaxprune.channels._gates import apply_gates
from jaxprune.channels._graph import ChannelGraph
from jaxprune.channels._importance import Importance, channel_norms
from jaxprune.methods._channel_rows import Gated, gated_groups, masks_of
from jaxprune.schedules._ramps import geometric_ramp

_WIDTH = 0.15  # of the kernel with which m_g is counted, in units of c_g
_LEAST_SPREAD = 1e-3
_TINY = float(np.finfo(np.float32).tiny)
_MOST_LOGIT = 30.0
_HALVINGS = 32
_ROUNDING = 1e-6  # of a cost in float32
_GOLDEN = (math.sqrt(5) - 1) / 2


def channel_garrote(
    graph: ChannelGraph,
    limits: Limits,
    *,
    steps: int,
    importance: Importance | None = None,
    power: float = 4.0,
    fixed: Fixed | None = None,
) -> ChannelPruner:
    """Remove channels until limits hold, with learned widths.

        m_i = 1 - (t_g / b_i)^(p / c_g) for the n_g most important channels, else 0
        n_g = floor(k_g C_g + u_g), at least 1,   k_g = sigmoid(a + s_g)
        v = m_i w for what reads channel i,   dv/dw := 1,   dv/dk_g as it is

    t_g is the importance of the first channel that is not kept, c_g = std(b) / mean(b)
    its unit (norms of many weights differ by little), and a the largest number at which
    the costs of these n_g meet every limit: at every step, exactly. So all groups begin
    with equal keep ratios, and leave them where the loss says so. The u_g in [0, 1)
    differ, so that groups of equal ratios change one after the other.

    What reads a channel that is not kept goes on learning, and the channel returns
    when it has become important. Take `weighted(relative_entropy(graph), 1 /
    number_of_training_examples)` as the budget: of a few channels the loss of single
    batches says little, and equal keep ratios are then the likeliest.

    Args:
      graph: channels of the network, from `trace_channels`.
      limits: `at_most(cost, limit)`, or several. A limit that is a number is reached
        along `schedules.geometric_ramp(1 - limit, steps)`; a schedule is followed.
      steps: N >= 1, the updates after which numbers are met.
      importance: b, `params -> {group: (channels,)}`, not negative; the norms of what
        makes a channel, `channels.channel_norms(graph)`, if not given.
      power: p > 0; 1 shrinks twice as important a channel by a half where importances
        spread by as much as their mean.
      fixed: roles, or patterns of group names, to keep ratios in (0, 1] that are not
        learned.

    Returns:
      A `ChannelPruner` whose variables are s_g, float32 of shape (), 0 at the start,
      and which holds its limits itself: `pruning` takes none beside. `apply` needs
      `step`. It finalizes to the widths of `round_to_limits` near its own, and to the
      weights m_i w.

    Raises:
      ValueError: the graph has no groups, all are fixed, an argument is out of range,
        or no network of this graph meets a limit; at `apply`, there is no step, or the
        variables are not those of this pruner.
      TypeError: a limit is no `Limit`.

    Examples:
      >>> import jaxprune
      >>> mlp = lambda params, x: jnp.tanh(x @ params["w1"]) @ params["w2"]
      >>> params = {"w1": jnp.array([[1.0, -3.0, 2.0, 4.0]]), "w2": jnp.ones((4, 2))}
      >>> graph = jaxprune.trace_channels(mlp, params, jnp.ones((1, 1)))
      >>> limit = jaxprune.at_most(jaxprune.costs.macs(graph), 0.5)
      >>> pruner = channel_garrote(graph, limit, steps=10, power=2.0)
      >>> pruned = pruner.apply(params, pruner.init(params), step=10)
      >>> [round(x, 3) for x in pruned.params["w2"][:, 0].tolist()]  # t = 2
      [0.0, 0.837, 0.0, 0.955]

    References:
      [Breiman]; [LTP] Eq. (1); [LATS]; [DSA] Eq. (14), for whole numbers of channels.
    """
    call = "channel_garrote"
    check_positive(call, "power", power)
    groups = gated_groups(call, graph, fixed)
    parts = _Parts(
        groups=groups,
        importance=channel_norms(graph) if importance is None else importance,
        limits=check_limits(call, graph, limits, fixed),
        steps=check_positive_int(call, "steps", steps),
        power=float(power),
    )

    def init(params, /):
        del params
        return {name: jnp.zeros((), jnp.float32) for name in groups.learned}

    def apply(params, variables, /, *, key=None, step=None):
        del key
        if step is None:
            raise ValueError(
                f"`{call}(...).apply(params, variables)`: the limits need the step. "
                "Call `apply(..., step=step)`."
            )
        return _apply(parts, params, variables, step)

    def masks(params, variables, /, *, counts=None):
        if counts is None:
            counts = _final_counts(parts, variables)
        return masks_of(graph, parts.importance(params), counts)

    def final_weights(params, variables, masks, /):
        del variables
        rows = groups.rows
        cut = _cut(parts, rows.pad(parts.importance(params)), rows.pad(masks) > 0)
        return apply_gates(groups.plan, params, rows.unpad(cut.gates))

    return ChannelPruner(
        init,
        apply,
        masks,
        graph,
        optimizer=optax.adam(0.01),
        fixed=groups.fixed,
        final_weights=final_weights,
        limits=parts.limits,
    )


class _Parts(NamedTuple):
    """What the functions of the pruner share.

    Attributes:
      groups: of the graph.
      importance: b.
      limits: with numbers or schedules.
      steps: after which numbers are met.
      power: p.
    """

    groups: Gated
    importance: Importance
    limits: tuple[Limit, ...]
    steps: int
    power: float


class _Widths(NamedTuple):
    """The numbers of channels at one step, by row.

    Attributes:
      counts: n_g, whole numbers, float32 of shape (groups,), without a derivative.
      change: of the keep ratio, of value 0, with the derivative along networks of equal
        cost.
    """

    counts: jax.Array
    change: jax.Array


class _Cut(NamedTuple):
    """Groups that are cut, by row; without derivatives.

    Attributes:
      gates: m_i, float32 of shape (groups, largest size).
      slopes: of m_i in k_g, of that shape.
    """

    gates: jax.Array
    slopes: jax.Array


def _apply(parts: _Parts, params, variables, step) -> Pruned:
    rows, widths = parts.groups.rows, _widths(parts, variables, step)
    b = rows.pad(parts.importance(params))
    cut = _cut(parts, b, most_important(b, widths.counts, rows.valid))
    ratios = widths.counts / jnp.asarray(rows.sizes, jnp.float32) + widths.change
    gates = rows.unpad(cut.gates + cut.slopes * widths.change[:, None])
    found = dict(zip(rows.names, ratios, strict=True))
    return Pruned(_read_through(parts, params, gates), found)


def _cut(parts: _Parts, b: jax.Array, kept: jax.Array) -> _Cut:
    """Return the gates of what is kept, and how they move with the keep ratios.

    In x = log b / c the gate is 1 - exp(p (y - x)), with y that of the threshold; y
    moves by -C dk / m, m the channels per unit of x there.
    """
    valid = jnp.asarray(parts.groups.rows.valid)
    sizes = jnp.asarray(parts.groups.rows.sizes, jnp.float32)[:, None]
    b = jax.lax.stop_gradient(b)
    mean = jnp.sum(b, -1, keepdims=True) / sizes
    variance = jnp.sum(jnp.where(valid, b - mean, 0) ** 2, -1, keepdims=True) / sizes
    c = jnp.maximum(jnp.sqrt(variance) / (mean + _TINY), _LEAST_SPREAD)
    x = jnp.log(b + _TINY) / c
    y = jnp.max(jnp.where(valid & ~kept, x, -jnp.inf), -1, keepdims=True)
    # Equal importances say nothing: whoever is kept is kept whole.
    y = jnp.where(
        y < jnp.max(jnp.where(valid, x, -jnp.inf), -1, keepdims=True), y, -jnp.inf
    )
    shrunk = jnp.where(kept, jnp.exp(parts.power * jnp.minimum(y - x, 0)), 0)
    q = jax.nn.sigmoid(jnp.where(valid, (x - y) / _WIDTH, jnp.inf))
    mass = jnp.maximum(jnp.sum(q * (1 - q), -1, keepdims=True) / _WIDTH, 1)
    return _Cut(kept - shrunk, parts.power * shrunk * sizes / mass)


def _read_through(parts: _Parts, params, gates):
    """Multiply what reads channels by gates, with the derivative 1 in the weights."""
    plan, held = parts.groups.plan, jax.lax.stop_gradient(params)
    gated = tree.named_leaves(apply_gates(plan, held, gates))
    leaves, fixed = tree.named_leaves(params), tree.named_leaves(held)
    found = {
        name: gated[name] + (leaf - fixed[name])
        for name, leaf in leaves.items()
        if name in plan.places or f"params/{name}" in plan.places
    }
    return tree.replace(params, {**leaves, **found})


def _widths(parts: _Parts, variables, step) -> _Widths:
    """Return the largest numbers of channels that meet all limits at a step.

    Raises:
      ValueError: the variables are not those of the learned groups.
    """
    names, bounds = parts.groups.rows.names, _bounds(parts, step)
    learned, fixed = parts.groups.learned, parts.groups.held
    if set(variables) != set(learned):
        raise ValueError(
            f"`channel_garrote(...)`: variables must be those of {list(learned)}, got "
            f"{list(variables)}. Pass what `init(params)` of this pruner returned."
        )
    sizes = jnp.asarray(parts.groups.rows.sizes, jnp.float32)
    shares = [variables.get(name, 0) for name in names]  # 0 of what is not learned
    logits = jnp.stack([jnp.asarray(share, jnp.float32) for share in shares])
    s = jax.lax.stop_gradient(logits)
    held = jnp.asarray([fixed.get(name, 0) for name in names], jnp.float32)
    offsets = (np.arange(len(names), dtype=np.float32) + 1) * _GOLDEN % 1

    def counts(a):
        whole = jnp.floor(jax.nn.sigmoid(a + s) * sizes + offsets)
        return jnp.where(held > 0, held, jnp.clip(whole, 1, sizes))

    def costs(ratios):
        return jnp.stack([_cost_of(x, names)(ratios) for x in parts.limits])

    def halve(_, bracket):
        low, high = bracket
        middle = (low + high) / 2
        fits = jnp.all(costs(counts(middle) / sizes) <= bounds)
        return jnp.where(fits, middle, low), jnp.where(fits, high, middle)

    # Under `shard_map` a loop must start with what varies over devices as it will.
    start = (jnp.sum(s) + jnp.sum(bounds)) * 0
    bracket = start - _MOST_LOGIT, start + _MOST_LOGIT
    a, _ = jax.lax.fori_loop(0, _HALVINGS, halve, bracket)
    found = counts(a)
    binding = jnp.argmax(costs(found / sizes) / bounds)
    slope = jax.grad(lambda ratios: costs(ratios)[binding])(found / sizes)
    k = jax.nn.sigmoid(a + s)
    rate = jnp.where(held > 0, 0, k * (1 - k))
    weight = slope * rate
    move = logits - s  # zero, with the derivative of the shares
    together = jnp.sum(weight * move) / jnp.maximum(jnp.sum(weight), _TINY)
    return _Widths(found, rate * (move - together))


def _final_counts(parts: _Parts, variables) -> dict[str, Any]:
    """Return the numbers of channels at the end of all schedules."""
    ends = tuple(x._replace(at_most=final_bound(x)) for x in parts.limits)
    widths = _widths(parts._replace(limits=ends), variables, parts.steps)
    counts = widths.counts.astype(jnp.int32)
    numbers: Any = counts
    if not isinstance(counts, jax.core.Tracer):
        numbers = [int(n) for n in np.asarray(counts)]
    return dict(zip(parts.groups.rows.names, numbers, strict=True))


def _cost_of(limit: Limit, names: tuple[str, ...]):
    """Return the cost of a limit as a function of the keep ratios in one vector."""
    of_vector: Any = getattr(limit.cost, "of_vector", None)
    if of_vector is not None:
        return of_vector(dict.fromkeys(names, 1))
    return lambda ratios: limit.cost(dict(zip(names, ratios, strict=True)))


def _bounds(parts: _Parts, step) -> jax.Array:
    """Return the bound of each limit at a step, float32 of shape (limits,)."""
    found = []
    for limit in parts.limits:
        bound: Any = limit.at_most
        if callable(bound):
            found.append(jnp.asarray(bound(step), jnp.float32))
            continue
        ramp = geometric_ramp(1 - bound, parts.steps)
        found.append(jnp.where(jnp.asarray(step) >= parts.steps, bound, 1 - ramp(step)))
    return jnp.stack(found).astype(jnp.float32) * (1 + _ROUNDING)
