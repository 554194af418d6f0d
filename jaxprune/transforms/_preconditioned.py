"""Proximal steps in an optimizer's own metric; see `jaxprune.transforms`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxprune import tree
from jaxprune.base._checks import check_scalar_or_schedule
from jaxprune.prox._operators import Prox, soft_threshold
from jaxprune.transforms import _arguments as checks
from jaxprune.transforms import _size as size_
from jaxprune.transforms import _steps as step_
from jaxprune.transforms import _watch as watch_
from jaxprune.transforms._selection import hold, merge, only, selection


class PreconditionedProximalState(NamedTuple):
    """State of `preconditioned_proximal` and `adam_ista`.

    Attributes:
      count: steps taken, int32 scalar.
      inner_state: the state of the wrapped optimizer.
      watch: a `Watch` of the number of exact zeros; see `jaxprune.check`.
    """

    count: jax.Array
    inner_state: optax.OptState
    watch: watch_.Watch


def preconditioned_proximal(
    optimizer: optax.GradientTransformation,
    prox: Prox,
    scaling: optax.ScalarOrSchedule = 1.0,
    *,
    preconditioner: Callable[[optax.OptState], Any],
    where: tree.Where | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Follow an adaptive optimizer by the prox in that optimizer's metric.

        w_{t+1} = argmin_y |y - (w_t + u_t)|^2_{1/P_t} / 2 + s_t g(y)
        u_t = -eta_t P_t m_t

    with the diagonal preconditioner P_t: every weight's scaling is s_t P_t. At rest the
    mean gradient m is the gradient, P cancels, and what remains with s_t = lambda eta_t
    is the optimality condition of `loss + lambda * g`. A scaling without P rests where
    P_t dL/dw = -lambda dg/dw instead: with Adam, whose P divides by the gradient's
    size, that is far from the minimum.

    Args:
      optimizer: moves the weights by -eta_t P_t m_t; receives extra arguments
        unchanged. Decoupled weight decay (AdamW) is outside of P: it shifts the fixed
        point by `weight_decay / P`.
      prox: a function `(params, scaling) -> params` that takes one scaling per
        weight: the separable ones of `jaxprune.prox`. It is given the selected leaves,
        and `optax.MaskedNode` for the others.
      scaling: s_t, a scalar >= 0 or a schedule of the step.
      preconditioner: `inner_state -> P_t`, from the optimizer's state after the
        step: a tree like the parameters, positive; e.g. `adam_preconditioner`.
      where: the leaves to which the prox is applied, see `jaxprune.tree`; None selects
        the kernels, True all leaves. All others move as under `optimizer` alone.

    Returns:
      A transformation, complete in itself, with state `PreconditionedProximalState`.
      Nothing may come behind it in a chain.

    Raises:
      ValueError: `scaling` is negative; at `init`, nothing is selected or `prox` does
        not suit the parameters; at `update`, `params` is missing or P has another
        structure.
      TypeError: an argument is of another kind.

    Warns:
      UserWarning: at `init`, selected parameters are in float16 or bfloat16.

    Examples:
      >>> import optax
      >>> from jaxprune import prox
      >>> optimizer = preconditioned_proximal(
      ...     optax.adam(1e-3, b2=0.99),
      ...     prox.soft_threshold,
      ...     1e-4 * 1e-3,
      ...     preconditioner=adam_preconditioner(b2=0.99),
      ... )

    References:
      Yun, Lozano and Yang, Adaptive Proximal Gradient Methods for Structured Neural
      Networks, NeurIPS 2021 (ProxGen). Melchior, Joseph and Moolekamp, Proximal Adam,
      arXiv:1910.10094, 2019.
    """
    call = "preconditioned_proximal"
    checks.check_prox(call, prox)
    check_scalar_or_schedule(call, "scaling", scaling)
    if not callable(preconditioner):
        raise TypeError(
            f"`{call}(preconditioner={preconditioner!r})`: must be a function of the"
            " optimizer's state. Pass e.g. `adam_preconditioner()`."
        )

    def rule(count, params, moved, metric):
        del params
        scale = step_.at(scaling, count)
        return prox(moved, jax.tree.map(lambda p: scale * p, metric))

    def check(params):
        checks.check_result(call, prox, params)

    return _preconditioned(call, optimizer, rule, preconditioner, where, check)


def _preconditioned(
    call,
    optimizer,
    rule,
    preconditioner,
    where,
    check=lambda _: None,
    keep_ratio=np.nan,
):
    """Return `optimizer` followed by `rule` on the selected leaves.

    Args:
      call: the public function, for messages.
      optimizer: moves the weights by -eta_t P_t m_t.
      rule: `count, params, moved, metric -> target`, trees of the selected leaves.
      preconditioner: `inner_state -> P_t`.
      where: the selection.
      check: refuses parameters that do not suit the rule.
      keep_ratio: the size to reach, NaN where none is given.
    """
    inner = checks.with_extra_args(call, optimizer)

    def init(params):
        if checks.is_abstract(params):
            return jax.eval_shape(init, params)
        selected = only(selection(call, params, where), params)
        check(selected)
        checks.warn_low_precision(call, selected)
        return PreconditionedProximalState(
            jnp.zeros([], jnp.int32),
            inner.init(params),
            watch_.begin_zeros(selected, keep_ratio),
        )

    def update(updates, state, params=None, **extra_args):
        params = checks.require_params(call, params)
        watch_.check_whole(call, params, state.watch)
        updates, inner_state = inner.update(
            updates, state.inner_state, params, **extra_args
        )
        metric = preconditioner(inner_state)
        _check_metric(call, metric, params)
        chosen, whole = selection(call, params, where), params
        params = only(chosen, params)
        moved = hold(whole, where, step_.moved(params, only(chosen, updates)))
        target = rule(state.count, params, moved, only(chosen, metric))
        target = jax.tree.map(lambda t, p: t.astype(p.dtype), target, params)
        updates = merge(chosen, step_.updates_to(target, params), updates)
        return updates, PreconditionedProximalState(
            step_.next_count(state.count),
            inner_state,
            watch_.proceed_zeros(state.watch, params, target),
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _check_metric(call: str, metric: Any, params: Any) -> None:
    """Refuse what is no tree like the parameters."""
    if jax.tree.structure(metric) != jax.tree.structure(params):
        raise ValueError(
            f"`{call}(preconditioner=...)`: must return a tree like the parameters,"
            f" {jax.tree.structure(params)}, returns {jax.tree.structure(metric)}."
            " Select leaves with `where`, not with `optax.masked` around the"
            " optimizer."
        )


def adam_preconditioner(
    b2: Any = 0.999, eps: Any = 1e-8, eps_root: Any = 0.0
) -> Callable[[optax.OptState], Any]:
    """Return the function that reads Adam's preconditioner from its state.

        P_t = 1 / (sqrt(nu_t / (1 - b2^t) + eps_root) + eps)

    Fits every optimizer built on `optax.scale_by_adam`: adam, adamw, nadam, nadamw.

    Args:
      b2: decay of the squared gradients, as given to the optimizer.
      eps: as given to the optimizer.
      eps_root: as given to the optimizer.

    Returns:
      `state -> P_t`, a tree like the optimizer's parameters; unit: 1 / gradient.

    Raises:
      ValueError: when applied, if the state does not hold exactly one
        `optax.ScaleByAdamState`.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> state = optax.adam(0.1).init(jnp.zeros(2))
      >>> _, state = optax.adam(0.1).update(jnp.array([2.0, 4.0]), state)
      >>> adam_preconditioner()(state).round(3).tolist()
      [0.5, 0.25]

    References:
      Kingma and Ba, Adam, arXiv:1412.6980, 2015, Algorithm 1.
    """

    def preconditioner(state):
        def is_adam(node):
            return isinstance(node, optax.ScaleByAdamState)

        found = [s for s in jax.tree.leaves(state, is_leaf=is_adam) if is_adam(s)]
        if len(found) != 1:
            raise ValueError(
                "`adam_preconditioner()(state)`: the state must hold exactly one"
                f" `optax.ScaleByAdamState`, holds {len(found)}. Wrap each Adam in a"
                " `preconditioned_proximal` of its own, or write the function that"
                " reads your optimizer's preconditioner."
            )
        nu = optax.tree.bias_correction(found[0].nu, b2, found[0].count)
        return jax.tree.map(lambda v: 1 / (jnp.sqrt(v + eps_root) + eps), nu)

    return preconditioner


def adam_ista(
    strength: optax.ScalarOrSchedule | None = None,
    learning_rate: optax.ScalarOrSchedule | None = None,
    *,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    eps_root: Any = 0.0,
    sparsity: Any = None,
    steps: int | None = None,
    where: tree.Where | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Train with Adam and soft-thresholding, for an L1 penalty or a size.

        w_{t+1} = S(w_t - eta_t P_t m_t, s_t P_t)

    `preconditioned_proximal` around Adam, with the soft threshold S and Adam's own
    preconditioner P. With a `strength`, s_t = lambda_t eta_t: the fixed point is the
    minimum of `loss + strength * |w|_1`; that of `chain(adam, ista)` is not. With a
    `sparsity`, s_t is the (k_t + 1)-th largest |w_t - eta_t P_t m_t| / P_t, which keeps
    exactly k_t of the n selected weights, along the ramp of `ista`.

    Args:
      strength: lambda_t >= 0, a scalar or a schedule; unit: loss / weight.
      learning_rate: eta_t >= 0, a scalar or a schedule.
      b1: decay of the gradients' mean, as in `optax.adam`.
      b2: decay of the squared gradients' mean.
      eps: added to the root of the latter.
      eps_root: added inside the root.
      sparsity: the fraction of zeros among the selected weights, in [0, 1), in the
        place of `strength`.
      steps: T >= 1, the updates after which the sparsity is met.
      where: the leaves that are pruned; None selects the kernels. All others move as
        under `optax.adam`.

    Returns:
      A transformation, complete in itself, with state `PreconditionedProximalState`.

    Raises:
      ValueError: not exactly one of `strength` and `sparsity` is given, or an argument
        is out of range.
      TypeError: an argument is neither a number nor a schedule.

    Examples:
      >>> import optax
      >>> optimizer = adam_ista(1e-4, optax.cosine_decay_schedule(1e-3, 1000))
      >>> sized = adam_ista(learning_rate=1e-3, sparsity=0.9, steps=1000)

    References:
      Yun, Lozano and Yang, 2021, with an L1 penalty; the control of the size is ours.
    """
    checks.check_exactly_one("adam_ista", {"strength": strength, "sparsity": sparsity})
    check_scalar_or_schedule("adam_ista", "learning_rate", learning_rate)
    adam = optax.chain(
        optax.scale_by_adam(b1, b2, eps, eps_root),
        optax.scale_by_learning_rate(learning_rate),
    )
    metric = adam_preconditioner(b2, eps, eps_root)
    if sparsity is not None:
        rule, ratio = _sized("adam_ista", sparsity, steps)
        return _preconditioned("adam_ista", adam, rule, metric, where, keep_ratio=ratio)
    check_scalar_or_schedule("adam_ista", "strength", strength)
    scaling = step_.product(strength, learning_rate)

    def rule(count, params, moved, metric):
        del params
        scale = step_.at(scaling, count)
        return soft_threshold(moved, jax.tree.map(lambda p: scale * p, metric))

    return _preconditioned("adam_ista", adam, rule, metric, where)


def _sized(call, sparsity, steps):
    """Return the rule that keeps the k_t largest |w| / P, and the keep ratio."""
    steps = checks.check_size(call, sparsity, steps)
    ratio = size_.keep_ratio(sparsity)

    def rule(count, params, moved, metric):
        return size_.keep_largest(
            call, ratio, steps, count, params, moved, jax.tree.leaves(metric)
        )

    return rule, ratio
