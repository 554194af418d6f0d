"""Optimizers that move the thresholds of a pruner beside its weights.

Both wrap the optimizer of the weights and act on `{"params": ..., "variables": ...}`,
what a training step differentiates; the variables are thresholds in the unit of the
weights, those of `jaxprune.soft_thresholding`.

==================  ===========================================================
`follow_threshold`  open loop: the threshold is given, the size is what results
`reach_keep_ratio`  closed loop: the size is given, the threshold is found
==================  ===========================================================

======  ===========  ==================================================
symbol  here         meaning
======  ===========  ==================================================
theta   `params`     dense latent weights
D_t     `variables`  thresholds after t steps; unit: weight
x_t     `shape`      share of the final threshold due after t steps
q_t     -            threshold that would keep the target fraction now
======  ===========  ==================================================

References:
  [LATS] Chen et al., A Unified Framework for Soft Threshold Pruning, arXiv:2302.13019,
    2023.
"""

from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import optax

from jaxprune import tree
from jaxprune.base._checks import check_scalar_or_schedule, is_static_number
from jaxprune.base._protocols import Params, Pruner, Variables
from jaxprune.masks._counts import keep_count
from jaxprune.transforms import _arguments as checks
from jaxprune.transforms import _size as size_
from jaxprune.transforms import _steps as step_
from jaxprune.transforms import _watch as watch_


class ThresholdState(NamedTuple):
    """State of `follow_threshold` and `reach_keep_ratio`.

    Attributes:
      count: steps taken, int32 scalar.
      inner_state: the state of the wrapped optimizer, on the weights.
      watch: a `Watch` of the exact thresholds; also misplaced where the variables get
        gradients, which the threshold of a schedule does not. See `jaxprune.check`.
    """

    count: jax.Array
    inner_state: optax.OptState
    watch: watch_.Watch


def follow_threshold(
    optimizer: optax.GradientTransformation,
    pruner: Pruner,
    *,
    threshold: optax.ScalarOrSchedule,
) -> optax.GradientTransformationExtraArgs:
    """Move the thresholds along a schedule.

        D_{t+1} = d(t + 1)

    With `jaxprune.soft_thresholding` this is the forward form of `jaxprune.lats`, with
    the same trajectory. A schedule that does not start at 0 needs the same
    `init_threshold`.

    Args:
      optimizer: moves the weights, weight decay included.
      pruner: the pruner whose variables are moved: one whose variables are soft
        thresholds in the unit of the weights, `jaxprune.soft_thresholding(...)`.
      threshold: d, a scalar >= 0 or a schedule of the number of steps taken; see
        `jaxprune.schedules`. Unit: weight.

    Returns:
      A transformation of `{"params": ..., "variables": ...}`, or any container with
      these two entries, with state `ThresholdState`. Gradients of the variables are not
      used.

    Raises:
      ValueError: `threshold` is negative; at `init`, the variables are no thresholds of
        `pruner`; at `update`, `params` is missing.
      TypeError: `optimizer`, `pruner` or `threshold` is of another kind.

    Examples:
      >>> import jax, jax.numpy as jnp, optax
      >>> import jaxprune
      >>> pruner = jaxprune.soft_thresholding()
      >>> optimizer = follow_threshold(
      ...     optax.sgd(1.0), pruner, threshold=optax.linear_schedule(0.0, 1.0, 4)
      ... )
      >>> params = {"w": jnp.ones((1, 2))}
      >>> both = {"params": params, "variables": pruner.init(params)}
      >>> grads = jax.tree.map(jnp.zeros_like, both)
      >>> updates, _ = optimizer.update(grads, optimizer.init(both), both)
      >>> float(updates["variables"]["w"])
      0.25

    References:
      [LATS]; D is set after each step, as the authors do.
    """
    check_scalar_or_schedule("follow_threshold", "threshold", threshold)

    def target(params, variables, count):
        del params
        return jax.tree.map(lambda _: step_.at(threshold, count + 1), variables)

    return _with_thresholds("follow_threshold", optimizer, pruner, target)


def reach_keep_ratio(
    optimizer: optax.GradientTransformation,
    pruner: Pruner,
    *,
    keep_ratio: Any,
    shape: optax.Schedule,
) -> optax.GradientTransformationExtraArgs:
    """Move the thresholds to where they keep a target fraction, along a given shape.

        D_{t+1} = D_t + (x_{t+1} - x_t) / (1 - x_t) (q_{t+1} - D_t)

    where q, read off the weights after every step, is the threshold that would keep the
    target fraction now. At each step the rest of the way is spread over the rest of the
    shape as if q stayed: while it does, D_t = q x_t, and with a shape from
    `jaxprune.schedules.from_learning_rate` increments are proportional to the
    learning rate and the L1 coefficient is constant; as it drifts (weights grow back,
    weight decay shrinks them) the coefficient drifts with it. When the shape arrives at
    1, D = q: the fraction is met, regrowth included, and held from there on. There is
    no gain to tune and no final threshold to guess.

    One threshold cannot split weights of equal magnitude: where many are at q (bfloat16
    weights), fewer remain than the target, and `pruner.masks(..., keep_ratio=...)`
    settles them by position, exactly.

    Finding q takes a few counting passes over the weights, as global magnitude does.

    Args:
      optimizer: moves the weights, weight decay included.
      pruner: the pruner whose variables are moved: one whose variables are soft
        thresholds in the unit of the weights, `jaxprune.soft_thresholding(...)`. The
        leaves that it selects are those that count.
      keep_ratio: the target fraction of all selected weights, in (0, 1]; a number, or a
        traced scalar.
      shape: x_t, a schedule from 0 to 1 that does not fall; any of
        `jaxprune.schedules` with `final=1.0`.

    Returns:
      A transformation of `{"params": ..., "variables": ...}`, or any container with
      these two entries, with state `ThresholdState`. Gradients of the variables are not
      used.

    Raises:
      ValueError: `keep_ratio` is outside (0, 1]; at `init`, the variables are no
        thresholds of `pruner`, or there are 2**31 weights or more; at `update`,
        `params` is missing.
      TypeError: `optimizer`, `pruner` or `shape` is of another kind.

    Examples:
      >>> import jax, jax.numpy as jnp, optax
      >>> import jaxprune
      >>> pruner = jaxprune.soft_thresholding()
      >>> shape = optax.linear_schedule(0.0, 1.0, 2)
      >>> optimizer = reach_keep_ratio(
      ...     optax.sgd(0.0), pruner, keep_ratio=0.5, shape=shape
      ... )
      >>> params = {"w": jnp.array([[1.0, 2.0, 3.0, 4.0]])}
      >>> both = {"params": params, "variables": pruner.init(params)}
      >>> state, grads = optimizer.init(both), jax.tree.map(jnp.zeros_like, both)
      >>> for _ in range(2):
      ...     updates, state = optimizer.update(grads, state, both)
      ...     both = optax.apply_updates(both, updates)
      ...     print(float(both["variables"]["w"]))
      1.0
      2.0

    References:
      [LATS], which leaves the final threshold to trials; the control is ours.
    """
    if is_static_number(keep_ratio):
        keep_count(float(keep_ratio), 1)  # checks the range
    if not callable(shape):
        raise TypeError(
            f"`reach_keep_ratio(shape={shape!r})`: must be a schedule from 0 to 1. Pass"
            " `schedules.from_learning_rate(rate, final=1.0, steps=n)`."
        )

    def target(params, variables, count):
        named = tree.named_leaves(params)
        sizes = [size_.magnitudes(named[name]) for name in tree.named_leaves(variables)]
        total = sum(x.size for x in sizes)
        keep = size_.number_to_keep("reach_keep_ratio", keep_ratio, total)
        goal = size_.threshold_that_keeps(sizes, keep)
        share = size_.share_of_the_rest(shape, count)
        return jax.tree.map(lambda d: d + share * (goal - d), variables)

    return _with_thresholds("reach_keep_ratio", optimizer, pruner, target)


def _with_thresholds(call: str, optimizer: Any, pruner: Pruner, target):
    """Return the optimizer of the weights, with thresholds that move to `target`."""
    inner = checks.with_extra_args(call, optimizer)
    if not (hasattr(pruner, "apply") and hasattr(pruner, "masks")):
        raise TypeError(
            f"`{call}(pruner={pruner!r})`: must be a `jaxprune.Pruner`. Pass the"
            " `jaxprune.soft_thresholding()` whose variables are trained."
        )

    def init(params):
        if checks.is_abstract(params):
            return jax.eval_shape(init, params)
        count = jnp.zeros([], jnp.int32)
        if not jax.tree.leaves(params):
            # optax asks with a placeholder where parameter-shaped trees are.
            nothing = watch_.begin(watch_.checksum(()))
            return ThresholdState(count, inner.init(params), nothing)
        weights, variables = _both(call, params)
        _check_thresholds(call, pruner, weights, variables)
        watch = watch_.begin(watch_.checksum(variables), counted=weights)
        return ThresholdState(count, inner.init(weights), watch)

    def update(updates, state, params=None, **extra_args):
        params = checks.require_params(call, params)
        weights, variables = _both(call, params)
        watch_.check_whole(call, weights, state.watch)
        grads, ignored = _both(call, updates)
        moves, inner_state = inner.update(
            grads, state.inner_state, weights, **extra_args
        )
        weights = optax.apply_updates(weights, moves)
        goal = target(weights, variables, state.count)
        steps = jax.tree.map(lambda t, d: jnp.asarray(t, d.dtype) - d, goal, variables)
        watch = watch_.proceed_with(state.watch, variables, steps, weights)
        learned = [jnp.any(x != 0) for x in jax.tree.leaves(ignored)]
        misplaced = watch.misplaced | jnp.any(jnp.asarray(learned, bool))
        return _joined(params, moves, steps), ThresholdState(
            step_.next_count(state.count),
            inner_state,
            watch._replace(misplaced=misplaced),
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _children(trainable: Any) -> tuple[list[str], list[Any], Any]:
    """Return the names of the entries of a container, the entries and its structure."""
    paths, structure = jax.tree_util.tree_flatten_with_path(
        trainable, is_leaf=lambda x: x is not trainable
    )
    names = [jax.tree_util.keystr(path, simple=True) for path, _ in paths]
    return names, [child for _, child in paths], structure


def _both(call: str, trainable: Any) -> tuple[Params, Variables]:
    """Return the entries `params` and `variables` of any container."""
    names, children, _ = _children(trainable)
    entries = dict(zip(names, children, strict=True))
    if set(entries) == {"params", "variables", "budget"}:
        raise ValueError(
            f"`{call}(...)`: the tree must not be that of `jaxprune.pruning`, whose"
            " `budget` it would leave behind. Hold the method to a size by"
            " `pruning(method, at_most(density, ...))` and train with"
            ' `pruning.optimizer(...)`, or pass `{"params": params, "variables":'
            " pruner.init(params)}`."
        )
    if set(entries) != {"params", "variables"}:
        raise ValueError(
            f"`{call}(...)`: the tree must have the entries `params` and `variables`,"
            f" got {names or type(trainable).__name__}. Pass"
            ' `{"params": params, "variables": pruner.init(params)}`.'
        )
    return entries["params"], entries["variables"]


def _joined(trainable: Any, weights: Params, variables: Variables) -> Any:
    """Return a container like `trainable` with these two entries."""
    names, _, structure = _children(trainable)
    entries = {"params": weights, "variables": variables}
    return jax.tree.unflatten(structure, [entries[name] for name in names])


def _check_thresholds(
    call: str, pruner: Pruner, params: Params, variables: Variables
) -> None:
    """Refuse variables that are not soft thresholds in the unit of the weights.

    With every variable at the mean magnitude of its leaf, the network must see zeros
    where, and only where, magnitudes are not above it. Not checked inside a trace.
    """
    names = list(tree.named_leaves(variables))
    expected = list(jax.eval_shape(pruner.init, params))
    if not expected:
        raise ValueError(
            f"`{call}(optimizer, pruner, ...)`: the pruner must have thresholds, and"
            " has no variables. Pass `jaxprune.soft_thresholding()`, for instance."
        )
    if sorted(names) != sorted(expected):
        raise ValueError(
            f"`{call}(optimizer, pruner, ...)`: the variables must be those of"
            f" `pruner`, of the leaves {expected}, got those of {names}. Pass"
            ' `{"params": params, "variables": pruner.init(params)}`.'
        )
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(params)):
        return
    for name, differing in _differing(pruner, params, variables).items():
        if differing > 0.01:
            raise ValueError(
                f"`{call}(optimizer, pruner, ...)`: the variables must be soft"
                " thresholds in the unit of the weights, as those of"
                f" `jaxprune.soft_thresholding`; those of this pruner are not (leaf"
                f" {name!r}). Hold another method to a size with"
                " `jaxprune.dual_ascent`."
            )


def _differing(
    pruner: Pruner, params: Params, variables: Variables
) -> dict[str, float]:
    """Return of each leaf the fraction of weights that a soft threshold would not cut.

    Evaluated at once also where a function that holds the parameters is traced.
    """
    with jax.ensure_compile_time_eval():
        weights = tree.named_leaves(params)
        probe = {
            name: jnp.full_like(v, jnp.mean(jnp.abs(weights[name])))
            for name, v in tree.named_leaves(variables).items()
        }
        pruned = tree.named_leaves(pruner.apply(params, probe, step=0).params)
        found = {}
        for name, threshold in probe.items():
            above = jnp.abs(step_.wide(weights[name])) > jnp.max(threshold)
            found[name] = float(jnp.mean((pruned[name] != 0) != above))
    return found
