"""What is done after a step: numbers are logged, points found, states saved."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments.logging.metrics import MetricsWriter
from experiments.plans.method import Plan
from experiments.run import phases, trail
from experiments.run.advance import is_logged
from experiments.run.network import Network, Score
from experiments.run.phases import Phase
from experiments.run.setting import Setting
from experiments.run.steps import Metrics, TrainState
from jaxprune import io

CHECKPOINTS = "checkpoints"


class NonFiniteLossError(FloatingPointError):
    """The loss became NaN or infinite."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """What is the same after every step of a run."""

    setting: Setting  # of the run
    record: trail.Record  # what the run has found out
    writer: MetricsWriter  # of metrics
    began: float  # when it began by the monotonic clock, had it never been interrupted

    def seconds(self) -> float:
        """How long the run has taken, interruptions left out."""
        return time.monotonic() - self.began

    def save(self, state: TrainState) -> None:
        """Write a checkpoint, metrics first."""
        check_finite(self.setting, state)
        streams = self.setting.streams.items()
        self.record.data_state = {name: stream.get_state() for name, stream in streams}
        self.record.seconds = self.seconds()
        folder = self.setting.workdir / CHECKPOINTS
        self.writer.flush()
        metadata = dataclasses.asdict(self.record)
        io.save(folder, int(state.step), state, metadata=metadata)
        if jax.process_index() == 0:
            io.tidy(folder, keep_last=self.setting.config.run.checkpoints_kept)

    def write_score(self, phase: Phase, step: int, score: Score) -> None:
        """Write the score on the test data."""
        key = self.setting.dataset.spec.measure.key
        numbers = {f"test_{key}": score.value, "phase": phase.name}
        if score.top5 is not None:
            numbers["test_accuracy_top5"] = score.top5
        self.writer.write(step, numbers)


def make(
    run: Run, phase: Phase, network: Network, plan: Plan
) -> Callable[[int, TrainState, Metrics, bool], None]:
    """Return `step, state, metrics, stops -> None`, called after each step of a phase.

    `state` is on every device, and `stops` says whether the run is interrupted here.
    """
    config, collect = run.setting.config.run, run.setting.parallel.collect
    pruned = phases.make_pruned(plan, phase)
    late: list[tuple[int, Metrics]] = []

    def write(state):
        for step, metrics in late:
            if not _write(run, phase, step, metrics):
                check_finite(run.setting, collect(state))
        late.clear()

    def after_step(step, state, metrics, stops):
        inside = step < phase.end
        evaluates = step % config.eval_every == 0
        saves = stops or step % config.checkpoint_every == 0
        # Numbers are written one step late: the device need not wait for the host.
        write(state)
        late.append((step, metrics))
        if evaluates or saves or not inside:
            write(state)
        if inside and phase.finds_points:
            _find_point(run, network, plan, pruned, step, state, metrics)
        if inside and evaluates:
            now = collect(state).with_average()
            score = network.evaluate(pruned(now), now.batch_stats)
            run.write_score(phase, step, score)
        if inside and saves:
            run.save(collect(state))

    return after_step


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


def _find_point(run: Run, network, plan, pruned, step, state, metrics) -> None:
    """Adds a point to the trail if the keep ratio reached a rung of the ladder."""
    setting, record = run.setting, run.record
    fields = setting.config.method
    if step % fields.trail_every:
        return
    lowest = setting.keep_ratio or fields.get("lowest_rung", 1 / 1024)
    ladder = trail.compression_ladder(lowest)
    rung = trail.next_rung(ladder, record.points, float(metrics["keep_ratio"]))
    if rung is not None:
        now = setting.parallel.collect(state)
        check_finite(setting, now)
        phases.add_point(setting, network, plan, pruned, now, record, rung)
