"""Soft thresholds over time, and the L1 coefficient that each of them stands for.

Soft-thresholding latent weights at D_t while an optimizer moves them with learning rate
eta_t is ISTA with the L1 coefficient

    lambda_t = (D_{t+1} - D_t) / eta_t

so a coefficient that stays constant asks for increments in proportion to the learning
rate. `from_learning_rate` does exactly that for the schedule in use, warm-up included;
the published closed forms assume a bare cosine. `l1_coefficient` returns lambda over
time for any threshold schedule.

========================  ==========  =============================
schedule                  lambda_t    source
========================  ==========  =============================
`from_learning_rate`      any, exact  any learning rate
`pgh_from_learning_rate`  geometric   any learning rate
`s_lats`                  constant    cosine over steps
`lats`                    constant    cosine over epochs
`pgh`                     geometric   cosine over steps
`linear`, `sine`          varies      shapes of the predecessors
`constant`                0           a threshold that stands still
========================  ==========  =============================

Each returns an `optax` schedule `step -> D_t`: the threshold in force after `step`
updates, 0 at first (`constant` apart) and the final threshold from the last step on; a
float scalar in units of the weights. To start late:
`optax.join_schedules([constant(0.0), s_lats(d, n)], [start])`.

========  ===============  ========================================
symbol    here             meaning
========  ===============  ========================================
D         `final`          threshold at the end, >= 0; unit: weight
N         `steps`          number of optimizer steps (or `epochs`)
eta_t     `learning_rate`  of the optimizer at step t
lambda_t  `coefficient`    L1 coefficient; unit: loss / weight
beta      `beta`           lambda at the end / lambda at the start
mu        `momentum`       decay of heavy-ball or Nesterov momentum
========  ===============  ========================================

References:
  [LATS] Chen et al., A Unified Framework for Soft Threshold Pruning, arXiv:2302.13019,
    2023, with the authors' code.
  [PGH] Xiao and Zhang, A Proximal-Gradient Homotopy Method, arXiv:1203.3002, 2013.
  [STDS] Chen et al., State Transition of Dendritic Spines, 2022 (linear, sine).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxprune.base._checks import (
    check_fraction,
    check_momentum,
    check_non_negative,
    check_positive_int,
    check_scalar_or_schedule,
)


def from_learning_rate(
    learning_rate: optax.ScalarOrSchedule,
    final: Any,
    steps: int,
    *,
    coefficient: optax.ScalarOrSchedule = 1.0,
) -> optax.Schedule:
    """Raise the threshold in proportion to the learning rate.

        D_t = D sum_{k<t}(c_k eta_k) / sum_{k<N}(c_k eta_k)

    so that the L1 coefficient is lambda_t = c_t D / sum_k(c_k eta_k): constant,
    exactly, with the default c. Adding an optimizer's warm-up, restarts or decay needs
    nothing but passing its schedule.

    The sums are taken once, in float64, when this is called; the returned schedule
    looks D_t up in a table of N + 1 numbers.

    Args:
      learning_rate: the optimizer's own schedule (or scalar), >= 0; evaluated at 0,
        ..., N - 1, with `jax.vmap`.
      final: D >= 0; unit: weight. May be traced.
      steps: N >= 1, the number of optimizer steps over which D is reached.
      coefficient: c_t >= 0, the shape of the L1 coefficient, a scalar or schedule;
        only its proportions matter.

    Returns:
      A schedule `step -> D_t`, exact to the rounding of the default float dtype.

    Raises:
      ValueError: `final` is negative; `steps` is not a whole number >= 1; the learning
        rate or the coefficient is negative or not finite somewhere, or their product is
        zero everywhere.

    Examples:
      >>> import optax
      >>> warm = optax.warmup_cosine_decay_schedule(0.0, 0.1, 10, 100)
      >>> threshold = from_learning_rate(warm, final=0.05, steps=100)
      >>> [round(float(threshold(t)), 4) for t in (0, 10, 50, 100)]
      [0.0, 0.0045, 0.0388, 0.05]

    References:
      [LATS], the condition for a constant coefficient; closed form there only for
      the bare cosine.
    """
    call = "from_learning_rate"
    check_non_negative(call, "final", final)
    steps = check_positive_int(call, "steps", steps)
    rates = _values(call, "learning_rate", learning_rate, steps)
    weights = rates * _values(call, "coefficient", coefficient, steps)
    sums = np.cumsum(weights)
    if not sums[-1] > 0:
        raise ValueError(
            f"`{call}(learning_rate=..., steps={steps})`: must be positive at some of"
            " its steps, is 0 at all of them. Pass the schedule that the optimizer"
            " uses, and the number of its steps."
        )
    table = np.concatenate([[0.0], sums / sums[-1]])

    def schedule(step):
        index = jnp.clip(jnp.asarray(step, jnp.int32), 0, steps)
        return final * jnp.asarray(table, float)[index]

    return schedule


def pgh_from_learning_rate(
    learning_rate: optax.ScalarOrSchedule, final: Any, steps: int, *, beta: float
) -> optax.Schedule:
    """Let the L1 coefficient decay geometrically, for any learning rate.

        D_t = D sum_{k<t}(beta^(k/N) eta_k) / sum_{k<N}(beta^(k/N) eta_k)

    Proximal-gradient homotopy: strong at first, lambda_t = lambda_0 beta^(t/N). `pgh`
    is the same for a bare cosine.

    Args:
      learning_rate: the optimizer's own schedule (or scalar), >= 0.
      final: D >= 0; unit: weight. May be traced.
      steps: N >= 1.
      beta: lambda_N / lambda_0, in (0, 1).

    Returns:
      A schedule `step -> D_t`.

    Raises:
      ValueError: as `from_learning_rate`; or `beta` is outside (0, 1).

    Examples:
      >>> threshold = pgh_from_learning_rate(0.1, final=1.0, steps=2, beta=0.25)
      >>> [round(float(threshold(t)), 4) for t in (0, 1, 2)]
      [0.0, 0.6667, 1.0]

    References:
      [LATS] with [PGH]; the form for any learning rate is ours.
    """
    check_fraction("pgh_from_learning_rate", "beta", beta, closed=False)
    steps = check_positive_int("pgh_from_learning_rate", "steps", steps)
    decay = np.log(beta) / steps
    return from_learning_rate(
        learning_rate, final, steps, coefficient=lambda step: jnp.exp(decay * step)
    )


def l1_coefficient(
    threshold_schedule: optax.ScalarOrSchedule,
    learning_rate: optax.ScalarOrSchedule,
    steps: int,
    *,
    momentum: float = 0.0,
) -> np.ndarray:
    """Return the L1 coefficient over time of any thresholding scheme.

        lambda_t = (1 - mu) (D_{t+1} - D_t) / eta_t

    Steady momentum multiplies the optimizer's steps by 1 / (1 - mu), so the penalty
    weighs less by as much against the loss. A falling threshold gives a negative
    coefficient: it pushes weights away from zero.

    For analysis and plots: runs on the host, in float64.

    Args:
      threshold_schedule: D_t, a schedule (or scalar); evaluated at 0, ..., N.
      learning_rate: eta_t >= 0, the optimizer's own schedule (or scalar).
      steps: N >= 1.
      momentum: mu in [0, 1), the optimizer's own.

    Returns:
      lambda_t, shape (N,), float64, unit: loss / weight. Where the learning rate is
      0 it is NaN if the threshold stands still and infinite if it moves.

    Raises:
      ValueError: `steps`, `momentum` or the learning rate is out of range.

    Examples:
      >>> import optax
      >>> rate = optax.linear_schedule(0.4, 0.0, 4)
      >>> threshold = from_learning_rate(rate, final=1.0, steps=4)
      >>> l1_coefficient(threshold, rate, 4).round(6).tolist()
      [1.0, 1.0, 1.0, 1.0]

    References:
      [LATS], the equivalence of soft-threshold pruning and ISTA; the factor of
      momentum is ours.
    """
    call = "l1_coefficient"
    steps = check_positive_int(call, "steps", steps)
    check_momentum(call, momentum)
    thresholds = _evaluate(threshold_schedule, steps + 1)
    rates = _values(call, "learning_rate", learning_rate, steps)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (1 - momentum) * np.diff(thresholds) / rates


def final_threshold(
    coefficient: float,
    learning_rate: optax.ScalarOrSchedule,
    steps: int,
    *,
    momentum: float = 0.0,
) -> float:
    """Return the final threshold that stands for a constant L1 coefficient.

        D = lambda / (1 - mu) sum_{t<N}(eta_t)

    The inverse of `l1_coefficient` for `from_learning_rate`: the same coefficient gives
    the same pruning when learning rate or length change.

    Args:
      coefficient: lambda >= 0; unit: loss / weight.
      learning_rate: eta_t >= 0, the optimizer's own schedule (or scalar).
      steps: N >= 1.
      momentum: mu in [0, 1), the optimizer's own.

    Returns:
      D, a float; unit: weight.

    Raises:
      ValueError: an argument is out of range.

    Examples:
      >>> round(final_threshold(1e-3, 0.1, 100, momentum=0.9), 6)
      0.1

    References:
      [LATS]; the factor of momentum is ours.
    """
    check_non_negative("final_threshold", "coefficient", coefficient)
    steps = check_positive_int("final_threshold", "steps", steps)
    check_momentum("final_threshold", momentum)
    rates = _values("final_threshold", "learning_rate", learning_rate, steps)
    return float(coefficient / (1 - momentum) * np.sum(rates))


def _evaluate(schedule: optax.ScalarOrSchedule, count: int) -> np.ndarray:
    """Return a schedule's values at 0, ..., count - 1, float64, also inside a trace."""
    if not callable(schedule):
        return np.full(count, schedule, np.float64)
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        values = jax.vmap(schedule)(jnp.arange(count, dtype=jnp.int32))
        return np.asarray(values, np.float64)


def _values(
    call: str, name: str, schedule: optax.ScalarOrSchedule, steps: int
) -> np.ndarray:
    """As `_evaluate`, refusing negative and undefined values."""
    check_scalar_or_schedule(call, name, schedule)
    values = _evaluate(schedule, steps)
    wrong = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if wrong.size:
        raise ValueError(
            f"`{call}({name}=<schedule>)`: must be finite and at least 0 at all of its"
            f" {steps} steps, got {float(values[wrong[0]])} at step {wrong[0]}. Pass"
            " the schedule that the optimizer uses, with the number of its steps."
        )
    return values
