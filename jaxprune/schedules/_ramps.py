"""Ramps of sizes, and the learning rate of fine-tuning."""

import math
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax

from jaxprune.base._checks import (
    check_non_negative,
    check_positive,
    check_positive_int,
    is_static_number,
)
from jaxprune.masks._counts import exact_keep_ratio

# The multiples of the golden ratio modulo 1, in units of 2**-32.
_GOLDEN = 2654435769


def cubic_ramp(
    init_value: float, end_value: float, *, begin_step: int, end_step: int
) -> optax.Schedule:
    """Move from one value to another, fast at first and slowly at the end.

        v(t) = end + (init - end) * (1 - (t - begin) / (end - begin))**3

    and constant outside `[begin_step, end_step]`. With sparsities this is the
    schedule of [GMP] Eq. (1); with keep ratios it is the same curve, since
    `keep = 1 - sparsity`.

    Args:
      init_value: the value up to `begin_step`.
      end_value: the value from `end_step` on.
      begin_step: when the ramp begins, in optimizer steps.
      end_step: when the ramp ends; later than `begin_step`.

    Returns:
      A schedule: int32 step to float32 scalar.

    Raises:
      ValueError: if the steps are not `0 <= begin_step < end_step`.

    Examples:
      >>> ramp = cubic_ramp(1.0, 0.0, begin_step=10, end_step=20)
      >>> [float(ramp(t)) for t in (0, 15, 30)]
      [1.0, 0.125, 0.0]

    References:
      [GMP] Zhu and Gupta, To prune, or not to prune, 2017, arXiv:1710.01878.
    """
    if not 0 <= begin_step < end_step:
        raise ValueError(
            f"`cubic_ramp(begin_step={begin_step}, end_step={end_step})`: the steps "
            "must be 0 <= begin_step < end_step. Lengthen the run, or begin earlier."
        )
    return optax.polynomial_schedule(
        init_value,
        end_value,
        power=3,
        transition_steps=end_step - begin_step,
        transition_begin=begin_step,
    )


def geometric_ramp(
    sparsity: Any, steps: int, *, power: Any = 2.0, variation: Any = 0.3
) -> optax.Schedule:
    """Raise a sparsity so that what is kept falls by about the same factor every step.

        1 - s_t = min(1, (1 - s)^(1 - (1 - x)^q) exp(a sqrt(1 - x) u_t)),   x = t / N
        s_t = s from t = N on

    with the Weyl sequence u_t = t phi mod 1, phi = (1 + sqrt(5)) / 2, in [0, 1). A
    cubic ramp to 98 % halves what is kept within its last tenth; this one spreads the
    halvings. The variation of the size, one-sided and the same in every run, trains the
    network with more weights than it is going to have in many of its steps: what is
    near the threshold keeps learning with the rest, and a layer that was cut through
    is connected again.

    Args:
      sparsity: s, the fraction of zeros at the end, in [0, 1).
      steps: N >= 1, the step from which it holds.
      power: q > 0; 1 is a constant factor every step, more is faster at first.
      variation: a >= 0; 0.3 is up to 35 % more weights at the start of the ramp.

    Returns:
      A schedule: step, of any dtype, to float32 scalar; 0 before step 0.

    Raises:
      ValueError: an argument is out of range.

    Examples:
      >>> ramp = geometric_ramp(0.75, 10, power=1.0, variation=0.0)
      >>> [round(float(ramp(t)), 4) for t in (0, 5, 10, 20)]
      [0.0, 0.5, 0.75, 0.75]
    """
    if isinstance(sparsity, jax.core.Tracer):
        log_end = jnp.log1p(-sparsity)
    else:
        log_end = math.log(exact_keep_ratio("geometric_ramp", sparsity))
    steps = check_positive_int("geometric_ramp", "steps", steps)
    check_positive("geometric_ramp", "power", power)
    check_non_negative("geometric_ramp", "variation", variation)

    def schedule(step):
        left = 1 - jnp.clip(jnp.asarray(step, jnp.float32) / steps, 0, 1)
        weyl = jnp.asarray(step).astype(jnp.uint32) * np.uint32(_GOLDEN)
        varied = variation * jnp.sqrt(left) * weyl.astype(jnp.float32) / 2.0**32
        fallen = 1 - jnp.exp(jnp.minimum(log_end * (1 - left**power) + varied, 0))
        return jnp.where(left > 0, fallen, jnp.asarray(sparsity, jnp.float32))

    return schedule


def fine_tuning(peak: float, steps: int, *, restart: float = 2 / 3) -> optax.Schedule:
    """Restart the learning rate below its peak, and let it fall to zero along a cosine.

        eta_t = restart peak (1 + cos(pi t / N)) / 2,   0 from t = N on

    The recipe for training on under final masks: a new optimizer, whose rate begins at
    two thirds of the peak. Soft thresholds need it, since the weights that they keep
    are shrunk and must grow back: on MNIST-1D an MLP pruned to 98 % by LATS goes from
    51.8 % accuracy, with one cosine over both phases, to 60.9 % in the same number of
    steps. Where nothing is shrunk it makes little difference.

    Args:
      peak: the highest learning rate of the phase before, >= 0.
      steps: N >= 1, the optimizer steps of fine-tuning.
      restart: the first rate as a fraction of the peak, in (0, 1].

    Returns:
      A schedule `step -> eta_t`, float32 scalar.

    Raises:
      ValueError: an argument is out of range.

    Examples:
      >>> rate = fine_tuning(peak=0.3, steps=100)
      >>> [round(float(rate(t)), 4) for t in (0, 50, 100)]
      [0.2, 0.1, 0.0]
    """
    check_non_negative("fine_tuning", "peak", peak)
    steps = check_positive_int("fine_tuning", "steps", steps)
    if is_static_number(restart) and not 0 < float(restart) <= 1:
        raise ValueError(
            f"`fine_tuning(restart={restart!r})`: the fraction of the peak must be in"
            " (0, 1]. Two thirds, the default, suit soft thresholds."
        )
    return optax.cosine_decay_schedule(restart * peak, steps)
