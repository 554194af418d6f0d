"""Optimizers that move the thresholds of a pruner beside its weights.

Both wrap the optimizer of the weights and act on `{"params": ..., "variables": ...}`,
what a training step differentiates; the variables are thresholds, in units of the
weights, as those of `jaxprune.soft_thresholding`.

==================  ===========================================================
`follow_threshold`  open loop: the threshold is given, the size is what results
`reach_keep_ratio`  closed loop: the size is given, the threshold is found
==================  ===========================================================

>>> import optax
>>> from jaxprune import schedules
>>> rate = optax.cosine_decay_schedule(0.1, 1000)
>>> shape = schedules.from_learning_rate(rate, final=1.0, steps=1000)
>>> optimizer = reach_keep_ratio(optax.sgd(rate, 0.9), keep_ratio=0.05, shape=shape)

======  ===========  ================================================
symbol  here         meaning
======  ===========  ================================================
theta   `params`     dense latent weights
D_t     `variables`  thresholds after t steps; unit: weight
x_t     `shape`      share of the final threshold due after t steps
q_t     -            threshold that would keep the asked fraction now
======  ===========  ================================================

References:
  [LATS] Chen et al., A Unified Framework for Soft Threshold Pruning, arXiv:2302.13019,
    2023.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxprune import tree
from jaxprune.base._checks import check_scalar_or_schedule
from jaxprune.base._protocols import Params
from jaxprune.masks._ranking import keep_count, kth_largest
from jaxprune.transforms._common import with_extra_args


class ThresholdState(NamedTuple):
    """State of `follow_threshold` and `reach_keep_ratio`.

    Attributes:
      count: steps taken, int32 scalar.
      inner_state: the state of the wrapped optimizer, on the weights.
    """

    count: jax.Array
    inner_state: optax.OptState


def follow_threshold(
    optimizer: optax.GradientTransformation, *, threshold: optax.ScalarOrSchedule
) -> optax.GradientTransformationExtraArgs:
    """Move the thresholds along a schedule: D_{t+1} = d(t + 1).

    With `jaxprune.soft_thresholding` this is the forward form of
    `jaxprune.methods`, with the same trajectory. A schedule that does not
    start at 0 asks for the same `init_threshold`.

    Args:
      optimizer: moves the weights, weight decay included.
      threshold: d, a scalar >= 0 or a schedule of the number of steps taken; see
        `jaxprune.schedules`. Unit: weight.

    Returns:
      A transformation of `{"params": ..., "variables": ...}` with state
      `ThresholdState`. Gradients of the variables are not looked at.

    Raises:
      ValueError: `threshold` is negative; at `update`, `params` is missing.
      TypeError: `optimizer` or `threshold` is of another kind.

    Examples:
      >>> import jax.numpy as jnp
      >>> optimizer = follow_threshold(
      ...     optax.sgd(1.0), threshold=optax.linear_schedule(0.0, 1.0, 4)
      ... )
      >>> both = {"params": jnp.ones(2), "variables": {"w": jnp.float32(0)}}
      >>> updates, _ = optimizer.update(both, optimizer.init(both), both)
      >>> float(updates["variables"]["w"])
      0.25

    References:
      [LATS]; D is set after each step, as the authors do.
    """
    check_scalar_or_schedule("follow_threshold", "threshold", threshold)

    def move(params, thresholds, count):
        del params
        now = threshold(count + 1) if callable(threshold) else threshold
        return jax.tree.map(lambda d: jnp.asarray(now, d.dtype) - d, thresholds)

    return _with_thresholds("follow_threshold", optimizer, move)


def reach_keep_ratio(
    optimizer: optax.GradientTransformation,
    *,
    keep_ratio: float,
    shape: optax.Schedule,
    where: tree.Where = tree.kernels,
) -> optax.GradientTransformationExtraArgs:
    """Move the thresholds to where they keep the asked fraction, along a given shape.

        D_{t+1} = D_t + (x_{t+1} - x_t) / (1 - x_t) (q_t - D_t)

    where q_t, read off the weights of every step, is the threshold that would keep the
    asked fraction now. At each step the rest of the way is spread over the rest of the
    shape as if q stayed: while it does, D_t = q x_t, and with a shape from
    `jaxprune.schedules.from_learning_rate` increments are proportional to the
    learning rate and the L1 coefficient is constant; as it drifts (weights grow back,
    weight decay shrinks them) the coefficient drifts with it. When the shape arrives at
    1, D = q: the fraction is met exactly, regrowth included, and held from there on.
    There is no gain to tune and no final threshold to guess.

    Finding q takes 32 counting passes over the weights, as global magnitude does.

    Args:
      optimizer: moves the weights, weight decay included.
      keep_ratio: of all selected weights, in (0, 1].
      shape: x_t, a schedule from 0 to 1 that does not fall; any of
        `jaxprune.schedules` with `final=1.0`.
      where: the leaves that count; the selection given to the pruner.

    Returns:
      A transformation of `{"params": ..., "variables": ...}` with state
      `ThresholdState`. Gradients of the variables are not looked at.

    Raises:
      ValueError: `keep_ratio` is outside (0, 1]; at `update`, `params` is missing.
      TypeError: `optimizer` is no transformation, or `shape` no schedule.

    Examples:
      >>> import jax.numpy as jnp
      >>> optimizer = reach_keep_ratio(
      ...     optax.sgd(0.0), keep_ratio=0.5, shape=optax.linear_schedule(0.0, 1.0, 2)
      ... )
      >>> both = {
      ...     "params": {"w": jnp.array([[1.0, 2.0, 3.0, 4.0]])},
      ...     "variables": {"w": jnp.float32(0)},
      ... }
      >>> state = optimizer.init(both)
      >>> for _ in range(2):
      ...     updates, state = optimizer.update(both, state, both)
      ...     both = optax.apply_updates(both, updates)
      ...     print(float(both["variables"]["w"]))
      1.0
      2.0

    References:
      [LATS], which leaves the final threshold to trials; the control is ours.
    """
    keep_count(keep_ratio, 1)  # checks the range
    if not callable(shape):
        raise TypeError(
            f"`reach_keep_ratio(shape={shape!r})` must be a schedule from 0 to 1. Pass"
            " `schedules.from_learning_rate(rate, final=1.0, steps=n)`."
        )

    def move(params, thresholds, count):
        goal = _threshold_that_keeps(params, keep_ratio, where)
        now, then = (jnp.asarray(shape(count + i), jnp.float32) for i in (0, 1))
        left = 1 - now
        share = jnp.where(left > 0, (then - now) / jnp.where(left > 0, left, 1), 1)
        share = jnp.clip(share, 0, 1)
        return jax.tree.map(lambda d: (share * (goal - d)).astype(d.dtype), thresholds)

    return _with_thresholds("reach_keep_ratio", optimizer, move)


def _threshold_that_keeps(params: Params, keep_ratio: float, where: tree.Where):
    """The magnitude of the largest weight that is not among those to keep."""
    sizes = [jnp.abs(leaf) for leaf in tree.select(params, where).values()]
    total = sum(x.size for x in sizes)
    keep = keep_count(keep_ratio, total)
    if keep == total:
        return jnp.zeros((), jnp.float32)
    return kth_largest(sizes, keep + 1).astype(jnp.float32)


def _with_thresholds(call: str, optimizer: Any, move):
    """The optimizer on the weights, and `move` on the thresholds after it."""
    inner = with_extra_args(call, optimizer)

    def init(params):
        # optax asks where the parameter-shaped trees are with a placeholder for both.
        weights = params["params"] if isinstance(params, dict) else params
        return ThresholdState(jnp.zeros([], jnp.int32), inner.init(weights))

    def update(updates, state, params=None, **extra_args):
        if params is None:
            raise ValueError(
                f"`{call}(...).update(updates, state, params)` must be given the"
                " parameters, got params=None. Pass"
                ' `{"params": params, "variables": variables}`.'
            )
        moves, inner_state = inner.update(
            updates["params"], state.inner_state, params["params"], **extra_args
        )
        weights = optax.apply_updates(params["params"], moves)
        steps = move(weights, params["variables"], state.count)
        count = jnp.asarray(optax.safe_increment(state.count))
        return (
            {"params": moves, "variables": steps},
            ThresholdState(count, inner_state),
        )

    return optax.GradientTransformationExtraArgs(init, update)
