"""SparseGPT: prune in one shot, and let the weights that are kept make up for it.

A layer is pruned input by input. What the outputs lose with a weight is taken over, as
well as it can be, by the weights of the inputs that come later: the step of optimal
brain surgery, with one factorisation of the Gram matrix for all outputs.

| symbol | here | source |
|---|---|---|
| H = X X^T + lambda I | `Inputs.gram`, `damping` | [SparseGPT] Sec. 3.2 |
| B, B_s | `block_size` | Algorithm 1 |

References:
  [SparseGPT] Frantar and Alistarh, SparseGPT: Massive Language Models Can Be Accurately
  Pruned in One-Shot, ICML 2023, arXiv:2301.00774.
"""

import functools
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxprune import tree
from jaxprune.base._checks import check_positive, check_positive_int
from jaxprune.base._dtypes import at_least_float32
from jaxprune.base._protocols import Pruner
from jaxprune.calibration._inputs import Inputs
from jaxprune.calibration._statistics import Statistics, require
from jaxprune.calibration._views import Use
from jaxprune.masks._apply import fill
from jaxprune.masks._counts import Count, number_of
from jaxprune.masks._distributions import Distribution, allocate, uniform
from jaxprune.masks._from_scores import layers_of, plan
from jaxprune.masks._n_m import check_pattern, n_m_masks
from jaxprune.methods._observed import check_disjoint, pattern_pruner
from jaxprune.methods._one_shot import prune_once
from jaxprune.methods._weights import Network, network

_EXACT = jax.lax.Precision.HIGHEST
_AT_ONCE = 1 << 24  # entries of Gram matrices that are factorised at the same time


class _Rule(NamedTuple):
    """How a sweep decides; static.

    Attributes:
      block: how many inputs are decided about together.
      pattern: n and m, or None.
      damping: what is added to the diagonal, as a fraction of its mean.
    """

    block: int
    pattern: tuple[int, int] | None
    damping: float


def sparse_gpt(
    statistics: Statistics,
    *,
    pattern: tuple[int, int] | None = None,
    block_size: int = 128,
    damping: float = 0.01,
    distribution: Distribution = uniform,
    min_keep_ratio: Any = 1e-3,
    where: tree.Where = tree.kernels,
) -> Pruner:
    """Prune once by optimal brain surgery, and update the weights that are kept.

        U^T U = (H + lambda I)^-1,  H = sum_r x_r x_r^T,   U upper triangular
        for each input i, in order:   s_io = w_io^2 / U_ii^2
            e_o = w_io / U_ii where m_io = 0, else 0
            w_jo <- w_jo - U_ij e_o   for all j >= i

    The masks are decided block by block, with the weights as they are then: the
    highest s of a block of inputs, over all outputs. `final_weights` sweeps once more
    under the masks it is given, those of another method if wanted, and returns the
    updated weights.

    Args:
      statistics: from `jaxprune.calibrate(..., gram=True)`.
      pattern: n and m: of every m consecutive inputs of an output n are kept, and
        nothing else is asked. With None `masks` needs a `keep_ratio`.
      block_size: how many inputs are decided about together.
      damping: lambda, as a fraction of the mean of the diagonal of H. Inputs that are
        always zero are left out of it.
      distribution: how what is kept is divided among layers: the paper's
        `masks.uniform`, `masks.erk`, or another function of the shape of a layer.
      min_keep_ratio: the minimum that every layer keeps, in [0, 1], rounded up, or
        shell pattern to such a number.
      where: which leaves are pruned; the kernels by default. Stacked layers and masks
        that already hold are declared by `jaxprune.selection`.

    Returns:
      A pruner without variables; `masks` needs a `keep_ratio` that is no traced array.

    Raises:
      ValueError: an argument is out of range; of `masks` and `final_weights`, if Gram
        matrices are missing, or a leaf is used in a way in which its weights cannot be
        updated: through a mask, or in two layouts.
      TypeError: `statistics` are none.

    Examples:
      >>> from jaxprune.calibration import calibrate
      >>> params = {"w": jnp.array([[1.0], [2.0]])}
      >>> x = jnp.array([[1.0, 1.0], [1.0, 1.0]])  # two inputs that are the same
      >>> statistics = calibrate(lambda p, x: x @ p["w"], params, [x], gram=True)
      >>> pruner = sparse_gpt(statistics)
      >>> masks = pruner.masks(params, {}, keep_ratio=0.5)
      >>> masks["w"].tolist()
      [[False], [True]]
      >>> weights = pruner.final_weights(params, {}, masks)
      >>> [[round(float(w), 1)] for w in weights["w"][:, 0]]
      [[0.0], [3.0]]

    References:
      [SparseGPT] Algorithm 1; Sec. 3.4 for N:M.
    """
    call = "sparse_gpt"
    require(call, statistics, ())
    check_positive(call, "damping", damping)
    block = check_positive_int(call, "block_size", block_size)
    if pattern is not None:
        pattern = check_pattern(call, pattern)
        block = -(-block // pattern[1]) * pattern[1]
    rule = _Rule(block, pattern, float(damping))

    def chosen(net: Network, counts: Mapping[str, Any] | None):
        found = {}
        for name in net.leaves:
            keep = None if counts is None else counts[name]
            found[name] = _swept(statistics, net, name, rule, keep=keep)[1]
        return found

    def hard_masks(params, variables, /, *, keep_ratio=None):
        del variables
        net = _checked(call, network(call, params, where), statistics)
        counts = _counts(
            net, statistics, keep_ratio, distribution, min_keep_ratio, rule
        )
        return fill(net.params, chosen(net, counts), where)

    def final_weights(params, variables, masks, /):
        del variables
        net = _checked(call, network(call, params, where), statistics)
        given, swept = tree.named_leaves(masks), {}
        for name, leaf in net.leaves.items():
            mask = jnp.broadcast_to(given[name], leaf.array.shape)
            swept[name] = _swept(statistics, net, name, rule, masks=mask)[0]
        return tree.replace(net.params, swept)

    pruner = prune_once(
        call,
        lambda net: {},
        distribution=distribution,
        min_keep_ratio=min_keep_ratio,
        where=where,
    )._replace(masks=hard_masks, final_weights=final_weights)
    if pattern is None:
        return pruner

    def choose(net: Network):
        return chosen(_checked(call, net, statistics), None)

    return pattern_pruner(pruner, call, statistics, pattern, where, choose)


def _checked(call: str, net: Network, statistics: Statistics) -> Network:
    """Return the network; refuse leaves whose weights cannot be updated."""
    require(call, statistics, net.leaves)
    for name in net.leaves:
        uses, inputs = statistics.uses[name], statistics.inputs[name]
        if any(sums.gram is None for sums in inputs):
            raise ValueError(
                f"`{call}(statistics)`: must have Gram matrices, leaf {name!r} has "
                "none. Pass `calibrate(..., gram=True)`."
            )
        if not all(use.view.exact for use in uses):
            raise ValueError(
                f"`{call}(...)`: weights must be multiplied as they are, but entries of"
                f" leaf {name!r} are changed before, by a mask for instance. Apply it "
                "to the parameters, or leave the leaf out of `where`."
            )
        check_disjoint(call, uses)
    return net


def _counts(
    net: Network, statistics, keep_ratio, distribution, min_keep_ratio, rule: _Rule
) -> dict[str, list[np.ndarray]]:
    """Return how many weights each block of each matrix of each use keeps."""
    call = net.call
    if keep_ratio is None or number_of(keep_ratio) is None:
        raise ValueError(
            f"`{call}(...).masks(keep_ratio={keep_ratio})`: must be a number that is "
            "known, in (0, 1]. Pass the fraction to keep, outside of `jax.jit`."
        )
    table = layers_of(call, net.arrays, net.layers, net.alive, min_keep_ratio)
    with jax.ensure_compile_time_eval():
        groups, keep = plan(call, table, keep_ratio, distribution, min_keep_ratio)
        whole = _whole_numbers(keep)
    if len(whole) != len(table) or list(groups) != list(range(len(table))):
        raise ValueError(
            f"`{call}(distribution={distribution!r})`: must say how much each layer "
            "keeps, since scores of two layers cannot be compared. Pass `masks.uniform`"
            " or `masks.erk`."
        )
    counts, first = {}, 0
    for name, leaf in net.leaves.items():
        number = leaf.layers or 1
        share = whole[first : first + number]
        counts[name] = _divided(statistics.uses[name], leaf, share, rule)
        first += number
    return counts


def _whole_numbers(count: Count) -> list[int]:
    high, low = (np.asarray(word, np.int64) for word in count)
    return (high * 4096 + low).tolist()


def _divided(uses: Sequence[Use], leaf, keep: Sequence[int], rule: _Rule):
    """Divide the counts of the layers of a leaf among blocks, by their sizes."""
    shape = leaf.array.shape
    layer = np.zeros(shape, np.float32)
    if leaf.layers is not None:
        layer += np.arange(leaf.layers).reshape(-1, *(1,) * (len(shape) - 1))
    alive = np.ones(shape, bool) if leaf.mask is None else np.asarray(leaf.mask)
    sizes, owners = [], []
    for use in uses:
        with jax.ensure_compile_time_eval():
            open_ = np.asarray(use.matrices(jnp.asarray(alive, jnp.float32))) > 0
            owner = np.asarray(use.matrices(jnp.asarray(layer))).max(axis=(1, 2))
        starts = np.arange(0, open_.shape[1], rule.block)
        sizes.append(np.add.reduceat(open_.sum(axis=2), starts, axis=1))
        owners.append(np.repeat(owner[:, None].astype(int), len(starts), axis=1))
    flat = np.concatenate([size.reshape(-1) for size in sizes])
    owner = np.concatenate([index.reshape(-1) for index in owners])
    counts = np.zeros_like(flat)
    for i, count in enumerate(keep):
        (mine,) = np.nonzero((owner == i) & (flat > 0))
        caps = flat[mine].tolist()
        shares = [Fraction(cap) for cap in caps]
        counts[mine] = allocate(shares, [0] * len(caps), caps, min(count, sum(caps)))
    ends = np.cumsum([size.size for size in sizes])[:-1]
    parts = np.split(counts, ends)
    return [part.reshape(s.shape) for part, s in zip(parts, sizes, strict=True)]


def _swept(statistics: Statistics, net: Network, name, rule, *, keep=None, masks=None):
    """Return the updated weights of a leaf and its masks."""
    leaf = net.leaves[name]
    dtype = at_least_float32(leaf.array.dtype)
    start = leaf.array.astype(dtype)
    weights, kept = jnp.zeros_like(start), jnp.zeros_like(start)
    seen = jnp.zeros_like(start)
    alive = jnp.ones(start.shape, bool) if leaf.mask is None else leaf.mask
    given = alive if masks is None else masks & alive
    for i, use in enumerate(statistics.uses[name]):
        covered = use.covered()
        sums: Inputs = statistics.inputs[name][i]
        gram: Any = sums.gram
        gram = gram.reshape(covered.shape[0], *gram.shape[-2:]).astype(dtype)
        open_ = use.matrices(given.astype(dtype)) > 0
        number = None if keep is None else jnp.asarray(keep[i], jnp.int32)
        new, mask = _sweep(
            use.matrices(start), gram, covered, open_, number, rule, masks is not None
        )
        weights += use.leaf(jnp.where(covered, new, jnp.zeros_like(new)))
        kept += use.leaf((mask & covered).astype(dtype))
        seen += use.leaf(covered.astype(dtype))
    final = given if masks is not None else (kept > 0) & alive
    weights = jnp.where(seen > 0, weights, start)
    weights = jnp.where(final, weights, jnp.zeros_like(weights))
    return weights.astype(leaf.array.dtype), final


@functools.partial(jax.jit, static_argnames=("rule", "fixed"))
def _sweep(weights, gram, covered, open_, keep, rule: _Rule, fixed: bool):
    """Sweep over the inputs of all matrices; returns weights and masks."""
    number, inputs = gram.shape[:2]
    keep = (
        jnp.zeros((number, -(-inputs // rule.block)), jnp.int32)
        if keep is None
        else keep
    )

    def one(parts):
        weights, gram, covered, open_, keep = parts
        return _sweep_one(weights, gram, covered, open_, keep, rule, fixed)

    at_once = max(1, min(number, _AT_ONCE // inputs**2))
    parts = (weights, gram, covered, open_, keep)
    return jax.lax.map(one, parts, batch_size=at_once)


def _upper(gram: jax.Array, dead: jax.Array, damping: float) -> jax.Array:
    """Return U, upper triangular, U^T U = (H + lambda I)^-1.

    With the inputs in reverse order, H = L L^T; L^-1 in reverse order is U.
    """
    diagonal = jnp.diagonal(gram)
    mean = jnp.sum(diagonal) / jnp.maximum(jnp.sum(~dead), 1)
    gram = gram + jnp.diag(jnp.where(dead, jnp.ones_like(diagonal), damping * mean))
    factor = jnp.linalg.cholesky(gram[::-1, ::-1])
    identity = jnp.eye(len(gram), dtype=gram.dtype)
    return jax.scipy.linalg.solve_triangular(factor, identity, lower=True)[::-1, ::-1]


def _sweep_one(weights, gram, covered, open_, keep, rule: _Rule, fixed: bool):
    """Sweep over the inputs of one matrix, block by block."""
    inputs = len(weights)
    known = jnp.any(covered, axis=1)
    gram = jnp.where(known[:, None] & known[None, :], gram, jnp.zeros_like(gram))
    block = min(rule.block, inputs)
    blocks = -(-inputs // block)
    more = blocks * block - inputs
    gram = jnp.pad(gram, ((0, more), (0, more)))
    rows = ((0, more), (0, 0))
    weights = jnp.pad(jnp.where(covered, weights, jnp.zeros_like(weights)), rows)
    covered, open_ = jnp.pad(covered, rows), jnp.pad(open_, rows)
    dead = jnp.diagonal(gram) == 0
    upper = _upper(gram, dead, rule.damping)
    slopes = jnp.where(dead, jnp.inf, jnp.diagonal(upper))
    place = jnp.arange(blocks * block)

    def cut(array, i):
        return jax.lax.dynamic_slice_in_dim(array, i * block, block)

    def step(i, state):
        weights, masks = state
        here, u, slope = cut(weights, i), cut(upper, i), cut(slopes, i)
        free = cut(covered, i) & cut(open_, i)
        shut = cut(covered, i) & ~cut(open_, i)
        own = jax.lax.dynamic_slice_in_dim(u, i * block, block, axis=1)
        scores = jnp.square(here / slope[:, None])
        if fixed:
            kept = ~shut
        elif rule.pattern is None:
            kept = _highest(jnp.where(free, scores, -jnp.ones_like(scores)), keep[i])
            kept |= ~cut(covered, i)
        else:
            kept = jnp.ones_like(free)
        here, kept, errors = _columns(here, own, slope, kept, free, shut, rule, fixed)
        later = jnp.where(place[None, :] >= (i + 1) * block, u, jnp.zeros_like(u))
        weights = weights - jnp.matmul(later.T, errors, precision=_EXACT)
        start = (i * block, 0)
        weights = jax.lax.dynamic_update_slice(weights, here, start)
        return weights, jax.lax.dynamic_update_slice(masks, kept, start)

    masks = jnp.ones(weights.shape, bool)
    weights, masks = jax.lax.fori_loop(0, blocks, step, (weights, masks))
    return weights[:inputs], masks[:inputs]


def _highest(scores: jax.Array, number: jax.Array) -> jax.Array:
    """Return the mask of the highest scores; of equal ones the first."""
    order = jnp.argsort(-scores.reshape(-1), stable=True)
    flags = jnp.arange(order.size) < number
    return jnp.zeros(order.size, bool).at[order].set(flags).reshape(scores.shape)


def _columns(here, own, slope, kept, free, shut, rule: _Rule, fixed: bool):
    """Prune the inputs of one block, one after the other."""
    number = jnp.arange(len(here))

    def step(j, state):
        here, kept, errors = state
        if rule.pattern is not None and not fixed:
            n, m = rule.pattern
            start = j - j % m
            group = jax.lax.dynamic_slice_in_dim(here, start, m)
            scale = jax.lax.dynamic_slice_in_dim(slope, start, m)
            open_ = jax.lax.dynamic_slice_in_dim(free, start, m)
            gone = jax.lax.dynamic_slice_in_dim(shut, start, m)
            scores = jnp.square(group / scale[:, None])
            scores = jnp.where(open_, scores, -jnp.ones_like(scores))
            best = (n_m_masks(scores, n, m) | ~open_) & ~gone
            chosen = jax.lax.dynamic_update_slice_in_dim(kept, best, start, 0)
            kept = jnp.where(j % m == 0, chosen, kept)
        error = jnp.where(kept[j], jnp.zeros_like(here[j]), here[j] / slope[j])
        later = jnp.where(number >= j, own[j], jnp.zeros_like(own[j]))
        here = here - later[:, None] * error[None, :]
        return here, kept, errors.at[j].set(error)

    return jax.lax.fori_loop(0, len(here), step, (here, kept, jnp.zeros_like(here)))
