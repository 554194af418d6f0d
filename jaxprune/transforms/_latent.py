"""Dense latent weights, of which the network computes with the prox; LATS among them.

======  ===============  ============================================
symbol  here             meaning
======  ===============  ============================================
theta   `state.latent`   dense latent weights
w       `params`         weights of the network
s_t     `state.scaling`  scaling of the prox that gives w_t
D_t     `state.scaling`  the same for `lats`: threshold; unit: weight
q_t     -                threshold that would keep the target now
x_t     -                share of the final threshold due after t steps
======  ===============  ============================================

References:
  [LATS] Chen et al., A Unified Framework for Soft Threshold Pruning, arXiv:2302.13019,
    2023, with the authors' code.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxprune import tree
from jaxprune.base._checks import check_scalar_or_schedule
from jaxprune.base._dtypes import at_least_float32
from jaxprune.prox._inverse import inverse_soft_threshold
from jaxprune.prox._operators import Prox, soft_threshold
from jaxprune.schedules._from_rate import from_learning_rate
from jaxprune.schedules._published import s_lats
from jaxprune.transforms import _arguments as checks
from jaxprune.transforms import _size as size_
from jaxprune.transforms import _steps as step_
from jaxprune.transforms import _watch as watch_
from jaxprune.transforms._selection import hold, merge, only, selection


class LatentProximalState(NamedTuple):
    """State of `latent_proximal` and `lats`.

    Attributes:
      count: steps taken, int32 scalar.
      latent: the dense weights, a tree like the parameters, float32 or wider;
        `optax.MaskedNode` in the place of leaves that are not selected.
      scaling: s_t, that of the prox which gave the present parameters; the threshold of
        `lats`. A scalar, float32 or wider (a tree where the schedule gives one).
      inner_state: the state of the wrapped optimizer, on latent weights and others.
      watch: a `Watch` of the exact parameters; see `jaxprune.check`.
    """

    count: jax.Array
    latent: optax.Params
    scaling: Any
    inner_state: optax.OptState
    watch: watch_.Watch


class _Rule(NamedTuple):
    """How latent weights become weights.

    Attributes:
      begin: `latent -> s_0`.
      proceed: `latent, params, s_t, count -> prox(latent), s_{t+1}`, with the number of
        steps taken before this one.
      initialize: `latent, s_0 -> latent`.
      check: refuses parameters that do not suit the prox.
      keep_ratio: the size to reach, NaN where none is given.
    """

    begin: Callable[[Any], Any]
    proceed: Callable[[Any, Any, Any, jax.Array], tuple[Any, Any]]
    initialize: Callable[[Any, Any], Any] | None = None
    check: Callable[[Any], None] = lambda _: None
    keep_ratio: Any = np.nan


def latent_proximal(
    optimizer: optax.GradientTransformation,
    prox: Prox,
    scaling: optax.ScalarOrSchedule = 1.0,
    *,
    initialize: Callable[[Any, Any], Any] | None = None,
    where: tree.Where | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Train dense latent weights; the network computes with their prox.

        theta_{t+1} = theta_t + optimizer(dL/dw_t, theta_t)
        w_{t+1} = prox_{s_{t+1} g}(theta_{t+1})

    The latent weights theta live in the state; the parameters w are what the network,
    the loss and the user see. Gradients are taken at w and given to theta unchanged
    (straight-through), so a pruned weight keeps learning and may return. Weight decay
    inside `optimizer` acts on theta.

    The scaling is a level here, not an increment: constant s prunes at the constant
    threshold s; s_t belongs to w_t, and the first update computes s_1.
    `optax.inject_hyperparams` evaluates schedules at t instead of t + 1: give it
    `lambda step: schedule(step + 1)`.

    Parameters that are edited by anything else are overwritten by the next update;
    `jaxprune.check(state)` raises then.

    Args:
      optimizer: moves the latent weights and all other leaves; receives extra arguments
        unchanged.
      prox: a function `(params, scaling) -> params`. It is given the selected leaves,
        and `optax.MaskedNode` for the others.
      scaling: s_t, a scalar >= 0 or a schedule of the number of steps taken.
      initialize: `(params, s_0) -> latent`, the first latent weights; by default the
        parameters, so that they are dense in the first step.
      where: the leaves that get latent weights, see `jaxprune.tree`; None selects the
        kernels, True all leaves. All others move as under `optimizer` alone.

    Returns:
      A transformation, complete in itself, with state `LatentProximalState`. Nothing
      may come behind it in a chain.

    Raises:
      ValueError: `scaling` is negative; at `init`, nothing is selected or `prox` does
        not suit the parameters; at `update`, `params` is missing.
      TypeError: `optimizer`, `prox` or `scaling` is of another kind.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> from jaxprune import prox
      >>> optimizer = latent_proximal(optax.sgd(1.0), prox.soft_threshold, 0.25)
      >>> params = {"kernel": jnp.array([[1.0, 0.5]])}
      >>> state = optimizer.init(params)
      >>> grads = {"kernel": jnp.array([[0.0, 0.5]])}
      >>> updates, state = optimizer.update(grads, state, params)
      >>> optax.apply_updates(params, updates)["kernel"].tolist()
      [[0.75, 0.0]]
      >>> state.latent["kernel"].tolist()
      [[1.0, 0.0]]

    References:
      [LATS]: the reparametrisation, there inside the forward pass. Xiao, Dual Averaging
      Methods, 2010: the convex case.
    """
    call = "latent_proximal"
    checks.check_prox(call, prox)
    check_scalar_or_schedule(call, "scaling", scaling)

    def check(params):
        checks.check_result(call, prox, params)

    rule = _scheduled(prox, scaling)._replace(initialize=initialize, check=check)
    return _latent(call, optimizer, where, rule)


def lats(
    optimizer: optax.GradientTransformation,
    *,
    threshold: optax.ScalarOrSchedule | None = None,
    sparsity: Any = None,
    steps: int | None = None,
    learning_rate: optax.ScalarOrSchedule | None = None,
    where: tree.Where | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Prune by soft-thresholding latent weights, to a size or at a given threshold.

        theta_{t+1} = theta_t + optimizer(dL/dw_t, theta_t)
        w_{t+1} = S(theta_{t+1}, D_{t+1}),   S the soft threshold

    With a `sparsity` the threshold is found: it moves towards q_t, the threshold that
    would keep floor((1 - sparsity) n) of the n selected weights now,

        D_{t+1} = D_t + (x_{t+1} - x_t) / (1 - x_t) (q_{t+1} - D_t)

    so that increments are proportional to those of x, from 0 to 1 over `steps` steps.
    From then on D = q: exactly so many weights are kept, whatever grows back, equal
    magnitudes settled by position. x follows the learning rate, x_t = sum_{k<t} eta_k
    / sum_{k<N} eta_k, so that the L1 coefficient is constant; without a `learning_rate`
    that of a cosine, x_t = t / N + sin(pi t / N) / pi (S-LATS).

    With a `threshold` D_t is given, and the size is what results.

    The latent weights start at theta_0 = sign(w_0) (|w_0| + D_0), of which the given
    parameters are the soft threshold: theta_0 = w_0 for a threshold that starts at 0.

    Soft thresholds shrink the weights that are kept. Train on under the masks of
    `jaxprune.finalize`, with `jaxprune.schedules.fine_tuning`.

    Args:
      optimizer: trains the latent weights, weight decay included, and all other leaves.
      threshold: D_t >= 0, a scalar or a schedule of the number of steps taken; see
        `jaxprune.schedules`. Unit: weight.
      sparsity: the fraction of zeros among the selected weights, in [0, 1), in the
        place of `threshold`.
      steps: N >= 1, the updates after which the sparsity is met.
      learning_rate: eta_t >= 0, the optimizer's own scalar or schedule; used with
        `sparsity` only, for the shape x.
      where: the leaves that are pruned, see `jaxprune.tree`; None selects the kernels,
        True all leaves. All others move as under `optimizer` alone.

    Returns:
      A transformation, complete in itself, with state `LatentProximalState`. Nothing
      may come behind it in a chain.

    Raises:
      ValueError: not exactly one of `threshold` and `sparsity` is given, or an argument
        is out of range; at `init`, nothing is selected; at `update`, `params` is
        missing.
      TypeError: `optimizer` or `threshold` is of another kind.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> optimizer = lats(optax.sgd(1.0), sparsity=0.5, steps=1)
      >>> params = {"kernel": jnp.array([[1.0, -3.0, 0.5, 2.0]])}
      >>> state = optimizer.init(params)
      >>> updates, state = optimizer.update(
      ...     {"kernel": jnp.zeros((1, 4))}, state, params
      ... )
      >>> optax.apply_updates(params, updates)["kernel"].tolist()
      [[0.0, -2.0, 0.0, 1.0]]

    References:
      [LATS]; the authors threshold inside the forward pass, which this equals, and
      leave the final threshold to trials; the control of the size is ours.
    """
    checks.check_exactly_one("lats", {"threshold": threshold, "sparsity": sparsity})
    if sparsity is None:
        check_scalar_or_schedule("lats", "threshold", threshold)
        rule = _scheduled(soft_threshold, threshold)
    else:
        steps = checks.check_size("lats", sparsity, steps)
        if learning_rate is None:
            shape = s_lats(1.0, steps)
        else:
            shape = from_learning_rate(learning_rate, 1.0, steps)
        rule = _controlled("lats", sparsity, shape)
    return _latent(
        "lats", optimizer, where, rule._replace(initialize=inverse_soft_threshold)
    )


def _scheduled(prox: Prox, scaling: Any) -> _Rule:
    """Return the rule of a given scaling."""

    def begin(latent):
        del latent
        return step_.at(scaling, jnp.zeros([], jnp.int32))

    def proceed(latent, params, level, count):
        del params, level
        now = step_.at(scaling, count + 1)
        return prox(latent, now), now

    return _Rule(begin, proceed)


def _controlled(call: str, sparsity: Any, shape: optax.Schedule) -> _Rule:
    """Return the rule of a threshold that moves to where it keeps a given number."""
    ratio = size_.keep_ratio(sparsity)

    def begin(latent):
        return size_.zero_like(jax.tree.leaves(latent))

    def proceed(latent, params, level, count):
        leaves, structure = jax.tree.flatten(latent)
        if not leaves:
            return latent, level
        keep = size_.number_to_keep(call, ratio, sum(x.size for x in leaves))
        sizes = [size_.magnitudes(x) for x in leaves]
        goal = size_.threshold_that_keeps(sizes, keep)
        share = size_.share_of_the_rest(shape, count)
        arrived = share >= 1
        level = jnp.where(arrived, goal, level + share * (goal - level))
        masks = size_.kept(sizes, level, keep, arrived)
        target = [
            jnp.where(m, size_.shrunk(x, level, p), 0)
            for m, x, p in zip(masks, leaves, jax.tree.leaves(params), strict=True)
        ]
        return jax.tree.unflatten(structure, target), level

    return _Rule(begin, proceed, keep_ratio=ratio)


def _latent(
    call: str,
    optimizer: optax.GradientTransformation,
    where: tree.Where | None,
    rule: _Rule,
) -> optax.GradientTransformationExtraArgs:
    """Return `optimizer` on the latent weights of the selected leaves."""
    inner = checks.with_extra_args(call, optimizer)

    def init(params):
        if checks.is_abstract(params):
            return jax.eval_shape(init, params)
        chosen = selection(call, params, where)
        selected = only(chosen, params)
        rule.check(selected)
        latent = step_.wide_copy(selected)
        level = rule.begin(latent)
        if rule.initialize is not None:
            latent = rule.initialize(latent, level)
        latent = hold(params, where, latent)
        return LatentProximalState(
            count=jnp.zeros([], jnp.int32),
            latent=latent,
            scaling=_as_arrays(level, latent),
            inner_state=inner.init(merge(chosen, latent, params)),
            watch=watch_.begin(watch_.checksum(selected), rule.keep_ratio, selected),
        )

    def update(updates, state, params=None, **extra_args):
        params = checks.require_params(call, params)
        watch_.check_whole(call, params, state.watch)
        chosen = selection(call, params, where)
        selected = only(chosen, params)
        grads = jax.tree.map(
            lambda g, t: g.astype(t.dtype), only(chosen, updates), state.latent
        )
        moves, inner_state = inner.update(
            merge(chosen, grads, updates),
            state.inner_state,
            merge(chosen, state.latent, params),
            **extra_args,
        )
        latent = optax.apply_updates(state.latent, only(chosen, moves))
        latent = hold(params, where, latent)
        target, level = rule.proceed(latent, selected, state.scaling, state.count)
        steps = step_.updates_to(target, selected)
        watch = watch_.proceed_with(state.watch, selected, steps)
        return merge(chosen, steps, moves), LatentProximalState(
            count=step_.next_count(state.count),
            latent=latent,
            scaling=_as_arrays(level, latent),
            inner_state=inner_state,
            watch=watch,
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _as_arrays(level: Any, latent: Any) -> Any:
    """Return a scaling as arrays of the widest dtype of the latent weights."""
    dtype = at_least_float32(*(x.dtype for x in jax.tree.leaves(latent)))
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), level)
