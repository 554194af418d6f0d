"""Seconds of several functions, measured in turns: A B A B ...

What slows a machine down for a while then slows all of them; the median is not moved by
single disturbances, and quartiles say how much it can be trusted.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np


class Quartiles(NamedTuple):
    """Seconds of one call."""

    low: float
    median: float
    high: float


def in_turns(
    functions: Sequence[Callable[[], Any]],
    rounds: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Quartiles]:
    """Time functions in turns, each called once before to warm up."""
    seconds = np.zeros((rounds, len(functions)))
    for turn in range(-1, rounds):
        for number, function in enumerate(functions):
            begin = clock()
            jax.block_until_ready(function())
            if turn >= 0:
                seconds[turn, number] = clock() - begin
    found = np.quantile(seconds, [0.25, 0.5, 0.75], axis=0).T
    return [Quartiles(*row) for row in found.tolist()]


def compiled(
    apply_fn: Callable[..., Any], params: Any, *inputs: Any
) -> Callable[[], Any]:
    """Compile `apply_fn(params, *inputs)` and return a function that runs it."""
    call = jax.jit(apply_fn).lower(params, *inputs).compile()
    return lambda: call(params, *inputs)
