"""Differentiable keep probabilities of channels whose mean is a given keep ratio.

Differentiable pruning of one group of C channels: every channel has an importance
b_i > 0 and is kept with probability

    p_i = min(sigmoid(beta_2 (log b_i - log beta_1)) + floor, 1)

The sharpness beta_2 is given; the threshold beta_1 is the one at which the expected
fraction of kept channels is the keep ratio alpha,

    (1 / C) sum_i p_i(beta_1) = alpha,

so alpha is what is learned, and beta_1(alpha) is an implicit function. As beta_2 grows
the probabilities become 0 or 1 and beta_1 a hard threshold on the importance.

References:
  [DSA] Ning et al., "DSA: More Efficient Budgeted Pruning via Differentiable Sparsity
  Allocation", ECCV 2020, arXiv:2004.02164, Sec. 3.3; the floor is in the authors' code.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Sampler = Callable[[Any, jax.Array, jax.Array], jax.Array]
"""`sampler(key, probabilities, kept) -> gates`, all but the key of shape (..., C).

`kept` marks the channels that the hard decision would keep now. Gates are in [0, 1],
differentiable in the probabilities.
"""

# Both found by drawing 20,000 groups of 1 to 300 channels, sharpness up to 10,000.
_ITERATIONS = {32: 16, 64: 20}  # by the bits of the numbers, to their rounding
_HALVINGS = 12
# Beyond these every decision is made, and rounding would be all that is left.
_SHARPEST = {32: 1e6, 64: 1e8}
_LEAST_IMPORTANCE = 1e-8
_FAR = 20.0  # sigmoid(-20) is 2e-9


def keep_probabilities(
    keep_ratio: jax.Array,
    importance: jax.Array,
    sharpness: jax.Array | float,
    *,
    floor: float = 0.01,
    valid: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Return the keep probabilities, and the threshold of every group.

    With x_i = beta_2 log b_i the root u = beta_2 log beta_1 of mean_i p_i = alpha is
    found by Newton's method on the logits of both sides, which is exact in one step
    where all importances are equal, kept inside a bracket by bisection. All groups are
    solved at once. The derivative is that of the implicit function,

        dp_i / dalpha = C s_i (1 - s_i) / sum_j s_j (1 - s_j),   s_i = sigmoid(x_i - u)

    over the channels with p_i < 1, at the cost of one pass. Importance and sharpness
    are constants for the derivative, as published. (The authors' own backward pass
    also counts channels at p_i = 1, where the sum of the derivatives is then not C.)

    Args:
      keep_ratio: alpha, shape () or (...,), in [0, 1]; below the floor the
        probabilities stay at the floor, while the derivative stays that of the rest.
        NaN gives NaN.
      importance: b, shape (..., C), not negative; 1e-8 is added. Computed with in
        float32 at least.
      sharpness: beta_2 > 0, shape () or (...,); more than 1e6 counts as 1e6, in float64
        more than 1e8.
      floor: the minimum probability, in [0, 1).
      valid: bool, shape (..., C): False marks padding, where the probability is 0. At
        least one channel of each group must be valid.

    Returns:
      The probabilities p, shape (..., C), and log beta_1, shape (...,), float32 or
      float64. The second is a constant for derivatives.

    Raises:
      ValueError: if `floor` is a number outside [0, 1).

    Examples:
      >>> importance = jnp.array([0.1, 1.0, 2.0, 4.0])
      >>> p, _ = keep_probabilities(jnp.float32(0.5), importance, 50.0, floor=0.0)
      >>> p.round(3).tolist()
      [0.0, 0.0, 1.0, 1.0]

    References:
      [DSA] Sec. 3.3, Eq. (4) and (5).
    """
    if isinstance(floor, float | int) and not 0 <= floor < 1:
        raise ValueError(
            f"`keep_probabilities(floor={floor})`: must be in [0, 1), the minimum "
            "probability; 0.01 is usual."
        )
    importance = jnp.asarray(importance)
    dtype = jnp.promote_types(importance.dtype, jnp.float32)
    importance = jax.lax.stop_gradient(importance.astype(dtype))
    sharpness = jax.lax.stop_gradient(jnp.asarray(sharpness, dtype))
    sharpness = jnp.minimum(sharpness, _SHARPEST[jnp.finfo(dtype).bits])
    sharpness = jnp.broadcast_to(sharpness, importance.shape[:-1])
    valid = jnp.ones(importance.shape, bool) if valid is None else valid
    scores = sharpness[..., None] * jnp.log(importance + _LEAST_IMPORTANCE)
    keep_ratio = jnp.asarray(keep_ratio, dtype)
    keep_ratio = jnp.broadcast_to(keep_ratio, importance.shape[:-1])
    probabilities, threshold = _probabilities(
        keep_ratio, scores, valid, jnp.asarray(floor, dtype)
    )
    return probabilities, threshold / sharpness


@jax.custom_vjp
def _probabilities(keep_ratio, scores, valid, floor):
    return _forward(keep_ratio, scores, valid, floor)[0]


@jax.jit
def _forward(keep_ratio, scores, valid, floor):
    # With r certain channels and the others at the floor the mean would be asked for;
    # the root lies within reach of the score at that rank. Scores are measured from
    # there: sharpness makes them large, and they would lose the last digits.
    count = jnp.sum(valid, axis=-1)
    certain = count * (keep_ratio - floor) / (1 - floor)
    rank = jnp.clip(jnp.ceil(certain), 1, count)
    origin, slack = _near_rank(scores, valid, rank)
    centred = jnp.where(valid, scores - origin[..., None], 0)
    root = _root(keep_ratio, centred, valid, floor, slack)
    logits = centred - root[..., None]
    probabilities = jnp.where(valid, _gate(logits, floor), 0)
    return (probabilities, origin + root), (logits, valid, floor)


def _near_rank(scores, valid, rank):
    """Return the score at a rank of each group, 1 for the largest, or little more.

    Returns:
      A number that fewer than `rank` scores exceed, and a bound on its distance from
      the score at the rank: 1/4096 of the range of the scores.
    """
    # Counting is faster than sorting, and what is found need not be a score.
    above = jnp.max(scores, -1, where=valid, initial=-jnp.inf)
    below = jnp.min(scores, -1, where=valid, initial=jnp.inf)

    def halve(_, bounds):
        below, above = bounds
        middle = (below + above) / 2
        larger = jnp.sum(scores > middle[..., None], -1, where=valid)
        high = larger >= rank
        return jnp.where(high, middle, below), jnp.where(high, above, middle)

    # Under `shard_map` a loop starts with what varies over devices as it will: the
    # bounds, as the scores do and as the ranks do.
    start = below + rank * 0, above + rank * 0
    below, above = jax.lax.fori_loop(0, _HALVINGS, halve, start)
    return above, above - below


def _gate(logits, floor):
    return jnp.minimum(jax.nn.sigmoid(jnp.clip(logits, -_FAR, _FAR)) + floor, 1)


def _root(keep_ratio, scores, valid, floor, slack):
    """Return u in [-20 - slack, 20] with mean p(scores - u) = keep_ratio."""
    count = jnp.sum(valid, axis=-1).astype(scores.dtype)
    tiny = jnp.finfo(scores.dtype).tiny

    def odds(mean):  # of the share between the floor and 1
        return jnp.maximum(mean - floor, tiny), jnp.maximum(1 - mean, tiny)

    asked, rest = odds(keep_ratio)

    def improve(_, state):
        low, high, root = state
        gate = _gate(scores - root[..., None], floor)
        mean = jnp.sum(gate, -1, where=valid) / count
        share = gate - floor
        slope = jnp.sum(share * (1 - share), -1, where=valid & (gate < 1)) / count
        low = jnp.where(mean >= keep_ratio, root, low)
        high = jnp.where(mean >= keep_ratio, high, root)
        kept, lost = odds(mean)
        step = jnp.log(kept * rest / (lost * asked)) * kept * lost
        newton = root + step / (jnp.maximum(slope, tiny) * (1 - floor))
        inside = (newton >= low) & (newton <= high)
        return low, high, jnp.where(inside, newton, (low + high) / 2)

    start = (scores[..., 0] + slack + keep_ratio) * 0
    bounds = start - _FAR - slack, start + _FAR
    iterations = _ITERATIONS[jnp.finfo(scores.dtype).bits]
    root = jax.lax.fori_loop(0, iterations, improve, (*bounds, start))[2]
    # No comparison holds for NaN, and the bracket would end somewhere.
    return jnp.where(jnp.isnan(keep_ratio), keep_ratio, root)


def _backward(residuals, cotangents):
    logits, valid, floor = residuals
    cotangent, _ = cotangents  # the threshold is a constant
    free = valid & (jax.nn.sigmoid(logits) + floor < 1)
    # Where all are certain to be kept, all of them answer.
    free |= valid & ~jnp.any(free, axis=-1, keepdims=True)
    # Normalised in logarithms: slopes of sharp gates underflow.
    slopes = -jnp.abs(logits) - 2 * jnp.log1p(jnp.exp(-jnp.abs(logits)))
    shares = jax.nn.softmax(slopes, axis=-1, where=free)
    count = jnp.sum(valid, axis=-1).astype(logits.dtype)
    keep_ratio_bar = count * jnp.sum(cotangent * shares, axis=-1, where=free)
    return keep_ratio_bar, jnp.zeros_like(logits), None, jnp.zeros_like(floor)


_probabilities.defvjp(_forward, _backward)


def bernoulli_mask(
    key: jax.Array | None, probabilities: jax.Array, kept: jax.Array | None = None
) -> jax.Array:
    """Draw masks of 0 and 1, with a straight-through derivative.

        m_i = 1 if U_i < p_i, else 0,  U_i ~ Uniform(0, 1),   dm_i / dp_i = 1

    Args:
      key: a typed PRNG key; equal keys give equal masks on every replica.
      probabilities: p, shape (...), in [0, 1].
      kept: not used.

    Returns:
      m, 0 or 1, of the shape and dtype of `probabilities`.

    Raises:
      ValueError: if `key` is None.

    Examples:
      >>> bernoulli_mask(jax.random.key(0), jnp.array([0.0, 1.0])).tolist()
      [0.0, 1.0]

    References:
      [DSA] Sec. 3.3.
    """
    del kept
    _check_key("bernoulli_mask", key)
    assert key is not None
    # In half precision small probabilities would be drawn too often.
    dtype = jnp.promote_types(probabilities.dtype, jnp.float32)
    drawn = jax.random.uniform(key, probabilities.shape, dtype)
    return _straight_through(drawn < probabilities, probabilities)


def concrete_mask(
    key: jax.Array | None,
    probabilities: jax.Array,
    kept: jax.Array | None = None,
    *,
    temperature: float = 2 / 3,
) -> jax.Array:
    """Draw relaxed Bernoulli masks, differentiable without a straight-through.

        m_i = sigmoid((logit p_i + logit U_i) / T),   U_i ~ Uniform(0, 1)

    Args:
      key: a typed PRNG key.
      probabilities: p, shape (...), in [0, 1].
      kept: not used.
      temperature: T > 0; as it falls the masks become 0 or 1.

    Returns:
      m in [0, 1], of the shape and dtype of `probabilities`.

    Raises:
      ValueError: if `key` is None, or the temperature is not positive.

    Examples:
      >>> m = concrete_mask(jax.random.key(0), jnp.array([0.01, 0.99]))
      >>> bool(m[0] < 0.5 < m[1])
      True

    References:
      Maddison, Mnih, Teh, "The Concrete Distribution", 2017, arXiv:1611.00712, Eq. (8).
    """
    if not temperature > 0:
        raise ValueError(
            f"`concrete_mask(temperature={temperature})`: must be positive; 2/3 is "
            "usual."
        )
    _check_key("concrete_mask", key)
    assert key is not None
    tiny = jnp.finfo(probabilities.dtype).eps
    p = jnp.clip(probabilities, tiny, 1 - tiny)
    noise = jax.random.logistic(key, p.shape, p.dtype)
    return jax.nn.sigmoid((jnp.log(p) - jnp.log1p(-p) + noise) / temperature)


def deterministic_mask(
    key: jax.Array | None, probabilities: jax.Array, kept: jax.Array
) -> jax.Array:
    """Keep the most important channels, with the derivative dm_i/dp_i = 1.

        m_i = 1 for the round(alpha C) most important channels, else 0

    The most important are the most probable, but where the probabilities are too sharp
    to differ only the importance tells them apart.

    Args:
      key: not used.
      probabilities: p, shape (..., C), in [0, 1].
      kept: bool, shape (..., C): True for the most important channels.

    Returns:
      m, 0 or 1, of the shape and dtype of `probabilities`.

    Examples:
      >>> p = jnp.array([0.2, 0.7])
      >>> deterministic_mask(None, p, jnp.array([False, True])).tolist()
      [0.0, 1.0]

    References:
      [DSA] Sec. 3.3, with the expectation in place of a draw.
    """
    del key
    return _straight_through(kept, probabilities)


def _check_key(call: str, key) -> None:
    if key is None:
        raise ValueError(
            f"`{call}(key=None, ...)`: must be a typed PRNG key, masks are drawn at "
            "random. Give `apply` a new one for every step, such as "
            "`jax.random.fold_in(key, step)`."
        )


def _straight_through(mask, probabilities):
    mask = mask.astype(probabilities.dtype)
    return probabilities + jax.lax.stop_gradient(mask - probabilities)
