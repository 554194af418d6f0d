"""Finds the strength of a penalty that leaves a given budget, by trial and error.

Command:
    python -m experiments bisect --config=digits/ssl_resnet20 --budget=macs:0.5 \
        --seeds=0 --workdir=runs/resnet20_channels

SSL and MorphNet have a penalty and no budget. Each trial trains to the end of the
pruning phase and keeps what the penalty has left; its strength is bisected on a
logarithmic scale until the cost is within a tolerance of the budget. Then the method
is run to its end, rounded to the budget, where `python -m experiments sweep` would put
it; what the trials took is in `trials.json` beside its `summary.json`. The same command
goes on where it was stopped.
"""

import argparse
import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

from experiments.logging.files import write_atomically
from experiments.sweep.sweep_plan import Run, check_run, plan_runs, summary_of
from experiments.sweep.sweep_processes import LOG_FILE, run_all

TRIALS_FILE = "trials.json"
_RANGE = (1e-3, 3.0)


def search(run: Run, *, most: int, tolerance: float) -> dict[str, Any]:
    """Bisects `config.method.channel_penalty` for a run.

    Args:
      run: the run, with a budget; the first limit of it is what is met.
      most: trials at the most.
      tolerance: how far the cost may be from the limit, a fraction of the dense cost.

    Returns:
      `penalty`, the best strength; `seconds`, of all trials; `trials`, each with its
      `penalty`, `cost` and `seconds`.

    Raises:
      RuntimeError: if a trial fails.
    """
    name, limit = run.point.split("+")[0].split(":")
    low, high = map(math.log, _RANGE)
    trials = []
    for _ in range(most):
        penalty = round(math.exp((low + high) / 2), 6)
        trial = dataclasses.replace(
            run,
            workdir=run.workdir / "trials" / repr(penalty),
            overrides=(
                *run.overrides,
                f"--config.method.channel_penalty={penalty}",
                "--config.method.round_to_budget=false",
                "--config.phases.finetune=0.0",
            ),
        )
        if run_all([trial]):
            raise RuntimeError(f"a trial failed; see {trial.workdir / LOG_FILE}")
        summary = summary_of(trial)
        if summary is None:
            raise RuntimeError(f"a trial was stopped: {trial.workdir}")
        cost = summary["costs"][name]
        trials.append({"penalty": penalty, "cost": cost, "seconds": summary["seconds"]})
        if abs(cost - float(limit)) <= tolerance:
            break
        too_large = cost > float(limit)
        low, high = (math.log(penalty), high) if too_large else (low, math.log(penalty))
    best = min(trials, key=lambda trial: abs(trial["cost"] - float(limit)))
    return {
        "penalty": best["penalty"],
        "seconds": sum(trial["seconds"] for trial in trials),
        "trials": trials,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m experiments bisect")
    parser.add_argument("--config", required=True, help="such as digits/ssl_resnet20")
    parser.add_argument("--budget", required=True, help="such as macs:0.5")
    parser.add_argument("--seeds", default="0", help="such as 0,1,2")
    parser.add_argument("--workdir", required=True, help="the folder of the sweep")
    parser.add_argument("--trials", default=6, type=int, help="at the most")
    parser.add_argument("--tolerance", default=0.03, type=float)
    parsed, overrides = parser.parse_known_args(arguments)
    seeds = [int(seed) for seed in parsed.seeds.split(",")]
    try:
        runs = plan_runs(
            [parsed.config], [], seeds, parsed.workdir, overrides, [parsed.budget]
        )
        penalty = f"--config.method.channel_penalty={_RANGE[0]}"
        check_run(dataclasses.replace(runs[0], overrides=(*overrides, penalty)))
    except ValueError as error:
        parser.error(str(error))
    failed = 0
    for run in runs:
        found = search(run, most=parsed.trials, tolerance=parsed.tolerance)
        for trial in found["trials"]:
            print(
                f"{run}: penalty {trial['penalty']:g} leaves {trial['cost']:.3f}",
                flush=True,
            )
        run.workdir.mkdir(parents=True, exist_ok=True)
        write_atomically(run.workdir / TRIALS_FILE, json.dumps(found, indent=2) + "\n")
        strength = f"--config.method.channel_penalty={found['penalty']}"
        final = dataclasses.replace(run, overrides=(*overrides, strength))
        failed += len(run_all([final]))
    return 1 if failed else 0
