"""From the step to a value: ramps, and ladders of compression."""

import math

import optax


def cubic_ramp(
    init_value: float, end_value: float, *, begin_step: int, end_step: int
) -> optax.Schedule:
    """Moves from one value to another, fast at first and slowly at the end.

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


def compression_ladder(keep_ratio: float) -> tuple[float, ...]:
    """Returns the keep ratios 1/2, 1/4, 1/8, ... above `keep_ratio`, then itself.

    Args:
      keep_ratio: the last rung, in (0, 1].

    Raises:
      ValueError: if `keep_ratio` is not in (0, 1].

    >>> compression_ladder(0.1)
    (0.5, 0.25, 0.125, 0.1)
    """
    if not 0 < keep_ratio <= 1:
        raise ValueError(
            f"`compression_ladder(keep_ratio={keep_ratio})`: must be in (0, 1]."
        )
    rungs = math.ceil(-math.log2(keep_ratio)) - 1
    return (*(2.0**-i for i in range(1, rungs + 1)), keep_ratio)
