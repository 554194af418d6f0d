"""The one training loop: dense, pruning, fine-tuning; killed at any moment, it goes on.

    python -m experiments train --config=digits/garrote --workdir=runs/digits/garrote \
        [--config.field=value ...]

A run has three phases, each of which may be empty: `dense` trains the network as it is,
`prune` runs the method of the config, `finetune` trains what is left under a fixed
mask. Every random choice comes from `config.seed` and the step, so a run that is killed
and started again ends, on a CPU, with the same bits.
"""

import argparse
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from experiments import configs
from experiments.logging.files import read_json
from experiments.logging.metrics import MetricsWriter
from experiments.logging.summary import SUMMARY_FILE
from experiments.plans.method import Config
from experiments.report import trail_table
from experiments.run import (
    advance,
    config_check,
    config_help,
    hooks,
    hosts,
    interrupts,
    phases,
    resumption,
)
from experiments.run.closing import summarize
from experiments.run.hooks import NonFiniteLossError, Run
from experiments.run.network import Network, Score
from experiments.run.phases import Phase
from experiments.run.setting import Setting, prepare
from experiments.run.steps import TrainState
from experiments.run.workdir import claim

# Ctrl-C, a scheduler, a closed terminal.
_SIGNALS = "SIGINT", "SIGTERM", "SIGHUP"
# What a shell reports for a program that Ctrl-C stopped.
_STOPPED = 130


def train_and_evaluate(
    config: Config, workdir: str | Path, *, command: Sequence[str] = ()
) -> dict[str, Any]:
    """Runs a config to its end, from where an earlier run in `workdir` was left.

    Args:
      config: see `experiments/configs/default.py`.
      workdir: the folder of the run; made if needed.
      command: the command line that made this call, for the report.

    Returns:
      What is written to `summary.json`. Its `status` is `stopped` if the run was
      interrupted; run it again to go on.

    Raises:
      ValueError: if the config is invalid, or `workdir` belongs to another config.
      NonFiniteLossError: if the loss is not finite. The last good checkpoint stays.
      OSError: if the disk is full or read-only. The last checkpoint stays.
    """
    workdir = Path(workdir)
    config_check.check(config)
    with claim(workdir, config):
        setting = prepare(config, workdir)
        summary = _summary(workdir / SUMMARY_FILE)
        if hosts.from_first(lambda: summary.get("status") == "finished"):
            return summary
        return _run(setting, phases.make(setting), command)


def _summary(path: Path) -> dict[str, Any]:
    """What an earlier call wrote at its end; nothing if it is to be written again."""
    try:
        return read_json(path) if path.exists() else {}
    except ValueError as error:
        print(f"{error} It is written again at the end.", file=sys.stderr)
        return {}


def _run(
    setting: Setting, parts: Sequence[Phase], command: Sequence[str]
) -> dict[str, Any]:
    """Goes through the phases, from the last checkpoint on."""
    first, record, resumed = resumption.find(setting, parts)
    writer = MetricsWriter(
        setting.workdir,
        parts[-1].end,
        progress=setting.config.run.progress,
        resume_step=first,
        enabled=jax.process_index() == 0,
    )
    began = time.monotonic() - record.seconds
    run = Run(setting=setting, record=record, writer=writer, began=began)
    left, final = None, None
    with writer, interrupts.counted(*_SIGNALS, once=True) as interrupted:
        for phase in parts:
            if phase.end <= first:
                continue
            if resumed and phase.begin <= first:
                network, state = resumed
            else:
                left = left or phases.initial(setting, record)
                network, state = left.network, phase.start(left)
                run.save(setting.parallel.collect(setting.parallel.replicate(state)))
            state, stopped = _train(run, phase, network, state, interrupted)
            if stopped:
                final = None
                break
            left, final = phase.finish(network, state, record)
            record.phase_ends[phase.name] = run.seconds()
            key = setting.dataset.spec.measure.key
            score = Score(final[f"{key}_hard"], final.get("accuracy_top5"))
            run.write_score(phase, phase.end, score)
    record.seconds = run.seconds()
    return summarize(setting, record, final, command)


def _train(
    run: Run,
    phase: Phase,
    network: Network,
    state: TrainState,
    interrupted: Callable[[], int],
) -> tuple[TrainState, bool]:
    """Trains to the end of a phase, or to an interruption: whether there was one."""
    ways, plan = run.setting.parallel, phase.plan(network)
    step_on = advance.make(run.setting, phase, network, plan)
    after_step = hooks.make(run, phase, network, plan)
    first, stops = int(state.step) + 1, False
    every = run.setting.config.run.log_every
    state = ways.replicate(state)
    for step in range(first, phase.end + 1):
        state, metrics = step_on(state, step)
        # Several processes must stop at the same step; asking them takes time.
        asks = jax.process_count() == 1 or step % every == 0
        stops = step < phase.end and asks and hosts.any_of(interrupted() > 0)
        after_step(step, state, metrics, stops)
        if stops:
            break
    state = ways.collect(state)
    hooks.check_finite(run.setting, state)
    return state, stops


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one config from the command line, and return the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="python -m experiments train",
        description="Train one config; the same command goes on where it was stopped.",
        epilog=config_help.describe(given),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, help="a name such as digits/ltp")
    parser.add_argument("--workdir", required=True, help="the folder of the run")
    parser.add_argument(
        "--traceback", action="store_true", help="print where an error comes from"
    )
    hosts.add_arguments(parser)
    parsed, others = parser.parse_known_args(given)
    try:
        hosts.start(parsed)
        config = configs.load(parsed.config)
        for argument in configs.split_overrides(others):
            configs.override(config, argument)
    except ValueError as error:
        parser.error(str(error))
    command = ["python", "-m", "experiments", "train", *given]
    try:
        summary = train_and_evaluate(config, parsed.workdir, command=command)
    except (ValueError, OSError, NonFiniteLossError) as error:
        # Errors of the user's making need no traceback.
        if parsed.traceback:
            traceback.print_exc()
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return hosts.leave(1)
    except (hosts.LostProcessError, jax.errors.JaxRuntimeError) as error:
        if jax.process_count() == 1:
            raise
        hosts.give_up(error)
    if jax.process_index():
        return _STOPPED if summary["status"] == "stopped" else 0
    print(trail_table.as_text(summary))
    if summary["status"] == "stopped":
        print(f"Stopped; the same command goes on. Workdir: {parsed.workdir}")
        return _STOPPED
    print(f"Report: {parsed.workdir}/report.html")
    return 0
