"""Runs configs at several sparsities and seeds, some at a time, and goes on if stopped.

Command:
    python -m experiments.sweep --configs=ltp_digits,magnitude_digits \
        --sparsities=0.9,0.95,0.98,0.99 --seeds=0,1,2 --workdir=runs/sweep --jobs=2

Every run is one `experiments.main` in a process of its own, in the folder
`workdir/config/sparsity/seed` (`workdir/config/dense/seed` for a config that does not
prune, which runs once per seed whatever the sparsities). What it prints is in `log.txt`
there. Arguments `--config.field=value` are given to every run.

Methods that prune channels take budgets instead, `--budgets=macs:0.5,parameters:0.5` or
`macs:0.5+parameters:0.5` for both at once; their folders are called like them.

Finished runs are left alone, so the same command goes on after Ctrl-C or a failure, and
points that only some methods have are asked for by a second call with the same workdir.
`python -m experiments.tables --workdir=runs/sweep --name=...` makes the comparison.
"""

import argparse
import contextlib
import dataclasses
import difflib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments.formatting import is_number
from experiments.summary import SUMMARY_FILE

LOG_FILE = "log.txt"
DENSE = "dense"
"""Stands in the place of the sparsity in the folder of a run that does not prune."""

_ROOT = Path(__file__).parent.parent
_CONFIGS = Path(__file__).parent / "configs"
_NO_CONFIGS = ("__init__", "default")
_OVERRIDE = "--config."
_QUIET = "--config.progress=false"

# What a shell reports for a program that Ctrl-C stopped; `experiments.main` does too.
_STOPPED = 130
_POLL_SECONDS = 0.05


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a sweep.

    Attributes:
      config: the name of a file in `experiments/configs`.
      sparsity: the fraction of zeros asked for; None for a config that does not prune
        weights.
      budget: the limits asked for, such as `macs:0.5`; None for a config that does not
        prune channels.
      seed: what everything random comes from.
      workdir: the folder of the run.
      overrides: further arguments, `--config.field=value`.
    """

    config: str
    sparsity: float | None
    seed: int
    workdir: Path
    budget: str | None = None
    overrides: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The name of the run in what the sweep prints."""
        return f"{self.config} {_folder(self.sparsity, self.budget)} seed {self.seed}"

    @property
    def flags(self) -> list[str]:
        """The arguments of `experiments.main` that say what is computed."""
        asked = [] if self.sparsity is None else [f"--config.sparsity={self.sparsity}"]
        return [
            f"--config={os.path.relpath(_CONFIGS / self.config)}.py",
            *asked,
            *_limits(self.budget),
            f"--config.seed={self.seed}",
            *self.overrides,
        ]

    @property
    def arguments(self) -> list[str]:
        """All arguments of `experiments.main`."""
        return [*self.flags, f"--workdir={self.workdir}", _QUIET]


def plan_runs(
    configs: Sequence[str],
    sparsities: Sequence[float],
    seeds: Sequence[int],
    workdir: str | Path,
    overrides: Sequence[str] = (),
    budgets: Sequence[str] = (),
) -> list[Run]:
    """List the runs of a sweep.

    Args:
      configs: names of files in `experiments/configs`.
      sparsities: fractions of zeros, in (0, 1).
      seeds: whole numbers.
      workdir: the folder of the sweep.
      overrides: `--config.field=value`, for every run.
      budgets: limits, for configs that prune channels.

    Returns:
      The runs, seed by seed: a sweep that is stopped early has few seeds of everything
      rather than everything of few methods.

    Raises:
      ValueError: if there is no such config, a config is led by a price and so takes
        no sparsity, or a sparsity is not in (0, 1).
    """
    for sparsity in sparsities:
        if not 0 < sparsity < 1:
            raise ValueError(
                "`--sparsities` must be fractions of zeros between 0 and 1; got "
                f"{sparsity}. A config that does not prune, such as dense_digits, "
                "needs none."
            )
    for override in overrides:
        field = override.removeprefix(_OVERRIDE).partition("=")[0]
        if field in ("sparsity", "seed"):
            plural = {"sparsity": "sparsities", "seed": "seeds"}[field]
            raise ValueError(f"`{override}` is what `--{plural}` says for a sweep.")
    for budget in budgets:
        _limits(budget)
    points = {config: _points(config, sparsities, budgets) for config in configs}
    return [
        Run(
            config=config,
            sparsity=sparsity,
            seed=seed,
            workdir=Path(workdir) / config / _folder(sparsity, budget) / str(seed),
            budget=budget,
            overrides=tuple(overrides),
        )
        for seed in dict.fromkeys(seeds)
        for config in points
        for sparsity, budget in points[config]
    ]


def summary_of(run: Run) -> dict[str, Any] | None:
    """Read the `summary.json` of a run that has finished as it is asked for.

    Args:
      run: the run.

    Returns:
      The summary; None if there is none, the run did not finish, or another command
      made it. `experiments.main` decides about the last: it goes on, or says which
      field differs.
    """
    try:
        summary = json.loads((run.workdir / SUMMARY_FILE).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    same = _computed(summary.get("command", ())) == _computed(run.flags)
    return summary if same and summary.get("status") == "finished" else None


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
      interrupted: how often the sweep was asked to stop. Once, and the runs at work
        are asked to save and stop; twice, and they are killed. Nothing more is
        started.

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
    told = 0
    try:
        while active or (waiting and not interrupted()):
            for slot, cores in enumerate(shares):
                if slot not in active and waiting and not interrupted():
                    run = waiting.pop()
                    active[slot] = run, _start(run, cores, jobs)
            while told < min(interrupted(), 2):
                told += 1
                for _, process in active.values():
                    _tell(process, signal.SIGINT if told == 1 else signal.SIGKILL)
            for slot, (run, process) in list(active.items()):
                if process.poll() is None:
                    continue
                del active[slot]
                ended += 1
                line, good = _outcome(run, process.returncode, stopped=told > 0)
                say(f"[{ended:>{width}}/{len(runs)}] {run}: {line}")
                if not good:
                    failed.append(run)
            time.sleep(_POLL_SECONDS)
    finally:
        for _, process in active.values():  # only after an error of our own
            _tell(process, signal.SIGKILL)
            process.wait()
    return failed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a sweep from the command line.

    Args:
      arguments: those of the process if not given.

    Returns:
      The exit status: 0, 1 if a run failed, 130 if the sweep was stopped.
    """
    parser = argparse.ArgumentParser(
        prog="python -m experiments.sweep",
        description="Run configs at several sparsities and seeds; finished runs stay.",
        epilog="Arguments --config.field=value are given to every run.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--configs", required=True, type=_list_of(str), help="names, such as ltp_digits"
    )
    parser.add_argument(
        "--sparsities", default=[], type=_list_of(float), help="such as 0.9,0.95"
    )
    parser.add_argument(
        "--budgets",
        default=[],
        type=_list_of(str),
        help="such as macs:0.5,parameters:0.5,macs:0.5+parameters:0.5",
    )
    parser.add_argument(
        "--seeds", default=[0], type=_list_of(int), help="such as 0,1,2; 0 if not given"
    )
    parser.add_argument("--workdir", required=True, help="the folder of the sweep")
    parser.add_argument(
        "--jobs", default=1, type=int, help="runs at a time; 1 if not given"
    )
    parsed, others = parser.parse_known_args(arguments)
    for other in others:
        if not other.startswith(_OVERRIDE) or "=" not in other:
            parser.error(f"unknown argument {other}; a field is --config.field=value")
    if parsed.jobs < 1:
        parser.error(f"argument --jobs: must be at least 1, got {parsed.jobs}")
    try:
        runs = plan_runs(
            parsed.configs,
            parsed.sparsities,
            parsed.seeds,
            parsed.workdir,
            others,
            parsed.budgets,
        )
    except ValueError as error:
        parser.error(str(error))
    begin = time.monotonic()
    with _interrupts() as interrupted:
        failed = run_all(
            runs,
            jobs=parsed.jobs,
            say=lambda line: print(line, flush=True),
            interrupted=interrupted,
        )
        stopped = interrupted() > 0
    done = sum(summary_of(run) is not None for run in runs)
    minutes = (time.monotonic() - begin) / 60
    print(f"{done} of {len(runs)} runs are finished; {minutes:.1f} min.")
    if failed:
        print(f"{len(failed)} failed:", file=sys.stderr)
        for run in failed:
            print(f"  {run}: {run.workdir / LOG_FILE}", file=sys.stderr)
    if stopped:
        print("Stopped; the same command goes on.")
        return _STOPPED
    return 1 if failed else 0


def _folder(sparsity: float | None, budget: str | None) -> str:
    """What the folder of a point is called."""
    if budget is not None:
        return budget
    return DENSE if sparsity is None else repr(sparsity)


def _limits(budget: str | None) -> list[str]:
    """The arguments that set a budget; a config's own limit on MACs is lifted."""
    if budget is None:
        return []
    limits = {"macs": "1.0"}
    for part in budget.split("+"):
        name, _, limit = part.partition(":")
        try:
            good = 0 < float(limit) <= 1
        except ValueError:
            good = False
        if not good:
            raise ValueError(
                f"`--budgets={budget}` requires limits such as macs:0.5, fractions of "
                f"the dense cost between 0 and 1; got {part!r}."
            )
        limits[name] = limit
    return [f"--config.budget.{name}={limit}" for name, limit in limits.items()]


def _points(
    config: str, sparsities: Sequence[float], budgets: Sequence[str]
) -> list[tuple[float | None, str | None]]:
    """The sparsities or budgets at which a config runs, each once."""
    known = sorted({path.stem for path in _CONFIGS.glob("*.py")} - {*_NO_CONFIGS})
    if config not in known:
        close = difflib.get_close_matches(config, known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"`--configs` requires names of {', '.join(known)}; got {config!r}.{hint}"
        )
    fields = importlib.import_module(f"experiments.configs.{config}").get_config()
    if fields.price is not None:
        raise ValueError(
            f"`--configs={config}`: its size is decided by `config.price`, not by a "
            "sparsity, so it cannot be swept over sparsities."
        )
    if not fields.prune_epochs:
        return [(None, None)]
    if any(limit is not None for limit in fields.budget.values()):
        points: list[Any] = [(None, budget) for budget in dict.fromkeys(budgets)]
    else:
        points = [(sparsity, None) for sparsity in dict.fromkeys(sparsities)]
    if not points:
        raise ValueError(
            f"`--configs={config}` prunes; say to what size, with `--sparsities`, or "
            "with `--budgets` if it prunes channels."
        )
    return points


def _computed(arguments: Iterable[str]) -> set[str]:
    """The arguments that say what is computed; a config by its name, not its path."""
    named = (
        f"--config={Path(argument).stem}"
        if argument.startswith("--config=")
        else argument
        for argument in arguments
    )
    return {name for name in named if name.startswith("--config")} - {_QUIET}


def _list_of(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """A parser of values between commas."""

    def parse(text: str) -> list[Any]:
        return [kind(part) for part in text.split(",") if part]

    parse.__name__ = f"list of {kind.__name__}"  # argparse shows it
    return parse


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
            [sys.executable, "-m", "experiments.main", *run.arguments],
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


def _tell(process: subprocess.Popen[bytes], signum: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signum)


def _outcome(run: Run, code: int, *, stopped: bool) -> tuple[str, bool]:
    """What to say of a run that ended, and whether it did as it should."""
    if code == 0:
        summary = json.loads((run.workdir / SUMMARY_FILE).read_bytes())
        accuracy, dense = summary["final"]["accuracy"], summary.get("dense_accuracy")
        pruned = is_number(dense) and _folder(run.sparsity, run.budget) != DENSE
        before = f" (dense {100 * dense:.2f}%)" if pruned else ""
        return f"{100 * accuracy:.2f}%{before} in {summary['seconds']:.0f} s", True
    if stopped:
        return "stopped", True
    lines = (run.workdir / LOG_FILE).read_text(errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "no output")
    return f"failed with exit code {code}: {last.strip()}", False


@contextlib.contextmanager
def _interrupts() -> Iterator[Callable[[], int]]:
    """Counts Ctrl-C, SIGTERM and the closing of the terminal instead of ending."""
    count = 0

    def on_signal(number: int, frame: object) -> None:
        nonlocal count
        del number, frame
        count += 1

    numbers: Iterable[str] = ("SIGINT", "SIGTERM", "SIGHUP")
    old = {
        getattr(signal, name): signal.signal(getattr(signal, name), on_signal)
        for name in numbers
        if hasattr(signal, name)
    }
    try:
        yield lambda: count
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
