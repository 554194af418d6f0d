"""Proximal steps as optax transformations: ISTA, FISTA and latent weights.

A prox (`jaxprune.prox`) is applied to the weights after every optimizer step, so that
pruned weights are exactly zero while training goes on. Four ways:

==========================  ===============================================
`proximal`                  last in a chain: the weights themselves move
`accelerated_proximal`      the same with Nesterov's extrapolation, restarted
`preconditioned_proximal`   around Adam: the prox in the metric of Adam
`latent_proximal`           around an optimizer: dense latent weights move,
                            the network holds their prox; pruned weights
                            keep learning and may return
==========================  ===============================================

`ista`, `fista` and `adam_ista` are the first three with the soft threshold, that is,
with an L1 penalty; `lats` is the last with the soft threshold. Behind Adam use
`adam_ista`: its fixed point is the minimum of the L1 problem, which that of
`chain(adam, ista)` is not.

>>> import optax
>>> optimizer = optax.chain(optax.sgd(0.1, 0.9), ista(1e-4, 0.1, momentum=0.9))

Every one prunes the leaves that `where` selects, the kernels by default; all other
leaves move exactly as under the optimizer alone. Under `optax.inject_hyperparams` name
`prox`, `where`, `steps` (and `initialize`, `preconditioner`) in `static_args`.

======  ===============  ============================================
symbol  here             meaning
======  ===============  ============================================
s_t     `scaling`        scaling of the prox at step t = 0, 1, ...
lambda  `strength`       coefficient of the L1 norm in the loss
eta_t   `learning_rate`  that of the optimizer in front, at step t
mu      `momentum`       decay of its heavy-ball or Nesterov momentum
k_t     `sparsity`       weights kept after t steps, of n selected ones
======  ===============  ============================================

References:
  Beck and Teboulle, A Fast Iterative Shrinkage-Thresholding Algorithm for Linear
  Inverse Problems, SIAM J. Imaging Sciences, 2009.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxprune import tree
from jaxprune.base._checks import check_momentum, check_scalar_or_schedule
from jaxprune.prox._operators import Prox, soft_threshold
from jaxprune.transforms import _arguments as checks
from jaxprune.transforms import _size as size_
from jaxprune.transforms import _steps as step_
from jaxprune.transforms import _watch as watch_
from jaxprune.transforms._selection import hold, merge, only, selection

# The number of the step, the selected parameters and where the optimizer would move
# them, to where they move instead.
Rule = Callable[[jax.Array, Any, Any], Any]


class ProximalState(NamedTuple):
    """State of `proximal`, `ista` and `gradual_magnitude`.

    Attributes:
      count: steps taken, int32 scalar.
      watch: a `Watch` of the number of exact zeros; see `jaxprune.check`.
    """

    count: jax.Array
    watch: watch_.Watch


def proximal(
    prox: Prox,
    scaling: optax.ScalarOrSchedule = 1.0,
    *,
    where: tree.Where | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Move the parameters to the prox of where the chain so far would move them.

        w_{t+1} = prox_{s_t g}(w_t + u_t)

    with the incoming updates u_t. The minimum of `loss + lambda * g` is a fixed point
    behind gradient descent when s_t = lambda eta_t.

    Must be the **last** element of a chain, since an optimizer behind it would rescale
    its updates, and outside of `optax.MultiSteps(optimizer)`, which it would follow at
    every micro step: wrap the whole chain. `jaxprune.check(state)` raises for both.

    Args:
      prox: a function `(params, scaling) -> params` such as those of `jaxprune.prox`.
        It is given the selected leaves, and `optax.MaskedNode` for the others.
      scaling: s_t, a scalar >= 0 or a schedule of the step (t = 0 at the first update),
        given to `prox` as its second argument.
      where: the leaves to which the prox is applied, see `jaxprune.tree`; None selects
        the kernels, True all leaves. The updates of the others pass unchanged.

    Returns:
      A transformation with state `ProximalState`. Its updates have the dtypes of the
      parameters; entries that the prox sets to zero are exactly zero after
      `optax.apply_updates`.

    Raises:
      ValueError: `scaling` is negative; at `init`, nothing is selected or `prox` does
        not suit the parameters; at `update`, `params` is missing.
      TypeError: `prox` is not a function, or `scaling` not a number or schedule.

    Warns:
      UserWarning: at `init`, selected parameters are in float16 or bfloat16.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> from jaxprune import prox
      >>> optimizer = optax.chain(optax.sgd(1.0), proximal(prox.soft_threshold, 0.25))
      >>> params = {"kernel": jnp.array([[1.0, -0.5, 0.1]])}
      >>> state = optimizer.init(params)
      >>> updates, state = optimizer.update(
      ...     {"kernel": jnp.zeros((1, 3))}, state, params
      ... )
      >>> optax.apply_updates(params, updates)["kernel"].tolist()
      [[0.75, -0.25, 0.0]]

    References:
      Parikh and Boyd, Proximal Algorithms, 2014, section 4.2.
    """
    checks.check_prox("proximal", prox)
    check_scalar_or_schedule("proximal", "scaling", scaling)

    def rule(count, params, moved):
        del params
        return prox(moved, step_.at(scaling, count))

    def check(params):
        checks.check_result("proximal", prox, params)

    return _proximal("proximal", rule, where, check=check)


def _proximal(
    call: str,
    rule: Rule,
    where: tree.Where | None,
    *,
    check: Callable[[Any], None] = lambda _: None,
    keep_ratio: Any = np.nan,
) -> optax.GradientTransformationExtraArgs:
    """Return the transformation that moves the selected leaves by `rule`."""

    def init(params):
        if checks.is_abstract(params):
            return jax.eval_shape(init, params)
        params = only(selection(call, params, where), params)
        check(params)
        checks.warn_low_precision(call, params)
        return ProximalState(
            jnp.zeros([], jnp.int32), watch_.begin_zeros(params, keep_ratio)
        )

    def update(updates, state, params=None, **extra_args):
        del extra_args
        params = checks.require_params(call, params)
        watch_.check_whole(call, params, state.watch)
        chosen, whole = selection(call, params, where), params
        params = only(chosen, params)
        moved = hold(whole, where, step_.moved(params, only(chosen, updates)))
        target = rule(state.count, params, moved)
        target = jax.tree.map(lambda t, p: t.astype(p.dtype), target, params)
        updates = merge(chosen, step_.updates_to(target, params), updates)
        return updates, ProximalState(
            count=step_.next_count(state.count),
            watch=watch_.proceed_zeros(state.watch, params, target),
        )

    return optax.GradientTransformationExtraArgs(init, update)


def ista(
    strength: optax.ScalarOrSchedule | None = None,
    learning_rate: optax.ScalarOrSchedule | None = None,
    *,
    momentum: float = 0.0,
    sparsity: Any = None,
    steps: int | None = None,
    where: tree.Where | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Soft-threshold the weights after every step (ISTA), for a penalty or a size.

        w_{t+1} = S(w_t + u_t, s_t),   S the soft threshold

    With a `strength`, s_t = lambda_t eta_t / (1 - mu): an L1 penalty is added to the
    loss. Steady momentum multiplies the gradient's steps by 1 / (1 - mu); the threshold
    follows, so that the fixed point is the minimum of `loss + strength * |w|_1` with
    momentum too.

    With a `sparsity`, s_t is the (k_t + 1)-th largest magnitude of w_t + u_t, which
    keeps exactly k_t of the n selected weights. k_t falls from n to
    floor((1 - sparsity) n) over `steps` steps,

        k_t = n - floor((n - k) (1 - (1 - t / T)^3))

    and is held from there on. The strength that this stands for is s_t / eta_t, the
    gradient that a pruned weight needs to return.

    Place it last in a chain, behind SGD; see `proximal`.

    Args:
      strength: lambda_t >= 0, a scalar or a schedule; unit: loss / weight.
      learning_rate: eta_t >= 0, the optimizer's own scalar or schedule.
      momentum: mu in [0, 1), the optimizer's own, 0 for plain SGD.
      sparsity: the fraction of zeros among the selected weights, in [0, 1), in the
        place of `strength` and `learning_rate`.
      steps: T >= 1, the updates after which the sparsity is met.
      where: the leaves that are pruned; None selects the kernels.

    Returns:
      A transformation with state `ProximalState`.

    Raises:
      ValueError: not exactly one of `strength` and `sparsity` is given, or an argument
        is out of range.
      TypeError: an argument is neither a number nor a schedule.

    Examples:
      >>> import optax
      >>> schedule = optax.cosine_decay_schedule(0.1, 1000)
      >>> optimizer = optax.chain(optax.sgd(schedule), ista(1e-4, schedule))
      >>> sized = optax.chain(optax.sgd(schedule), ista(sparsity=0.9, steps=1000))

    References:
      Beck and Teboulle, 2009, Eq. (3.1); the factor of momentum and the control of the
      size are ours. The ramp: Zhu and Gupta, arXiv:1710.01878, 2017, Eq. (1).
    """
    checks.check_exactly_one("ista", {"strength": strength, "sparsity": sparsity})
    if sparsity is not None:
        return _sized("ista", sparsity, steps, where, shrink=True)
    check_scalar_or_schedule("ista", "strength", strength)
    check_scalar_or_schedule("ista", "learning_rate", learning_rate)
    check_momentum("ista", momentum)
    scaling = step_.product(strength, learning_rate, 1 / (1 - momentum))

    def rule(count, params, moved):
        del params
        return soft_threshold(moved, step_.at(scaling, count))

    return _proximal("ista", rule, where)


def gradual_magnitude(
    optimizer: optax.GradientTransformation,
    *,
    sparsity: Any,
    steps: int,
    where: tree.Where | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Keep the largest weights after every step, fewer and fewer of them.

        w_{t+1} = the k_{t+1} largest of w_t + u_t by magnitude, zero elsewhere
        k_t = n - floor((n - k) (1 - (1 - t / T)^3)),   k = floor((1 - sparsity) n)

    for all n selected weights together: gradual magnitude pruning, with the projection
    on the k largest weights (iterative hard thresholding) at every step. Gradients
    reach pruned weights, so one returns if a single step makes it large enough.

    Args:
      optimizer: moves the weights; receives extra arguments unchanged.
      sparsity: the fraction of zeros among the selected weights, in [0, 1).
      steps: T >= 1, the updates after which the sparsity is met, exactly; it is held
        from there on.
      where: the leaves that are pruned; None selects the kernels.

    Returns:
      A transformation, complete in itself, with the state of
      `optax.chain(optimizer, ...)`, whose last element is a `ProximalState`. Nothing
      may come behind it in a chain.

    Raises:
      ValueError: `sparsity` or `steps` is out of range.
      TypeError: `optimizer` is no transformation.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> optimizer = gradual_magnitude(optax.sgd(0.1), sparsity=0.5, steps=1)
      >>> params = {"kernel": jnp.array([[1.0, -3.0, 0.5, 2.0]])}
      >>> grads = {"kernel": jnp.zeros((1, 4))}
      >>> updates, _ = optimizer.update(grads, optimizer.init(params), params)
      >>> optax.apply_updates(params, updates)["kernel"].tolist()
      [[0.0, -3.0, 0.0, 2.0]]

    References:
      Zhu and Gupta, To prune, or not to prune, arXiv:1710.01878, 2017, Eq. (1).
    """
    call = "gradual_magnitude"
    inner = checks.with_extra_args(call, optimizer)
    return optax.chain(inner, _sized(call, sparsity, steps, where, shrink=False))


def _sized(call, sparsity, steps, where, *, shrink):
    """Return the transformation that keeps the k_t largest weights."""
    steps = checks.check_size(call, sparsity, steps)
    ratio = size_.keep_ratio(sparsity)

    def rule(count, params, moved):
        return size_.keep_largest(
            call, ratio, steps, count, params, moved, shrink=shrink
        )

    return _proximal(call, rule, where, keep_ratio=ratio)
