"""Thresholds in closed form, as published; see `jaxprune.schedules`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxprune.base._checks import check_fraction, check_non_negative, check_positive_int


def s_lats(final: Any, steps: int) -> optax.Schedule:
    """S-LATS: a constant L1 coefficient under a cosine learning rate over steps.

        D_t = D (x + sin(pi x) / pi),   x = t / N

    the integral of the learning rate eta(x) ~ 1 + cos(pi x). As published: a warm-up is
    not accounted for (`from_learning_rate` does).

    Args:
      final: D >= 0; unit: weight. May be traced.
      steps: N >= 1, optimizer steps.

    Returns:
      A schedule `step -> D_t`.

    Raises:
      ValueError: `final` is negative or `steps` not a whole number >= 1.

    Examples:
      >>> [round(float(s_lats(1.0, 10)(t)), 4) for t in (0, 1, 5, 10)]
      [0.0, 0.1984, 0.8183, 1.0]

    References:
      [LATS], flag `sinp` of the authors' code.
    """
    return _shape("s_lats", lambda x: x + jnp.sin(jnp.pi * x) / jnp.pi, final, steps)


def lats(final: Any, epochs: int, steps_per_epoch: int) -> optax.Schedule:
    """LATS: a constant L1 coefficient under a cosine learning rate over epochs.

        D_t = D (b_n + j (1 + cos(pi n / N)) / (m (N + 1)))
        b_n = (1 + 2 n + sin(pi (n - 1/2) / N) / sin(pi / (2 N))) / (2 (N + 1))

    at step t = n m + j, with m steps in each of N epochs: the exact sum of a learning
    rate that is constant inside an epoch. As published: warm-up is not accounted for.

    Args:
      final: D >= 0; unit: weight. May be traced.
      epochs: N >= 1.
      steps_per_epoch: m >= 1.

    Returns:
      A schedule `step -> D_t`, over `epochs * steps_per_epoch` steps.

    Raises:
      ValueError: `final` is negative, or a count not a whole number >= 1.

    Examples:
      >>> [round(float(lats(1.0, 10, 4)(t)), 4) for t in (0, 2, 4, 40)]
      [0.0, 0.0909, 0.1818, 1.0]

    References:
      [LATS], flags `sinp --low-freq` of the authors' code.
    """
    check_non_negative("lats", "final", final)
    epochs = check_positive_int("lats", "epochs", epochs)
    steps_per_epoch = check_positive_int("lats", "steps_per_epoch", steps_per_epoch)

    def schedule(step):
        step = jnp.clip(jnp.asarray(step, jnp.int32), 0, epochs * steps_per_epoch)
        n = (step // steps_per_epoch).astype(float)
        j = (step % steps_per_epoch).astype(float)
        half = jnp.asarray(0.5, n.dtype)
        ratio = jnp.sin(jnp.pi * (n - half) / epochs) / jnp.sin(jnp.pi * half / epochs)
        base = (1 + 2 * n + ratio) / (2 * (epochs + 1))
        slope = (1 + jnp.cos(jnp.pi * n / epochs)) / (epochs + 1)
        return final * jnp.clip(base + slope * j / steps_per_epoch, 0, 1)

    return schedule


def pgh(final: Any, steps: int, *, beta: float) -> optax.Schedule:
    """PGH: a geometric L1 coefficient under a cosine learning rate over steps.

        D_t = D F(x) / F(1),   x = t / N
        F(x) = integral from 0 to x of beta^s (1 + cos(pi s)) ds

    so that lambda_t = lambda_0 beta^x: strong first, then fading. With L = log(beta)
    the ratio is

        (pi^2 (beta^x - 1) + (beta^x - 2) L^2
             + beta^x L (L cos(pi x) + pi sin(pi x))) / (pi^2 (beta - 1) - 2 L^2)

    Args:
      final: D >= 0; unit: weight. May be traced.
      steps: N >= 1, optimizer steps.
      beta: lambda at the end / lambda at the start, in (0, 1). The authors publish
        no value; 0.1 and 0.01 reach 92 and 97 % of D half-way.

    Returns:
      A schedule `step -> D_t`.

    Raises:
      ValueError: `final` is negative, `steps` not a whole number >= 1, or `beta`
        outside (0, 1) (the default 0 of the authors' code has no logarithm).

    Examples:
      >>> [round(float(pgh(1.0, 10, beta=0.1)(t)), 4) for t in (0, 1, 5, 10)]
      [0.0, 0.3178, 0.9218, 1.0]

    References:
      [LATS], flag `sinppgh` of the authors' code; [PGH].
    """
    check_fraction("pgh", "beta", beta, closed=False)
    log_beta = np.log(beta)
    scale = 1 / (np.pi**2 * np.expm1(log_beta) - 2 * log_beta**2)

    def shape(x):
        growth = jnp.expm1(x * log_beta)  # beta^x - 1, without cancellation
        wave = log_beta * jnp.cos(jnp.pi * x) + jnp.pi * jnp.sin(jnp.pi * x)
        return scale * (
            np.pi**2 * growth
            + (growth - 1) * log_beta**2
            + (growth + 1) * log_beta * wave
        )

    return _shape("pgh", shape, final, steps)


def linear(final: Any, steps: int) -> optax.Schedule:
    """Raise the threshold evenly.

        D_t = D t / N

    The L1 coefficient is inversely proportional to the learning rate, so it grows
    without bound as a cosine ends.

    Args:
      final: D >= 0; unit: weight. May be traced.
      steps: N >= 1, optimizer steps.

    Returns:
      A schedule `step -> D_t`.

    Raises:
      ValueError: `final` is negative or `steps` not a whole number >= 1.

    Examples:
      >>> [float(linear(1.0, 4)(t)) for t in (0, 1, 4)]
      [0.0, 0.25, 1.0]

    References:
      [STDS], "linear".
    """
    return _shape("linear", lambda x: x, final, steps)


def sine(final: Any, steps: int) -> optax.Schedule:
    """Raise the threshold along half a sine, slowly at both ends.

        D_t = D / 2 (1 + sin(pi (x - 1/2))),   x = t / N

    Args:
      final: D >= 0; unit: weight. May be traced.
      steps: N >= 1, optimizer steps.

    Returns:
      A schedule `step -> D_t`.

    Raises:
      ValueError: `final` is negative or `steps` not a whole number >= 1.

    Examples:
      >>> [round(float(sine(1.0, 4)(t)), 4) for t in (0, 1, 2, 4)]
      [0.0, 0.1464, 0.5, 1.0]

    References:
      [STDS], "sine".
    """
    return _shape("sine", lambda x: (1 + jnp.sin(jnp.pi * (x - 0.5))) / 2, final, steps)


def constant(threshold: Any) -> optax.Schedule:
    """Keep the threshold where it is, from step 0 on.

        D_t = D

    The L1 coefficient is 0: a weight that has learned to pass the threshold is not
    pulled back.

    Args:
      threshold: D >= 0; unit: weight. May be traced.

    Returns:
      A schedule `step -> D`.

    Raises:
      ValueError: `threshold` is negative.

    Examples:
      >>> float(constant(0.5)(0)), float(constant(0.5)(100))
      (0.5, 0.5)

    References:
      [LATS], the authors' code without a scheduler.
    """
    check_non_negative("constant", "threshold", threshold)
    return optax.constant_schedule(threshold)


def _shape(
    call: str, shape: Callable[[jax.Array], jax.Array], final: Any, steps: int
) -> optax.Schedule:
    """Return the schedule `final * shape(step / steps)`, held at both ends."""
    check_non_negative(call, "final", final)
    steps = check_positive_int(call, "steps", steps)

    def schedule(step):
        x = jnp.clip(jnp.asarray(step, float) / steps, 0, 1)
        # Exact at the end, and never a rounding below 0, which no prox accepts.
        return final * jnp.where(x < 1, jnp.clip(shape(x), 0, 1), 1)

    return schedule
