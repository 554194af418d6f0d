"""Layer distributions: how many of the kept weights each layer gets.

A distribution is a function from the shape of a layer to its share, a positive number
of which only proportions count, or to None: then layers have no shares and are ranked
together. Shares become whole counts that add up exactly, by largest remainders.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np

from jaxprune.masks import _counts as counts
from jaxprune.masks._counts import Count

Distribution = Callable[[tuple[int, ...]], float | None]
"""Shape of a layer to its share of what is kept, or None: layers ranked together."""


def uniform(shape: tuple[int, ...]) -> float:
    """Keep the same fraction of every layer: its share is its size.

        k_l proportional to n_l = prod_d n_ld

    Args:
      shape: that of one layer.

    Returns:
      The share.

    Examples:
      >>> uniform((3, 3, 16, 16))
      2304
    """
    return math.prod(shape)


def erk(shape: tuple[int, ...]) -> float:
    """Keep more of layers that are small for their inputs and outputs.

        k_l proportional to sum_d n_ld

    that is, densities proportional to `sum_d(n_ld) / prod_d(n_ld)`, kernel axes
    included (Erdos-Renyi-Kernel). Layers that would keep more than they have are kept
    dense.

    Args:
      shape: that of one layer.

    Returns:
      The share.

    Examples:
      >>> erk((3, 3, 16, 16)), erk((1024, 10))
      (38, 1034)

    References:
      Evci et al., Rigging the Lottery: Making All Tickets Winners, arXiv:1911.11134,
      2020, Sec. 3; Mocanu et al., Scalable training of artificial neural networks with
      adaptive sparse connectivity, 2018, Eq. (1).
    """
    return sum(shape)


def global_(shape: tuple[int, ...]) -> None:
    """Rank the weights of all layers together: no layer has a share of its own.

    Args:
      shape: that of one layer; without effect.

    Returns:
      None.

    Examples:
      >>> global_((3, 3, 16, 16)) is None
      True
    """
    del shape


def layer_counts(
    shapes: Mapping[str, tuple[int, ...]],
    *,
    keep_ratio: float,
    distribution: Distribution = erk,
    min_keep_ratio: float = 0.0,
) -> dict[str, int]:
    """Return how many weights each layer keeps.

        k_l = clip(epsilon share_l, floor_l, n_l),   sum_l k_l = floor(keep_ratio n)

    with the epsilon that makes the counts add up, rounded by largest remainders.

    Args:
      shapes: layer name to shape.
      keep_ratio: of all weights together, in (0, 1].
      distribution: shape to share; `erk` or `uniform`.
      min_keep_ratio: in [0, 1], of each layer, rounded up.

    Returns:
      Layer name to count; together exactly `floor(keep_ratio * n)`.

    Raises:
      ValueError: an argument is out of range, the floors together exceed the count, or
        the distribution gives no shares.

    Examples:
      >>> layer_counts({"conv": (3, 3, 16, 16), "dense": (1024, 10)}, keep_ratio=0.1)
      {'conv': 44, 'dense': 1210}
    """
    counts.check_floor("layer_counts", min_keep_ratio)
    sizes = [math.prod(shape) for shape in shapes.values()]
    keep = counts.exact_count("layer_counts", keep_ratio, sum(sizes))
    floors = [counts.layer_floor(size, min_keep_ratio) for size in sizes]
    shares = shares_of("layer_counts", distribution, list(shapes.values()))
    if shares is None:
        raise ValueError(
            "`layer_counts(distribution=...)`: a distribution that ranks all layers "
            "together gives no counts. Pass `masks.erk` or `masks.uniform`."
        )
    check_bounds("layer_counts", keep_ratio, min_keep_ratio, keep, floors, sizes)
    return dict(zip(shapes, allocate(shares, floors, sizes, keep), strict=True))


def shares_of(
    call: str, distribution: Distribution, shapes: Sequence[tuple[int, ...]]
) -> list[Fraction] | None:
    """Return the shares of layers, or None if they are ranked together.

    Raises:
      ValueError: some layers have shares and some have none, or one is not positive.
    """
    shares = [distribution(shape) for shape in shapes]
    if all(share is None for share in shares):
        return None
    for share, shape in zip(shares, shapes, strict=True):
        if share is None or not 0 < share < math.inf:
            raise ValueError(
                f"`{call}(distribution=...)`: shares must be positive numbers, or None "
                f"for every layer, got {share!r} for the shape {shape}. Pass "
                "`masks.erk`, `masks.uniform` or a function that returns such shares."
            )
    return [Fraction(share or 0) for share in shares]


def check_bounds(call, keep_ratio, min_keep_ratio, keep, floors, caps) -> None:
    """Refuse a count below the floors of the layers, or above what they have left.

    Raises:
      ValueError: the count is out of bounds.
    """
    least, most, size = sum(floors), sum(caps), max(sum(caps), 1)
    if keep < least:
        raise ValueError(
            f"`{call}(keep_ratio={keep_ratio})`: {keep} weights would be kept, with "
            f"`min_keep_ratio={min_keep_ratio}` the layers together keep at least "
            f"{least}. Ask for a keep ratio of at least {least / size:.3g}, or lower "
            "`min_keep_ratio`."
        )
    if keep > most:
        raise ValueError(
            f"`{call}(keep_ratio={keep_ratio})`: {keep} weights would be kept, but the "
            f"masks that already hold keep {most}, and nothing comes back. Ask for "
            "less."
        )


def allocate(
    shares: Sequence[Fraction],
    floors: Sequence[int],
    caps: Sequence[int],
    keep: int,
) -> list[int]:
    """Return whole counts in proportion to shares, within bounds, that add up.

    Args:
      shares: positive.
      floors: minimum counts.
      caps: maximum counts, not below the floors.
      keep: the sum, from that of the floors to that of the caps.
    """
    exact = _fill_up(shares, floors, caps, keep)
    whole = [math.floor(count) for count in exact]
    missing = keep - sum(whole)
    # Stable: of equal remainders the first layer gets the weight.
    losers = sorted(range(len(whole)), key=lambda i: whole[i] - exact[i])
    for i in losers[:missing]:
        whole[i] += 1
    return whole


def _fill_up(shares, floors, caps, keep) -> list[Fraction]:
    """Return `clip(epsilon share, floor, cap)` for the epsilon that sums to `keep`.

    The sum is piecewise linear in epsilon: its corners are visited in order.
    """
    corners = []
    for i, (share, floor, cap) in enumerate(zip(shares, floors, caps, strict=True)):
        corners += [(Fraction(floor) / share, 1, i), (Fraction(cap) / share, -1, i)]
    fixed, slope = Fraction(sum(floors)), Fraction(0)
    epsilon = Fraction(0)
    for corner, change, i in sorted(corners, key=lambda c: (c[0], -c[1])):
        if slope and fixed + slope * corner >= keep:
            break
        # A layer leaves its floor, or arrives at its cap.
        bound = floors[i] if change == 1 else caps[i]
        fixed += -bound if change == 1 else bound
        slope += change * shares[i]
        epsilon = corner
    epsilon = (keep - fixed) / slope if slope else epsilon
    return [
        min(max(epsilon * share, Fraction(floor)), Fraction(cap))
        for share, floor, cap in zip(shares, floors, caps, strict=True)
    ]


def allocate_traced(
    shares: Sequence[Fraction],
    floors: Sequence[int],
    caps: Sequence[int],
    keep: Count,
) -> Count:
    """Return what `allocate` does, for a traced sum; epsilon is found in float32.

    Args:
      shares: see `allocate`.
      floors: see `allocate`.
      caps: see `allocate`.
      keep: the sum; brought within the bounds.

    Returns:
      Counts, shape (layers,), that add up exactly.
    """
    low, high = counts.from_ints(floors), counts.from_ints(caps)
    keep = counts.maximum(keep, counts.from_ints(sum(floors)))
    keep = counts.minimum(keep, counts.from_ints(sum(caps)))
    bounds = [
        jnp.asarray(np.asarray(x, np.float64), jnp.float32) for x in (floors, caps)
    ]
    weight = jnp.asarray(np.asarray([float(share) for share in shares]), jnp.float32)
    target = keep.high * jnp.float32(4096) + keep.low

    def filled(epsilon):
        exact = jnp.clip(epsilon * weight, *bounds)
        whole = counts.minimum(counts.maximum(counts.floor_of(exact), low), high)
        return exact, whole

    def set_bit(i, bits):
        candidate = bits | (jnp.uint32(1) << (30 - i).astype(jnp.uint32))
        exact, whole = filled(jax.lax.bitcast_convert_type(candidate, jnp.float32))
        fits = (jnp.sum(exact) <= target) & counts.at_least(keep, counts.total(whole))
        return jnp.where(fits, candidate, bits)

    start = jnp.zeros((), jnp.uint32) + jnp.zeros_like(keep.high, jnp.uint32)
    bits = jax.lax.fori_loop(0, 31, set_bit, start)
    exact, whole = filled(jax.lax.bitcast_convert_type(bits, jnp.float32))
    return _hand_out(exact - jnp.floor(exact), whole, high, keep)


def _hand_out(remainders, whole: Count, high: Count, keep: Count) -> Count:
    """Give what rounding left over: one to each by remainder, then in order."""
    below = counts.at_least(high, counts.plus(whole, counts.from_ints(1)))
    order = jnp.argsort(-jnp.where(below, remainders, -1), stable=True)
    place = jnp.argsort(order).astype(jnp.int32)
    left = counts.to_uint32(counts.minus(keep, counts.total(whole)))
    extra = ((place < left.astype(jnp.int32)) & below).astype(jnp.int32)
    whole = counts.plus(whole, counts.from_ints(extra))
    left = counts.minus(keep, counts.total(whole))
    space = counts.minus(high, whole)
    before = jax.tree.map(lambda x: x[:-1], counts.cumulative(space))
    more = counts.minimum(counts.minus(left, before), space)
    return counts.plus(whole, counts.maximum(more, counts.from_ints(0)))
