"""Several processes that train one network together, usually one on each host.

Each reads its share of the data. Process 0 decides what all must agree on, and writes
the logs; checkpoints are written by all.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from typing import NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

# Seconds after which a process without a sign of life counts as dead, and after which
# one that ends no longer waits for the others.
_PATIENCE = 30
# What the process ends with whose others are gone: a temporary failure, try again.
_LOST = 75


class LostProcessError(RuntimeError):
    """Another process of the run has ended, or cannot go on."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options by which processes find each other."""
    group = parser.add_argument_group("several processes, one command for each")
    group.add_argument(
        "--distributed",
        action="store_true",
        help="on TPU pods, SLURM, Kubernetes and Open MPI, which say who takes part",
    )
    group.add_argument("--coordinator", help="HOST:PORT of process 0, elsewhere")
    group.add_argument("--processes", type=int, help="how many there are")
    group.add_argument("--process", type=int, help="the number of this one, from 0")


def start(parsed: argparse.Namespace) -> None:
    """Join the other processes, if there are any.

    Raises:
      ValueError: if only some of the options are given that belong together.
    """
    given = parsed.coordinator, parsed.processes, parsed.process
    if any(x is not None for x in given) and None in given:
        raise ValueError(
            "`--coordinator`, `--processes` and `--process` belong together: give all "
            "three, or `--distributed` alone where the cluster knows them."
        )
    if parsed.distributed or parsed.coordinator:
        jax.distributed.initialize(
            *given,
            heartbeat_timeout_seconds=_PATIENCE,
            shutdown_timeout_seconds=_PATIENCE,
        )


def from_first(make: Callable[[], int]) -> int:
    """Return in all processes the whole number that process 0 makes.

    Raises:
      LostProcessError: in the others, if `make` raises in process 0.
    """
    if jax.process_count() == 1:
        return make()
    number, error = 0, None
    if jax.process_index() == 0:
        try:
            number = make()
        except Exception as raised:  # the others must not wait for ever
            error = raised
    told = np.array([error is not None, number], np.int32)
    failed, number = multihost_utils.broadcast_one_to_all(told).tolist()
    if error is not None:
        raise error
    if failed:
        raise LostProcessError("Process 0 cannot go on; its own message says why.")
    return number


def any_of(here: bool) -> bool:
    """Return whether something is true in any process; waits for all."""
    if jax.process_count() == 1:
        return here
    return bool(np.any(multihost_utils.process_allgather(np.array(here))))


def wait() -> None:
    """Wait until all processes have come here."""
    any_of(False)


def give_up(error: Exception) -> NoReturn:
    """End this process because another one is gone."""
    print(
        f"{error}\nProcess {jax.process_index()} ends: another one is gone, or cannot "
        "be reached. Start all again by the same commands: the run goes on from its "
        "last checkpoint.",
        file=sys.stderr,
        flush=True,
    )
    _leave(_LOST)


def leave(code: int) -> int:
    """Return the exit status of a run that failed; end at once among others."""
    if jax.process_count() > 1:
        time.sleep(1)  # the others hear why before the connections close
        _leave(code)
    return code


def _leave(code: int) -> NoReturn:
    # An exit in order would wait for the process that is gone.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
