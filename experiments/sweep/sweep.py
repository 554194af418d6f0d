"""Runs configs at several sparsities and seeds, some at a time, and goes on if stopped.

Command:
    python -m experiments sweep --configs=digits/ltp,digits/magnitude \
        --sparsities=0.9,0.95,0.98,0.99 --seeds=0,1,2 --workdir=runs/sweep --jobs=2

Every run is one `python -m experiments train` in a process of its own, in the folder
`WORKDIR/CONFIG/SPARSITY/SEED`, such as `runs/sweep/digits/ltp/0.9/0`. A config that
does not prune runs once per seed, in `CONFIG/dense/SEED`, whatever the sparsities. What
a run prints is in `log.txt` there. Arguments `--config.field=value` are given to every
run.

Methods that prune channels take budgets instead, `--budgets=macs:0.5,parameters:0.5` or
`macs:0.5+parameters:0.5` for both at once; their folders are called like them.

Finished runs are left alone, so the same command goes on after Ctrl-C or a failure, and
points that only some methods have are added by a second call with the same workdir.
`python -m experiments table --workdir=runs/sweep --name=...` makes the comparison.
"""

import sys
import time
from collections.abc import Sequence

from experiments.run.interrupts import counted
from experiments.sweep.sweep_plan import make_parser, plan_runs, summary_of
from experiments.sweep.sweep_processes import LOG_FILE, run_all

# What a shell reports for a program that Ctrl-C stopped; training does too.
_STOPPED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a sweep from the command line, and return the exit status."""
    parser = make_parser(
        "sweep", "Run configs at several sparsities and seeds; finished runs stay."
    )
    parsed, others = parser.parse_known_args(arguments)
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
    with counted("SIGINT", "SIGTERM", "SIGHUP") as interrupted:
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
