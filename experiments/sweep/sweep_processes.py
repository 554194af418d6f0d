"""The runs of a sweep as processes, some at a time, each on its share of the cores."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from experiments.logging.formatting import is_number
from experiments.logging.summary import SUMMARY_FILE
from experiments.sweep.sweep_plan import DENSE, Run, summary_of

LOG_FILE = "log.txt"

_ROOT = Path(__file__).parents[2]
_POLL_SECONDS = 0.05


def run_all(
    runs: Sequence[Run],
    *,
    jobs: int = 1,
    say: Callable[[str], None] = print,
    interrupted: Callable[[], int] = lambda: 0,
) -> list[Run]:
    """Run what is not finished yet.

    Each of the processes at work has its own share of the processor's cores, so that
    they do not take each other's turns.

    Args:
      runs: the runs.
      jobs: how many processes at a time.
      say: takes a line for every run that ends.
      interrupted: how many times the sweep was interrupted. After once the runs at
        work save and stop, after twice they are killed. Nothing more is started.

    Returns:
      The runs that failed. Those that were stopped are not among them.
    """
    width = len(str(len(runs)))
    waiting = [run for run in runs if summary_of(run) is None]
    ended = len(runs) - len(waiting)
    if ended:
        say(f"{ended} of {len(runs)} runs are finished already.")
    waiting.reverse()
    shares = _shares(jobs)
    active: dict[int, tuple[Run, subprocess.Popen[bytes]]] = {}
    failed: list[Run] = []
    sent = 0
    try:
        while active or (waiting and not interrupted()):
            for slot, cores in enumerate(shares):
                if slot not in active and waiting and not interrupted():
                    run = waiting.pop()
                    active[slot] = run, _start(run, cores, jobs)
            while sent < min(interrupted(), 2):
                sent += 1
                for _, process in active.values():
                    _send(process, signal.SIGINT if sent == 1 else signal.SIGKILL)
            for slot, (run, process) in list(active.items()):
                if process.poll() is None:
                    continue
                del active[slot]
                ended += 1
                line, good = _outcome(run, process.returncode, stopped=sent > 0)
                say(f"[{ended:>{width}}/{len(runs)}] {run}: {line}")
                if not good:
                    failed.append(run)
            time.sleep(_POLL_SECONDS)
    finally:
        for _, process in active.values():  # only after an error of our own
            _send(process, signal.SIGKILL)
            process.wait()
    return failed


def _shares(jobs: int) -> list[set[int] | None]:
    """Split the cores among the jobs; None where there are too few, or no way to."""
    if not hasattr(os, "sched_getaffinity"):
        return [None] * jobs
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < jobs or jobs == 1:
        return [None] * jobs
    return [{*cores[slot::jobs]} for slot in range(jobs)]


def _start(run: Run, cores: set[int] | None, jobs: int) -> subprocess.Popen[bytes]:
    """Start a run, on the cores given; XLA makes as many threads as it may use."""
    run.workdir.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ)
    if jobs > 1:  # Or the first run takes all memory of an accelerator.
        environment.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    path = [str(_ROOT), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    with (run.workdir / LOG_FILE).open("wb") as log, _on(cores):
        return subprocess.Popen(
            [sys.executable, "-m", "experiments", "train", *run.arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # Ctrl-C reaches the sweep alone, which passes it on once: a run takes the
            # second for impatience.
            start_new_session=True,
        )


@contextlib.contextmanager
def _on(cores: set[int] | None) -> Iterator[None]:
    """Keep to some cores; processes started meanwhile keep to them for good."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _send(process: subprocess.Popen[bytes], signum: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signum)


def _outcome(run: Run, code: int, *, stopped: bool) -> tuple[str, bool]:
    """What to say of a run that ended, and whether it did as it should."""
    if code == 0:
        summary = json.loads((run.workdir / SUMMARY_FILE).read_bytes())
        accuracy, dense = summary["final"]["accuracy"], summary.get("dense_accuracy")
        pruned = is_number(dense) and run.point != DENSE
        before = f" (before pruning {100 * dense:.2f}%)" if pruned else ""
        return f"{100 * accuracy:.2f}%{before} in {summary['seconds']:.0f} s", True
    if stopped:
        return "stopped", True
    lines = (run.workdir / LOG_FILE).read_text(errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "no output")
    return f"failed with exit code {code}: {last.strip()}", False
