"""Latent garrote pruning: an exact size, of which the layers' shares are learned.

One method out of four pieces:

- thresholds of layers that are learned, in units of the spread of their layer [LTP];
- latent weights that go on learning when they are pruned, by the derivative 1, and so
  may return [LATS];
- a size that holds at every step: no multiplier finds it, it is eliminated, and the
  derivative is the one along sizes that are equal [DSA] Eq. (14);
- a power of the non-negative garrote [Breiman] in the place of the soft threshold: it
  is as continuous, and shrinks what is kept less.

======  ==================  ====================================================
symbol  here                meaning
======  ==================  ====================================================
theta   `params`            dense latent weights
s_l     `variables`         log of a layer's threshold, relative to other layers: a
                            larger one keeps fewer weights
t_l     -                   threshold; unit: weight
c       -                   common scale of the thresholds; makes the size exact
p       `power`             1 soft threshold, 2 garrote, to infinity hard threshold
m_l     -                   weights per unit of log t_l at the threshold
======  ==================  ====================================================

The number kept is N(t) = sum_l #{i: |theta_li| > t_l}, with log t_l = log c + log
sigma_l + s_l. Where it is held, sum_l m_l d(log t_l) = 0, so

    d(log c) / d(s_j) = -m_j / sum_l m_l

which is what `apply` differentiates by; m_l is the central difference of the count.

References:
  [Breiman] Better subset regression using the nonnegative garrote, 1995,
    doi:10.1080/00401706.1995.10484371.
  [DSA] Ning et al., DSA: More Efficient Budgeted Pruning via Differentiable Sparsity
    Allocation, 2020, arXiv:2004.02164.
  [LATS] Chen et al., A Unified Framework for Soft Threshold Pruning, 2023,
    arXiv:2302.13019.
  [LTP] Azarian et al., Learned Threshold Pruning, 2020, arXiv:2003.00075.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax

from jaxprune import tree
from jaxprune.base._checks import (
    check_callable,
    check_positive,
    is_static_number,
)
from jaxprune.base._dtypes import at_least_float32
from jaxprune.base._protocols import Masks, Pruned, Pruner
from jaxprune.masks._apply import apply_masks
from jaxprune.masks._counts import (
    Count,
    Scheduled,
    at_least,
    exact_keep_ratio,
    from_ints,
    from_uint32,
    minimum,
    plus,
    total,
    traced_keep,
)
from jaxprune.masks._distributions import global_
from jaxprune.masks._from_scores import layers_of, plan
from jaxprune.masks._k_largest import kth_largest
from jaxprune.methods._weights import (
    Network,
    check_min_keep_ratio,
    layer_axes,
    layer_mean,
    minimum_of,
    network,
    per_layer,
    spread,
    variables_like,
)
from jaxprune.schedules._ramps import geometric_ramp
from jaxprune.tree._selection import Weights

# m_l is counted between t_l / e^h and t_l e^h: wide enough that a layer of a hundred
# weights has a few in it.
_HALF_WIDTH = 0.25

# Of this size a share decides alone, and no product with it overflows.
_LARGEST_SHARE = 30.0


def garrote(
    *,
    sparsity: float,
    steps: int,
    ramp: optax.Schedule | None = None,
    power: Any = 4.0,
    min_keep_ratio: Any = 1e-3,
    where: tree.Where = tree.kernels,
) -> Pruner:
    """Prune to an exact size, with learned shares of the layers.

        v = theta (1 - (t_l / |theta|)^p) if |theta| > t_l, else 0
        t_l = c sigma_l exp(s_l),   dv/dtheta := 1,   dv/dt_l as it is

    c is such that exactly floor((1 - ramp(step)) n) of the n selected weights are kept
    at every step, weights that held masks prune among the n, and sigma_l is the
    standard deviation of theta_l. Weights that equal the threshold are 0, so among
    equal magnitudes fewer may be nonzero; the final masks are exact. The derivative in
    s_l is the one along networks of equal size, d(log c)/ds_j = -m_j / sum_l m_l, so
    no penalty is needed for the size.

    The loss of the training data alone may prefer shares that generalise worse. Take
    `weighted(relative_entropy(params), 3 / number_of_training_examples)` for the
    budget: the prior that all masks of the size are equally likely.

    Args:
      sparsity: the fraction of zeros at the end, in [0, 1).
      steps: N >= 1, the updates after which it is met. Finalized earlier, the network
        has the sparsity of the end too, which it was not trained with.
      ramp: the sparsity at each step, a schedule; by default
        `schedules.geometric_ramp(sparsity, steps)`.
      power: p > 0, a constant for derivatives.
      min_keep_ratio: the minimum that every layer keeps, in [0, 1], rounded up to whole
        weights, or shell pattern to such a number. A layer that would keep fewer is cut
        below its largest ones instead, a jump of its threshold, and has no derivative
        in s_l.
      where: which leaves are pruned; the kernels by default. Stacked layers and masks
        that already hold are declared by `jaxprune.selection`.

    Returns:
      A pruner whose variables are s_l, `{leaf name: float32 () or (layers,)}`, 0 at the
      start; its `optimizer` is `optax.adam(0.01)`. `apply` needs `step`. Its masks are
      the largest |theta| / (sigma_l exp(s_l)); without a `keep_ratio` they have the
      sparsity of the end. It finalizes to v, at the thresholds that keep as many
      weights as the masks do.

    Raises:
      ValueError: an argument is out of range; at `init`, the minima of the layers, or
        masks that hold, do not allow the sparsity; at `apply`, there is no step.

    Examples:
      >>> import jax.numpy as jnp
      >>> pruner = garrote(sparsity=0.5, steps=1, power=2.0)
      >>> params = {"kernel": jnp.array([[0.5, 2.0], [-1.0, 0.25]])}
      >>> variables = pruner.init(params)
      >>> pruned = pruner.apply(params, variables, step=1)
      >>> pruned.params["kernel"].tolist()  # t = 0.5
      [[0.0, 1.875], [-0.75, 0.0]]
      >>> float(pruned.keep_ratios["kernel"])
      0.5

    References:
      [Breiman]; [LTP] Eq. (1); [LATS]; [DSA] Eq. (14). Powers, the exact size of latent
      weights and the prior are ours.
    """
    final = _final_keep_ratio(sparsity)
    check_positive("garrote", "power", power)
    check_min_keep_ratio("garrote", min_keep_ratio)
    if ramp is None:
        ramp = geometric_ramp(sparsity, steps)
    check_callable("garrote", "ramp", ramp, "`jaxprune.schedules.cubic_ramp(...)`")

    start = variables_like("garrote", where, 0.0)

    def init(params, /):
        variables = start(params)
        if not isinstance(final, Scheduled):
            _check_feasible(network("garrote", params, where), final, min_keep_ratio)
        return variables

    def apply(params, variables, /, *, key=None, step=None):
        del key
        if step is None:
            raise ValueError(
                "`garrote(...).apply(params, variables)`: the ramp needs the step. Call"
                " `apply(..., step=step)`."
            )
        net = network("garrote", params, where, variables)
        keep_ratio = Scheduled(1 - jnp.asarray(ramp(step), jnp.float32))
        count = traced_keep(keep_ratio, _size(net))
        cuts = _cuts(net, variables, count, min_keep_ratio)
        pruned, ratios = {}, {}
        for name, leaf in net.leaves.items():
            cut = cuts[name]
            move = per_layer(cut.move, leaf)
            pruned[name] = _straight_through(leaf.array, cut.relative, move, power)
            kept = layer_mean(cut.relative < 1, leaf)
            ratios[name] = kept - cut.mass / float(leaf.layer_size) * cut.move
        return Pruned(tree.replace(net.params, pruned), ratios)

    def hard_masks(params, variables, /, *, keep_ratio=None):
        net = network("garrote", params, where, variables)
        ratio = final if keep_ratio is None else keep_ratio
        return net.scored(_scores(net, variables), ratio, min_keep_ratio)

    def final_weights(params, variables, masks: Masks, /):
        net = network("garrote", params, where, variables)
        apply_masks(net.params, masks)  # which refuses masks of other parameters
        cuts = _cuts(net, variables, _kept(net, masks), min_keep_ratio)
        found = {
            name: _shrunk(leaf.array, cuts[name].relative, power)
            for name, leaf in net.leaves.items()
        }
        return apply_masks(tree.replace(net.params, found), masks)

    return Pruner(
        init,
        apply,
        hard_masks,
        final_weights,
        optimizer=optax.adam(0.01),
        states_size=True,
        minimum=minimum_of("garrote", where, min_keep_ratio),
    )


def _check_feasible(net: Network, keep_ratio, min_keep_ratio) -> None:
    """Refuse, before training, a sparsity that minima or held masks do not allow."""
    table = layers_of(
        "garrote",
        net.arrays,
        net.layers,
        {name: leaf.mask for name, leaf in net.leaves.items()},
        min_keep_ratio,
    )
    try:
        plan("garrote", table, keep_ratio, global_, min_keep_ratio)
    except ValueError as error:
        raise ValueError(
            f"`garrote(sparsity={1 - keep_ratio:.6g}).init(params)`: not possible with "
            f"these weights. {error}"
        ) from error


def _final_keep_ratio(sparsity: Any) -> Any:
    if isinstance(sparsity, jax.core.Tracer):
        return Scheduled(1 - jnp.asarray(sparsity, jnp.float32))
    return exact_keep_ratio("garrote", sparsity)


class _Cut(NamedTuple):
    """Where a leaf is cut.

    Attributes:
      relative: t_l / |theta| of what is kept, 1 elsewhere, float32 without a
        derivative, of the shape of the leaf.
      move: the change of log t_l with s, float32 () or (layers,): of value 0, with the
        derivative along networks of equal size.
      mass: m_l, float32 () or (layers,), without a derivative.
    """

    relative: jax.Array
    move: jax.Array
    mass: jax.Array


def _kept(net: Network, masks: Masks) -> Count:
    """Return how many of the selected weights masks keep."""
    named = tree.named_leaves(masks)
    counts = [
        jnp.sum(jnp.broadcast_to(named[n], leaf.array.shape), dtype=jnp.uint32)
        for n, leaf in net.leaves.items()
    ]
    return total(from_uint32(jnp.stack(counts)))


def _size(net: Network) -> int:
    return sum(math.prod(leaf.array.shape) for leaf in net.leaves.values())


def _scores(net: Network, variables) -> dict[str, jax.Array]:
    """Return |theta| / (sigma_l exp(s_l)), without a derivative."""
    found = {}
    for name, leaf in net.leaves.items():
        share = jax.lax.stop_gradient(per_layer(variables[name], leaf))
        share = jnp.clip(share, -_LARGEST_SHARE, _LARGEST_SHARE)
        unit = spread(leaf, signed=True) * jnp.exp(share)
        size = jnp.abs(jax.lax.stop_gradient(leaf.array).astype(jnp.float32))
        found[name] = size / unit
    return found


def _cuts(net: Network, variables, count: Count, min_keep_ratio) -> dict[str, _Cut]:
    """Return where each leaf is cut if `count` weights are kept."""
    scores = _scores(net, variables)
    cut, free = _levels(net, scores, count, min_keep_ratio)
    mass = {
        name: jnp.where(free[name], _mass(leaf, scores[name], cut[name]), 0)
        for name, leaf in net.leaves.items()
    }
    # Zero, with the derivative of the shares.
    moves = {n: variables[n] - jax.lax.stop_gradient(variables[n]) for n in mass}
    weight = jnp.maximum(sum(jnp.sum(m) for m in mass.values()), 1)
    together = sum(jnp.sum(m * moves[n]) for n, m in mass.items()) / weight
    return {
        name: _Cut(
            _relative(scores[name], per_layer(cut[name], leaf)),
            jnp.where(free[name], moves[name] - together, 0),
            mass[name],
        )
        for name, leaf in net.leaves.items()
    }


def _levels(net: Network, scores, count: Count, min_keep_ratio):
    """Return the score at which each layer is cut, and whether it is the common one.

    c is the largest score that is not kept; weights that equal it are 0 by continuity.
    A layer that would keep less than its minimum is cut at the largest score beyond
    it, whatever s_l is.
    """
    floors = net.floors(min_keep_ratio)
    common = _cut_at(scores, count)
    enough = _enough(net, scores, common, floors)
    cut = {n: jnp.broadcast_to(common, x.shape) for n, x in enough.items()}

    def with_floors():
        least = net.least(scores, min_keep_ratio)
        ranked = {n: jnp.where(least[n], jnp.inf, x) for n, x in scores.items()}
        common = _cut_at(ranked, count)
        free = _enough(net, scores, common, floors)
        beyond = {n: jnp.where(least[n], 0, x) for n, x in scores.items()}
        own = {n: jnp.max(beyond[n], layer_axes(x)) for n, x in net.leaves.items()}
        return {n: jnp.where(free[n], common, x) for n, x in own.items()}, free

    if not any(floors.values()):
        return cut, enough
    # Hardly ever does a minimum matter, and ranking once more costs as much again.
    met = jnp.all(jnp.stack([jnp.all(x) for x in enough.values()]))
    return jax.lax.cond(met, lambda: (cut, enough), with_floors)


def _cut_at(scores: dict[str, jax.Array], count: Count) -> jax.Array:
    """Return the largest score that is not among the `count` largest; 0 if all are."""
    size = from_ints(sum(math.prod(x.shape) for x in scores.values()))
    found = kth_largest(list(scores.values()), minimum(plus(count, from_ints(1)), size))
    return jnp.where(at_least(count, size), 0, found)


def _enough(net: Network, scores, cut, floors) -> dict[str, jax.Array]:
    """Return which layers have their minimum number of scores above a cut."""
    found = {}
    for name, leaf in net.leaves.items():
        above = jnp.sum(scores[name] > cut, layer_axes(leaf), dtype=jnp.uint32)
        found[name] = above >= np.uint32(floors[name])
    return found


def _relative(scores: jax.Array, cut: jax.Array) -> jax.Array:
    # Of what is NaN no comparison holds: it stays NaN.
    return jnp.where(scores <= cut, 1, cut / jnp.where(scores <= cut, 1, scores))


def _mass(leaf: Weights, scores: jax.Array, cut: jax.Array) -> jax.Array:
    """Return the weights of each layer per unit of log threshold, at its cut."""
    low = per_layer(cut * jnp.exp(-_HALF_WIDTH), leaf)
    high = per_layer(cut * jnp.exp(_HALF_WIDTH), leaf)
    near = (scores > low) & (scores <= high)
    number = jnp.sum(near, axis=layer_axes(leaf), dtype=jnp.float32)
    return number / (2 * _HALF_WIDTH)


def _shrunk(theta: jax.Array, relative: jax.Array, power: Any) -> jax.Array:
    wide = theta.astype(at_least_float32(theta.dtype))
    return (wide * (1 - _power(relative, power))).astype(theta.dtype)


def _power(relative: jax.Array, power: Any) -> jax.Array:
    """Return (t / |theta|)^p; a whole power is a few products."""
    whole = is_static_number(power) and float(power).is_integer()
    return relative ** (int(power) if whole else jnp.asarray(power, jnp.float32))


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def _straight_through(theta, relative, move, power) -> jax.Array:
    """Return v where log t is moved by `move`, whose value is 0.

    dv/dtheta := 1 and dv/d(log t) = -p theta (t / |theta|)^p of what is kept.
    """
    del move
    return _shrunk(theta, relative, power)


@_straight_through.defjvp
def _straight_through_jvp(power, primals, tangents):
    theta, relative, _ = primals
    slope = -power * theta.astype(jnp.float32) * _power(relative, power)
    slope = jnp.where(relative < 1, slope, 0)
    moved = (slope * tangents[2]).astype(theta.dtype)
    return _shrunk(theta, relative, power), tangents[0] + moved
