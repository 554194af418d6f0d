"""The one training loop: dense, pruning, fine-tuning; killed at any moment, it goes on.

    python -m experiments train --config=digits/ltp --workdir=runs/digits/ltp \
        [--config.field=value ...]

A run has three phases, each of which may be empty: `dense` trains the network as it is,
`prune` runs the method of the config, `finetune` trains what is left under a fixed
mask. Every random choice comes from `config.seed` and the step, so a run that is killed
and started again ends, on a CPU, with the same bits.
"""

import argparse
import contextlib
import dataclasses
import json
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

import jaxprune
from experiments import configs
from experiments.logging.metrics import MetricsWriter
from experiments.logging.summary import SUMMARY_FILE
from experiments.plans import weight_plans
from experiments.report import trail_table
from experiments.run import config_check, latencies, phases, regrowth, trail
from experiments.run.closing import summarize
from experiments.run.setting import Phase, Setting, prepare
from experiments.run.steps import Step, TrainState, make_search_step, make_train_step
from experiments.run.workdir import claim
from jaxprune import io

_CHECKPOINTS = "checkpoints"

# What a shell reports for a program that Ctrl-C stopped.
_STOPPED = 130


class NonFiniteLossError(FloatingPointError):
    """The loss became NaN or infinite."""


def train_and_evaluate(
    config: weight_plans.Config, workdir: str | Path, *, command: Sequence[str] = ()
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
    setting = prepare(config, workdir)
    claim(workdir, config)
    latencies.save(setting.task.channels, workdir)
    summary_path = workdir / SUMMARY_FILE
    if summary_path.exists():
        summary = json.loads(summary_path.read_text())
        if summary["status"] == "finished":
            logging.info("%s is finished; delete it to run it anew.", workdir)
            return summary
    return _run(setting, command)


def _run(setting: Setting, command: Sequence[str]) -> dict[str, Any]:
    config, workdir = setting.config, setting.workdir
    found = io.latest(workdir / _CHECKPOINTS)
    record = trail.Record()
    first = 0
    if found is not None:
        record = trail.Record(**found.metadata)
        for name, stream in setting.streams.items():
            stream.set_state(record.data_state[name])
        first = found.step
        logging.info("Resuming from step %d.", first)
    clock = time.monotonic() - record.seconds
    if jax.process_index() == 0:
        # What a killed run did after its last checkpoint is done again.
        io.tidy(workdir / _CHECKPOINTS)
        io.tidy(workdir / trail.FOLDER, up_to=first)
    writer = MetricsWriter(
        workdir,
        setting.phases[-1].end,
        progress=config.progress,
        resume_step=first,
        enabled=jax.process_index() == 0,
    )

    def save(state: TrainState) -> None:
        _check_finite(setting, state)
        record.data_state = {
            name: stream.get_state() for name, stream in setting.streams.items()
        }
        record.seconds = time.monotonic() - clock
        folder = workdir / _CHECKPOINTS
        writer.flush()
        io.save(folder, int(state.step), state, metadata=dataclasses.asdict(record))
        if jax.process_index() == 0:
            io.tidy(folder, keep_last=config.checkpoints_kept)

    state, final = None, None
    with writer, _interrupts() as interrupted:
        for phase in setting.phases:
            if phase.end <= first:
                continue
            setting = phases.compacted(setting, phase, record)
            if found is not None and phase.begin <= first:
                state = io.load(found, phases.blank_state(setting, phase))
                found = None
            else:
                state = phases.begin(setting, phase, state, record)
                save(state)
            state, final = _run_phase(
                setting, phase, state, record, writer, save, interrupted
            )
            if final is None:
                break
    status = "stopped" if final is None else "finished"
    record.seconds = time.monotonic() - clock
    return summarize(setting, record, final, status, command)


def _run_phase(
    setting: Setting,
    phase: Phase,
    state: TrainState,
    record: trail.Record,
    writer: MetricsWriter,
    save: Callable[[TrainState], None],
    interrupted: Callable[[], bool],
) -> tuple[TrainState, dict[str, Any] | None]:
    """Trains to the end of a phase, or to an interruption.

    Returns:
      The last state, and the network at the end of the phase as a point of the trail;
      None if the phase was interrupted.
    """
    config, ways = setting.config, setting.parallel
    plan = setting.plan(phase)
    see = phases.make_see(plan, phase)
    zeros = regrowth.make_zeros(plan.pruner, first_step=phase.begin)
    shared = Step(
        model=setting.model,
        plan=plan,
        size_cost=(
            setting.task.channels.costs["parameters"]
            if plan.allocate and setting.task.channels
            else jaxprune.density(setting.blank[0])
        ),
        first_step=phase.begin,
        seed=config.seed,
        label_smoothing=config.label_smoothing,
        axis_name=ways.axis_name,
    )
    step_fn = ways.compile(make_train_step(shared))
    search_fn = ways.compile(make_search_step(shared)) if plan.search else None
    batches = phases.stream_of(setting, phase)
    ladder = trail.compression_ladder(setting.keep_ratio or config.lowest_rung)
    first = int(state.step)
    state = ways.replicate(state)
    late, stop = None, False

    def write_late():
        if late is not None and not _write(setting, phase, record, writer, *late):
            _check_finite(setting, ways.collect(state))

    # Channels are decided at the end, not shed on the way.
    sheds = phase.name == "prune" and plan.allocate is None

    def look():
        return zeros(*ways.peek((state.params, state.variables, state.step)))

    for step in range(first + 1, phase.end + 1):
        # Elsewhere nothing is pruned, or the masks are fixed.
        watched = sheds and _is_logged(config, phase, step)
        before = look() if watched else None
        state, metrics = step_fn(state, ways.shard(next(batches)))
        if before is not None:
            metrics = {**metrics, **regrowth.changes(before, look())}
        if plan.search and search_fn and step % plan.search.every == 0:
            held_out = ways.shard(next(setting.streams["held_out"]))
            state, found = search_fn(state, held_out)
            metrics = {**metrics, **found}
        # Numbers are read one step late, so that the device need not wait for us.
        write_late()
        late = (step, metrics)
        if step == phase.end:
            break
        stop = interrupted()
        rung = None
        if sheds and step % config.trail_every == 0:
            keep_ratio = float(metrics["keep_ratio"])
            rung = trail.next_rung(ladder, record.points, keep_ratio)
        if rung is not None:
            _check_finite(setting, ways.collect(state))
            phases.add_point(setting, plan, see, ways.collect(state), record, rung)
        evaluates = step % config.eval_every == 0
        saves = step % config.checkpoint_every == 0 or stop
        if evaluates or saves:
            write_late()
            late = None
        if evaluates:
            now = ways.collect(state)
            accuracy = setting.evaluate(see(now), now.batch_stats)
            writer.write(step, {"test_accuracy": accuracy, "phase": phase.name})
        if saves:
            save(ways.collect(state))
        if stop:
            break
    write_late()
    state = ways.collect(state)
    _check_finite(setting, state)
    if stop:
        return state, None
    final = phases.close(setting, phase, plan, see, state, record)
    accuracy = {"test_accuracy": final["accuracy_hard"], "phase": phase.name}
    writer.write(phase.end, accuracy)
    return state, final


def _is_logged(config: weight_plans.Config, phase: Phase, step: int) -> bool:
    return step % config.log_every == 0 or step in (phase.begin + 1, phase.end)


def _write(setting, phase, record, writer, step: int, metrics) -> bool:
    """Shows and logs the numbers of a step; returns whether its loss is finite."""
    config = setting.config
    if phase.name == "finetune" and record.points:
        metrics = {**metrics, "keep_ratio": record.points[-1]["keep_ratio"]}
    size = _sizes(setting, phase, record, metrics)
    writer.progress(step, **size, accuracy=metrics["accuracy"], loss=metrics["loss"])
    if _is_logged(config, phase, step):
        # A variable may be a vector, one entry for each stacked layer.
        numbers = {name: np.mean(value) for name, value in metrics.items()}
        writer.write(step, {**numbers, "phase": phase.name})
        return bool(np.isfinite(numbers["loss"]))
    return True  # Not looked at: the state remembers the first step that was not.


def _sizes(setting: Setting, phase: Phase, record, metrics) -> dict[str, Any]:
    """What the progress says of the size: the costs under a limit, or the weights."""
    names = weight_plans.channel_budget(setting.config)
    if not names:
        return {"keep_ratio": metrics["keep_ratio"]}
    if phase.name == "finetune" and record.points:
        return {"costs": {name: record.points[-1]["costs"][name] for name in names}}
    # Methods without a search decide about channels when the phase ends.
    found = {name: metrics.get(f"budget/cost/{j}") for j, name in enumerate(names)}
    return {"costs": {name: cost for name, cost in found.items() if cost is not None}}


def _check_finite(setting: Setting, state: TrainState) -> None:
    step = int(state.bad_step) + 1
    if step == 0:
        return
    good = io.latest(setting.workdir / _CHECKPOINTS)
    kept = f"The last good checkpoint is {good.path}" if good else "None is saved yet"
    raise NonFiniteLossError(
        f"The loss of step {step} is not finite; the run stops. {kept}. Lower "
        f"`config.learning_rate={setting.config.learning_rate}`, or look at the data "
        "of that step, and start again in a new workdir."
    )


@contextlib.contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C or SIGTERM into a question; the second acts at once."""
    asked = []

    def on_signal(number, frame):
        del frame
        asked.append(number)
        for signum, handler in old.items():
            signal.signal(signum, handler)

    old: dict[int, Any] = {}
    try:
        for signum in (signal.SIGINT, signal.SIGTERM):
            old[signum] = signal.signal(signum, on_signal)
    except ValueError:
        pass  # Not the main thread: signals are somebody else's business.
    try:
        yield lambda: bool(asked)
    finally:
        for signum, handler in old.items():
            signal.signal(signum, handler)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one config from the command line.

    Args:
      arguments: those of the process if not given.

    Returns:
      The exit status: 0, 1 if the run failed, 130 if it was stopped.
    """
    parser = argparse.ArgumentParser(
        prog="python -m experiments train",
        description="Train one config; the same command goes on where it was stopped.",
        epilog="A field of the config is set by --config.field=value.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, help="a name such as digits/ltp")
    parser.add_argument("--workdir", required=True, help="the folder of the run")
    parser.add_argument(
        "--traceback", action="store_true", help="print where an error comes from"
    )
    given = list(sys.argv[1:] if arguments is None else arguments)
    parsed, others = parser.parse_known_args(given)
    try:
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
        return 1
    print(trail_table.as_text(summary))
    if summary["status"] == "stopped":
        print(f"Stopped; the same command goes on. Workdir: {parsed.workdir}")
        return _STOPPED
    print(f"Report: {parsed.workdir}/report.html")
    return 0
