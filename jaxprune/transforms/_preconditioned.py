"""Proximal steps in an optimizer's own metric; see `jaxprune.transforms`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxprune.base._checks import check_scalar_or_schedule
from jaxprune.prox._operators import Prox, soft_threshold
from jaxprune.transforms import _common as step_


class PreconditionedProximalState(NamedTuple):
    """State of `preconditioned_proximal`.

    Attributes:
      count: steps taken, int32 scalar.
      inner_state: the state of the wrapped optimizer.
    """

    count: jax.Array
    inner_state: optax.OptState


def preconditioned_proximal(
    optimizer: optax.GradientTransformation,
    prox: Prox,
    scaling: optax.ScalarOrSchedule = 1.0,
    *,
    preconditioner: Callable[[optax.OptState], Any],
) -> optax.GradientTransformationExtraArgs:
    """Follow an adaptive optimizer by the prox in that optimizer's metric.

        w_{t+1} = argmin_y |y - (w_t + u_t)|^2_{1/P_t} / 2 + s_t g(y)
        u_t = -eta_t P_t m_t

    with the diagonal preconditioner P_t: every weight's scaling is s_t P_t. At rest the
    mean gradient m is the gradient, P cancels, and what remains with s_t = lambda eta_t
    is the optimality condition of `loss + lambda * g`. A scaling without P rests where
    P_t dL/dw = -lambda dg/dw instead: with Adam, whose P divides by the gradient's
    size, that is far from the minimiser.

    Args:
      optimizer: moves the weights by -eta_t P_t m_t; receives extra arguments
        unchanged. Decoupled weight decay (AdamW) is outside of P: it shifts the fixed
        point by `weight_decay / P`.
      prox: a function `(params, scaling) -> params` that takes one scaling per
        weight: the separable ones of `jaxprune.prox`.
      scaling: s_t, a scalar >= 0 or a schedule of the step.
      preconditioner: `inner_state -> P_t`, from the optimizer's state after the
        step: a tree like the parameters, positive; e.g. `adam_preconditioner`.

    Returns:
      A transformation, complete in itself, with state `PreconditionedProximalState`.
      Nothing may come behind it in a chain.

    Raises:
      ValueError: `scaling` is negative; at `init`, `prox` does not suit the parameters;
        at `update`, `params` is missing or P has another structure.
      TypeError: an argument is of another kind.

    Warns:
      UserWarning: at `init`, parameters are in float16 or bfloat16.

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
    step_.check_prox(call, prox)
    check_scalar_or_schedule(call, "scaling", scaling)
    if not callable(preconditioner):
        raise TypeError(
            f"`{call}(..., preconditioner=...)` must be a function of the optimizer's"
            f" state, got {preconditioner!r}. Pass e.g. `adam_preconditioner()`."
        )
    inner = step_.with_extra_args(call, optimizer)

    def init(params):
        step_.check_result(call, prox, params)
        step_.warn_low_precision(call, params)
        return PreconditionedProximalState(jnp.zeros([], jnp.int32), inner.init(params))

    def update(updates, state, params=None, **extra_args):
        params = step_.require_params(call, params)
        updates, inner_state = inner.update(
            updates, state.inner_state, params, **extra_args
        )
        metric = preconditioner(inner_state)
        if jax.tree.structure(metric) != jax.tree.structure(params):
            raise ValueError(
                f"`{call}(..., preconditioner=...)` must return a tree like the"
                f" parameters {jax.tree.structure(params)}, got"
                f" {jax.tree.structure(metric)}. Wrap the whole of"
                f" `{call}` in `optax.masked`, not the optimizer inside it."
            )
        scale = step_.at(scaling, state.count)
        target = prox(
            step_.moved(params, updates), jax.tree.map(lambda p: scale * p, metric)
        )
        return step_.updates_to(target, params), PreconditionedProximalState(
            step_.next_count(state.count), inner_state
        )

    return optax.GradientTransformationExtraArgs(init, update)


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
      `state -> P_t`, a tree like the optimizer's parameters; unit: 1 / gradient. It
      raises ValueError unless the state holds exactly one `optax.ScaleByAdamState`.

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
                "`adam_preconditioner()(state)` must be given a state with exactly one"
                f" `optax.ScaleByAdamState`, got {len(found)}. Wrap each Adam in a"
                " `preconditioned_proximal` of its own, or write the function that"
                " reads your optimizer's preconditioner."
            )
        nu = optax.tree.bias_correction(found[0].nu, b2, found[0].count)
        return jax.tree.map(lambda v: 1 / (jnp.sqrt(v + eps_root) + eps), nu)

    return preconditioner


def adam_ista(
    strength: optax.ScalarOrSchedule,
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    eps_root: Any = 0.0,
) -> optax.GradientTransformationExtraArgs:
    """Minimise `loss + strength * |w|_1` with Adam and soft-thresholding.

        w_{t+1} = S(w_t - eta_t P_t m_t, lambda_t eta_t P_t)

    `preconditioned_proximal` around Adam, with the soft threshold S and Adam's own
    preconditioner P. Its fixed point is the L1 minimiser; that of `chain(adam, ista)`
    is not.

    Args:
      strength: lambda_t >= 0, a scalar or a schedule; unit: loss / weight.
      learning_rate: eta_t >= 0, a scalar or a schedule.
      b1: decay of the gradients' mean, as in `optax.adam`.
      b2: decay of the squared gradients' mean.
      eps: added to the root of the latter.
      eps_root: added inside the root.

    Returns:
      A transformation, complete in itself, with state `PreconditionedProximalState`.

    Raises:
      ValueError: an argument is negative.
      TypeError: an argument is neither a number nor a schedule.

    Examples:
      >>> optimizer = adam_ista(1e-4, optax.cosine_decay_schedule(1e-3, 1000))

    References:
      Yun, Lozano and Yang, 2021, with an L1 penalty.
    """
    check_scalar_or_schedule("adam_ista", "strength", strength)
    check_scalar_or_schedule("adam_ista", "learning_rate", learning_rate)
    adam = optax.scale_by_adam(b1, b2, eps, eps_root)
    return preconditioned_proximal(
        optax.chain(adam, optax.scale_by_learning_rate(learning_rate)),
        soft_threshold,
        step_.product(strength, learning_rate),
        preconditioner=adam_preconditioner(b2, eps, eps_root),
    )
