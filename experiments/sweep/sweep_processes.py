"""The runs of a sweep as processes, some at a time, each on its share of the cores."""

import concurrent.futures
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.logging.files import read_json
from experiments.logging.formatting import is_number
from experiments.logging.measure import measure_of
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
    failed: list[Run] = []
    shares = iter(_shares(jobs))
    broken = threading.Event()

    def asked() -> int:
        return 2 if broken.is_set() else interrupted()

    with concurrent.futures.ThreadPoolExecutor(
        jobs, initializer=lambda: _keep_to(next(shares))
    ) as pool:
        codes = {pool.submit(_run, run, jobs, asked): run for run in waiting}
        try:
            for future in concurrent.futures.as_completed(codes):
                run, code = codes[future], future.result()
                if code is None:
                    continue
                ended += 1
                line, good = _outcome(run, code, stopped=interrupted() > 0)
                say(f"[{ended:>{width}}/{len(runs)}] {run}: {line}")
                if not good:
                    failed.append(run)
        except BaseException:  # the pool waits for its runs, which must not go on
            broken.set()
            raise
    return failed


def _run(run: Run, jobs: int, asked: Callable[[], int]) -> int | None:
    """Run to the end, and return the exit code; None if it was not started."""
    if asked():
        return None
    process = _start(run, jobs)
    sent = 0
    while True:
        try:
            return process.wait(_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            if sent < min(asked(), 2):
                sent += 1
                process.send_signal(signal.SIGINT if sent == 1 else signal.SIGKILL)


def _start(run: Run, jobs: int) -> subprocess.Popen[bytes]:
    """Start a run on the cores of this thread; what it prints goes to its log."""
    run.workdir.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ)
    if jobs > 1:  # Or the first run takes all memory of an accelerator.
        environment.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    path = [str(_ROOT), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    with (run.workdir / LOG_FILE).open("wb") as log:
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


def _shares(jobs: int) -> list[set[int] | None]:
    """Split the cores among the jobs; None where there are too few, or no way to."""
    if not hasattr(os, "sched_getaffinity"):
        return [None] * jobs
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < jobs or jobs == 1:
        return [None] * jobs
    return [{*cores[slot::jobs]} for slot in range(jobs)]


def _keep_to(cores: set[int] | None) -> None:
    """Keep this thread to some cores, and with it the processes that it starts."""
    if cores is not None:
        os.sched_setaffinity(0, cores)


def _outcome(run: Run, code: int, *, stopped: bool) -> tuple[str, bool]:
    """What to say of a run that ended, and whether it did as it should."""
    if code == 0:
        summary = read_json(run.workdir / SUMMARY_FILE)
        measure = measure_of(summary)
        value, dense = (
            summary["final"][measure.key],
            summary.get(f"dense_{measure.key}"),
        )
        before = ""
        if is_number(dense) and run.point != DENSE:
            before = f" (before pruning {measure.show(dense)})"
        return f"{measure.show(value)}{before} in {summary['seconds']:.0f} s", True
    if stopped:
        return "stopped", True
    text = (run.workdir / LOG_FILE).read_text(errors="replace").strip()
    last = text.rpartition("\n")[2] or "no output"
    return f"failed with exit code {code}: {last}", False
