"""What is done after a step: numbers are logged, points found, states saved."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.logging.metrics import MetricsWriter
from experiments.plans.method import Plan
from experiments.run import phases, trail
from experiments.run.advance import is_logged
from experiments.run.network import Network
from experiments.run.phases import Phase
from experiments.run.setting import Setting
from experiments.run.steps import Metrics, TrainState
from jaxprune import io

CHECKPOINTS = "checkpoints"


class NonFiniteLossError(FloatingPointError):
    """The loss became NaN or infinite."""


@dataclasses.dataclass
class Moment:
    """Where a phase is, after a step.

    Attributes:
      step: steps of the run so far.
      state: on every device.
      metrics: of the step.
      stops: whether the run is interrupted here.
    """

    step: int
    state: TrainState
    metrics: Metrics = dataclasses.field(default_factory=dict)
    stops: bool = False


Hook = Callable[[Moment], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """What hooks need of a run, beside the step.

    Attributes:
      setting: of the run.
      record: what the run has found out.
      writer: of metrics.
      save: writes a checkpoint.
    """

    setting: Setting
    record: trail.Record
    writer: MetricsWriter
    save: Callable[[TrainState], None]


def make(run: Run, phase: Phase, network: Network, plan: Plan) -> list[Hook]:
    """Return the hooks of a phase, in the order in which they are called."""
    config = run.setting.config
    pruned = phases.make_pruned(plan, phase)
    found = [_log_late(run, phase)]
    if phase.finds_points:
        found.append(_find_points(run, phase, network, plan, pruned))
    collect = run.setting.parallel.collect

    def evaluate(at):
        if at.step < phase.end and at.step % config.run.eval_every == 0:
            now = collect(at.state)
            accuracy = network.evaluate(pruned(now), now.batch_stats)
            write_accuracy(run, phase, at.step, accuracy)

    def save(at):
        due = at.step % config.run.checkpoint_every == 0 or at.stops
        if at.step < phase.end and due:
            run.save(collect(at.state))

    return [*found, evaluate, save]


def write_accuracy(run: Run, phase: Phase, step: int, accuracy: float) -> None:
    """Write the accuracy on the test data."""
    run.writer.write(step, {"test_accuracy": accuracy, "phase": phase.name})


def check_finite(setting: Setting, state: TrainState) -> None:
    """Raise NonFiniteLossError if a step before had a loss that is not finite."""
    step = int(state.bad_step) + 1
    if step == 0:
        return
    good = io.latest(setting.workdir / CHECKPOINTS)
    kept = f"The last good checkpoint is {good.path}" if good else "None is saved yet"
    rate = setting.config.optimizer.learning_rate
    raise NonFiniteLossError(
        f"The loss of step {step} is not finite; the run stops. {kept}. Lower "
        f"`config.optimizer.learning_rate={rate}`, or look at the data of that step, "
        "and start again in a new workdir."
    )


def _log_late(run: Run, phase: Phase) -> Hook:
    """Writes numbers one step late, so that the device need not wait for the host."""
    config, late = run.setting.config, []

    def write(state):
        for step, metrics in late:
            if not _write(run, phase, step, metrics):
                check_finite(run.setting, run.setting.parallel.collect(state))
        late.clear()

    def log(at):
        write(at.state)
        late.append((at.step, at.metrics))
        every = (config.run.eval_every, config.run.checkpoint_every)
        if at.stops or at.step == phase.end or any(at.step % n == 0 for n in every):
            write(at.state)

    return log


def _write(run: Run, phase: Phase, step: int, metrics: Metrics) -> bool:
    """Prints and logs the numbers of a step; returns whether its loss is finite."""
    decided = phase.is_decided and bool(run.record.points)
    if decided:
        ratio: Any = run.record.points[-1]["keep_ratio"]
        metrics = {**metrics, "keep_ratio": ratio}
    size = _sizes(run, metrics, decided)
    accuracy, loss = metrics["accuracy"], metrics["loss"]
    run.writer.progress(step, **size, accuracy=accuracy, loss=loss)
    if not is_logged(run.setting, phase, step):
        return True  # Not looked at: the state remembers the first that was not.
    # A variable may be a vector, one entry for each stacked layer.
    numbers: dict[str, Any] = {n: np.mean(value) for n, value in metrics.items()}
    rate = phase.learning_rate(step - 1 - phase.begin)
    numbers["learning_rate"] = np.asarray(rate)
    run.writer.write(step, {**numbers, "phase": phase.name})
    return bool(np.isfinite(numbers["loss"]))


def _sizes(run: Run, metrics: Metrics, decided: bool) -> dict[str, Any]:
    """What the progress says of the size: the costs under a limit, or the weights."""
    names = run.setting.limits
    if not names:
        return {"keep_ratio": metrics["keep_ratio"]}
    if decided:
        costs = run.record.points[-1]["costs"]
        return {"costs": {name: costs[name] for name in names}}
    # Methods without a search decide about channels when the phase ends.
    found = {name: metrics.get(f"budget/cost/{j}") for j, name in enumerate(names)}
    return {"costs": {name: cost for name, cost in found.items() if cost is not None}}


def _find_points(run: Run, phase: Phase, network: Network, plan: Plan, pruned) -> Hook:
    """Adds a point to the trail when the keep ratio reaches a rung of the ladder."""
    setting, record = run.setting, run.record
    fields = setting.config.method
    ladder = trail.compression_ladder(
        setting.keep_ratio or fields.get("lowest_rung", 1 / 1024)
    )

    def find(at):
        if at.step == phase.end or at.step % fields.trail_every:
            return
        rung = trail.next_rung(ladder, record.points, float(at.metrics["keep_ratio"]))
        if rung is not None:
            now = setting.parallel.collect(at.state)
            check_finite(setting, now)
            phases.add_point(network, setting.workdir, plan, pruned, now, record, rung)

    return find
