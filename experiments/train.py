"""The one training loop: dense, pruning, fine-tuning; killed at any moment, it goes on.

A run has three phases, each of which may be empty: `dense` trains the network as it is,
`prune` runs the method of the config, `finetune` trains what is left under a fixed
mask. Every random choice comes from `config.seed` and the step, so a run that is killed
and started again ends, on a CPU, with the same bits.
"""

import contextlib
import dataclasses
import functools
import importlib.metadata
import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

import jaxprune
from experiments import (
    channels,
    data,
    models,
    parallel,
    plans,
    regrowth,
    report,
    trail,
)
from experiments.files import write_atomically
from experiments.metrics import MetricsWriter
from experiments.steps import (
    Plan,
    Step,
    TrainState,
    init_state,
    make_count_correct,
    make_loss,
    make_search_step,
    make_train_step,
)
from experiments.workdir import claim, config_as_json
from jaxprune import checkpoint
from jaxprune.budgets import Result

_CHECKPOINTS = "checkpoints"
_PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


class NonFiniteLossError(FloatingPointError):
    """The loss became NaN or infinite."""


class Phase(NamedTuple):
    """A part of a run: the steps from `begin` to before `end`."""

    name: str
    begin: int
    end: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """What stays the same from step to step.

    Attributes:
      config: see `experiments/configs/default.py`.
      workdir: the folder of the run.
      parallel: how a step is spread over devices.
      dataset: train and test data.
      streams: endless iterators over training batches: `train`, all of them, or,
        where some are held out, `weights` and `held_out` beside it.
      model: the module that is trained.
      init: `() -> variables`, the initialised network.
      blank: parameters and statistics of the right shapes, all zero.
      evaluator: `model -> evaluate`.
      evaluate: `params, batch_stats -> accuracy` on the test data, a fraction.
      task: what a method is told, but for the length of its phase.
      keep_ratio: the keep ratio to harden to, or None where a price decides.
      phases: the phases that are not empty.
    """

    config: plans.Config
    workdir: Path
    parallel: parallel.Parallel
    dataset: data.Dataset
    streams: dict[str, Any]
    model: Any
    init: Callable[[], dict[str, Any]]
    blank: tuple[Any, Any]
    evaluator: Callable[[Any], Callable[[Any, Any], float]]
    evaluate: Callable[[Any, Any], float]
    task: plans.Task
    keep_ratio: float | None
    phases: tuple[Phase, ...]


def train_and_evaluate(
    config: plans.Config, workdir: str | Path, *, command: Sequence[str] = ()
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
    setting = prepare(config, workdir)
    claim(workdir, config)
    summary_path = workdir / "summary.json"
    if summary_path.exists():
        summary = json.loads(summary_path.read_text())
        if summary["status"] == "finished":
            logging.info("%s is finished; delete it to run it anew.", workdir)
            return summary
    return _run(setting, command)


def prepare(config: plans.Config, workdir: Path) -> Setting:
    """Builds everything that a run needs, and checks the config; writes nothing."""
    ways = parallel.create(config.parallel)
    for field in ("batch_size", "eval_batch_size"):
        if config[field] <= 0 or config[field] % jax.device_count():
            raise ValueError(
                f"`config.{field}={config[field]}` must be a positive multiple of the "
                f"number of devices, {jax.device_count()}."
            )
    process = {
        "process_index": jax.process_index(),
        "process_count": jax.process_count(),
    }
    dataset = data.load(config.dataset, data_dir=config.data_dir)
    test = data.test_batches(
        dataset,
        batch_size=config.eval_batch_size // jax.process_count(),
        image_size=config.image_size or None,
        **process,
    )
    model = functools.partial(models.create, config.model, dataset.spec.num_classes)
    # Initialisation and evaluation see global arrays, whatever the step sees.
    unmapped = model()
    image_shape = next(iter(test))["image"].shape[1:]
    init = jax.jit(
        lambda: unmapped.init(
            jax.random.key(config.seed), jnp.zeros((1, *image_shape)), train=False
        )
    )
    shard = parallel.create("jit").shard

    def evaluator(model, batches=test, size=dataset.test_size):
        count_correct = jax.jit(make_count_correct(model))

        def evaluate(params, batch_stats):
            counts = [count_correct(params, batch_stats, shard(b)) for b in batches]
            return int(np.sum(jax.device_get(counts))) / size

        return evaluate

    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(init))
    blank = (zeros["params"], zeros.get("batch_stats", {}))
    plans.check_feasible(config, blank[0])
    training, held_out = _held_out(config, dataset)
    batches_of = functools.partial(
        data.train_batches,
        batch_size=config.batch_size // jax.process_count(),
        seed=config.seed,
        image_size=config.image_size or None,
        augment=config.augment,
        **process,
    )

    @functools.cache
    def sample():
        batches = batches_of(training)
        several = [next(batches) for _ in range(config.score_batches)]
        return shard(jax.tree.map(lambda *x: np.concatenate(x), *several))

    streams = {"train": batches_of(dataset)}
    judged = training
    if held_out is not None:
        streams |= {"weights": batches_of(training), "held_out": batches_of(held_out)}
        judged = held_out
    judging = data.test_batches(
        dataclasses.replace(dataset, test=judged.train),
        batch_size=config.eval_batch_size // jax.process_count(),
        image_size=config.image_size or None,
        **process,
    )
    traced = None
    if plans.channel_budget(config):
        if config.parallel == "pmap":
            raise ValueError(
                "`config.parallel='pmap'`: the compact network is traced without a "
                "mapped axis. Use `jit`, which is as parallel."
            )
        traced = channels.trace(unmapped, blank, image_shape)
        # Refuses now what could not be met after all the training.
        jaxprune.allocation.round_to_budget(
            traced.graph,
            {},
            traced.limits(plans.channel_budget(config)),
            multiple_of=config.channel_multiple,
        )
    setting = Setting(
        config=config,
        workdir=workdir,
        parallel=ways,
        dataset=dataset,
        streams=streams,
        model=model(axis_name=ways.axis_name),
        init=init,
        blank=blank,
        evaluator=evaluator,
        evaluate=evaluator(unmapped),
        task=plans.Task(
            params=blank[0],
            first_step=0,
            steps=0,
            steps_per_epoch=len(dataset.train) // config.batch_size,
            loss=make_loss(unmapped, blank[1], sample),
            channels=traced,
            judge=evaluator(unmapped, judging, judged.train_size),
        ),
        keep_ratio=plans.asked_keep_ratio(config),
        phases=_phases(config, len(dataset.train) // config.batch_size),
    )
    for phase in setting.phases:
        if phase.name == "prune":
            _plan(setting, phase)
    return setting


def _held_out(
    config: plans.Config, dataset: data.Dataset
) -> tuple[data.Dataset, data.Dataset | None]:
    """The data that weights are trained on, and the rest, None if nothing is."""
    if not 0 <= config.held_out < 1:
        raise ValueError(
            f"`config.held_out={config.held_out}` must be in [0, 1), the fraction of "
            "the training data that is held out."
        )
    if not config.held_out:
        return dataset, None
    size = round(config.held_out * dataset.train_size)
    if size < config.batch_size:
        raise ValueError(
            f"`config.held_out={config.held_out}` leaves {size} examples, fewer than "
            f"one batch of `config.batch_size={config.batch_size}`. Hold out more, or "
            "use smaller batches."
        )
    order = np.random.default_rng(config.seed).permutation(dataset.train_size)

    def part(indices):
        chosen = data.Subset(dataset.train, np.sort(indices))
        return dataclasses.replace(dataset, train=chosen)

    return part(order[size:]), part(order[:size])


def _phases(config: plans.Config, steps_per_epoch: int) -> tuple[Phase, ...]:
    phases, begin = [], 0
    for name in ("dense", "prune", "finetune"):
        epochs = config[f"{name}_epochs"]
        if epochs < 0:
            raise ValueError(
                f"`config.{name}_epochs={epochs}` must not be negative; 0 leaves the "
                "phase out."
            )
        end = begin + round(epochs * steps_per_epoch)
        if end > begin:
            phases.append(Phase(name, begin, end))
        begin = end
    if not phases:
        raise ValueError(
            "`config.dense_epochs`, `prune_epochs` and `finetune_epochs`: at least one "
            "must be long enough for a step, none is."
        )
    return tuple(phases)


def _run(setting: Setting, command: Sequence[str]) -> dict[str, Any]:
    config, workdir = setting.config, setting.workdir
    found = checkpoint.latest(workdir / _CHECKPOINTS)
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
        checkpoint.tidy(workdir / _CHECKPOINTS)
        checkpoint.tidy(workdir / trail.FOLDER, up_to=first)
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
        checkpoint.save(
            folder, int(state.step), state, metadata=dataclasses.asdict(record)
        )
        if jax.process_index() == 0:
            checkpoint.tidy(folder, keep_last=config.checkpoints_kept)

    state, final = None, None
    with writer, _interrupts() as interrupted:
        for phase in setting.phases:
            if phase.end <= first:
                continue
            setting = _compacted(setting, phase, record)
            if found is not None and phase.begin <= first:
                like = jax.eval_shape(functools.partial(_blank_state, setting, phase))
                state = checkpoint.load(found, like)
                found = None
            else:
                state = _begin_phase(setting, phase, state, record)
                save(state)
            state, final = _run_phase(
                setting, phase, state, record, writer, save, interrupted
            )
            if final is None:
                break
    status = "stopped" if final is None else "finished"
    record.seconds = time.monotonic() - clock
    return _summarize(setting, record, final, status, command)


# -------------------------------------------------------------------- phases


def _plan(setting: Setting, phase: Phase, masks: Any = None) -> Plan:
    config, params, steps = setting.config, setting.blank[0], phase.end - phase.begin
    task = setting.task._replace(first_step=phase.begin, steps=steps)
    if phase.name == "dense":
        return plans.dense(config, task, config.learning_rate)
    if phase.name == "prune":
        return config.plan(config, task)
    if masks is None:  # Shapes are all that is needed: the state holds the masks.
        masks = _nonzero_masks(params)
    return plans.finetune(config, task, masks)


def _nonzero_masks(params: Any) -> Any:
    """What is left of the prunable leaves; a bias that is zero is not pruned."""
    kernels = jaxprune.tree.select(params, jaxprune.kernels)
    return jaxprune.masks.fill(params, jaxprune.nonzero_masks(kernels))


def _compacted(setting: Setting, phase: Phase, record: trail.Record) -> Setting:
    """The setting of a phase: once channels are removed, that of the small network."""
    if phase.name != "finetune" or record.channels is None:
        return setting
    traced = setting.task.channels
    assert traced is not None
    model = traced.compact(channels.from_json(traced.graph, record.channels))
    return dataclasses.replace(
        setting,
        model=model,
        blank=(model.blank["params"], model.blank["batch_stats"]),
        evaluate=setting.evaluator(model),
    )


def _blank_state(setting: Setting, phase: Phase) -> TrainState:
    return init_state(_plan(setting, phase), *setting.blank, phase.begin)


def _begin_phase(setting, phase, previous: TrainState | None, record) -> TrainState:
    """The state at the first step of a phase."""
    if previous is None:
        params, batch_stats = _initial_network(setting, record)
    else:
        params, batch_stats = previous.params, previous.batch_stats
    masks = None
    traced = setting.task.channels
    if phase.name == "finetune" and record.channels is not None and traced is not None:
        if setting.config.rewind:
            params, batch_stats = _initial_network(setting, record)
        kept = channels.from_json(traced.graph, record.channels)
        params, batch_stats = traced.shrink(kept, params, batch_stats)
        masks = _nonzero_masks(params)
    elif phase.name == "finetune":
        masks = _hard_masks(setting, params, previous)
        if setting.config.rewind:
            params, batch_stats = _initial_network(setting, record)
        if previous is None or setting.config.rewind:
            params = jaxprune.apply_masks(params, masks)
        else:
            params = _harden(setting, previous, masks)
    return init_state(_plan(setting, phase, masks), params, batch_stats, phase.begin)


def _initial_network(setting: Setting, record: trail.Record) -> tuple[Any, Any]:
    network = setting.init()
    params, batch_stats = network["params"], network.get("batch_stats", {})
    pretrained = setting.config.pretrained
    if not pretrained:
        return params, batch_stats
    found = checkpoint.latest(Path(pretrained) / trail.FOLDER)
    if found is None:
        raise FileNotFoundError(
            f"`config.pretrained={pretrained!r}` must be the workdir of a finished "
            f"run; there is no checkpoint in its folder `{trail.FOLDER}`."
        )
    like = {"params": params, "batch_stats": batch_stats}
    loaded = parallel.create("jit").replicate(checkpoint.load(found, like))
    record.dense_accuracy = setting.evaluate(loaded["params"], loaded["batch_stats"])
    return loaded["params"], loaded["batch_stats"]


def _hard_masks(setting: Setting, params: Any, state: TrainState | None) -> Any:
    """The masks in which the pruning phase ends; nothing is pruned without one."""
    for phase in setting.phases:
        if phase.name == "prune" and state is not None:
            pruner = _plan(setting, phase).pruner
            return pruner.masks(params, state.variables, keep_ratio=setting.keep_ratio)
    return _nonzero_masks(params)


def _harden(setting: Setting, state: TrainState, masks: Any) -> Any:
    """What is left of the network when the pruning phase ends in these masks."""
    for phase in setting.phases:
        if phase.name == "prune":
            pruner = _plan(setting, phase).pruner
            return pruner.harden(state.params, state.variables, masks)
    return jaxprune.apply_masks(state.params, masks)


def _make_see(plan: Plan, phase: Phase) -> Callable[[TrainState], Any]:
    """Returns `state -> params` as the network sees them in this phase."""

    @jax.jit
    def see(params, variables, step):
        key = jax.random.fold_in(jax.random.key(0), step)
        return plan.pruner.apply(params, variables, key=key, step=step).params

    return lambda s: see(s.params, s.variables, s.step - phase.begin)


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
    plan = _plan(setting, phase)
    see = _make_see(plan, phase)
    zeros = regrowth.make_zeros(plan.pruner, first_step=phase.begin)
    shared = Step(
        model=setting.model,
        plan=plan,
        size_cost=(
            setting.task.channels.costs["parameters"]
            if plan.allocate and setting.task.channels
            else jaxprune.parameter_ratio(setting.blank[0])
        ),
        first_step=phase.begin,
        seed=config.seed,
        label_smoothing=config.label_smoothing,
        axis_name=ways.axis_name,
    )
    step_fn = ways.compile(make_train_step(shared))
    search_fn = ways.compile(make_search_step(shared)) if plan.search else None
    batches = _stream(setting, phase)
    ladder = jaxprune.schedules.compression_ladder(
        setting.keep_ratio or config.lowest_rung
    )
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
            _add_point(setting, plan, see, ways.collect(state), record, rung)
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
    final = _close_phase(setting, phase, plan, see, state, record)
    accuracy = {"test_accuracy": final["accuracy_hard"], "phase": phase.name}
    writer.write(phase.end, accuracy)
    return state, final


def _stream(setting: Setting, phase: Phase) -> Any:
    """What a phase trains on: until the size is found, not on what is held out."""
    if "weights" in setting.streams and phase.name != "finetune":
        return setting.streams["weights"]
    return setting.streams["train"]


def _is_logged(config: plans.Config, phase: Phase, step: int) -> bool:
    return step % config.log_every == 0 or step in (phase.begin + 1, phase.end)


def _write(setting, phase, record, writer, step: int, metrics) -> bool:
    """Shows and logs the numbers of a step; returns whether its loss is finite."""
    config = setting.config
    if phase.name == "finetune" and record.points:
        metrics = {**metrics, "keep_ratio": record.points[-1]["keep_ratio"]}
    shown = ("keep_ratio", "accuracy", "loss")
    writer.progress(step, **{name: metrics[name] for name in shown})
    if _is_logged(config, phase, step):
        # A variable may be a vector, one entry for each stacked layer.
        numbers = {name: np.mean(value) for name, value in metrics.items()}
        writer.write(step, {**numbers, "phase": phase.name})
        return bool(np.isfinite(numbers["loss"]))
    return True  # Not looked at: the state remembers the first step that was not.


def _check_finite(setting: Setting, state: TrainState) -> None:
    step = int(state.bad_step) + 1
    if step == 0:
        return
    good = checkpoint.latest(setting.workdir / _CHECKPOINTS)
    kept = f"The last good checkpoint is {good.path}" if good else "None is saved yet"
    raise NonFiniteLossError(
        f"The loss of step {step} is not finite; the run stops. {kept}. Lower "
        f"`config.learning_rate={setting.config.learning_rate}`, or look at the data "
        "of that step, and start again in a new workdir."
    )


# --------------------------------------------------------------------- trail


def _add_point(
    setting: Setting,
    plan: Plan,
    see: Callable[[TrainState], Any],
    state: TrainState,
    record: trail.Record,
    keep_ratio: float | None,
) -> None:
    """Hardens a copy of the network to a rung, measures it and saves it."""
    _check_finite(setting, state)
    masks = plan.pruner.masks(state.params, state.variables, keep_ratio=keep_ratio)
    hard = plan.pruner.harden(state.params, state.variables, masks)
    point = trail.point_of(
        state.params,
        masks,
        step=int(state.step),
        accuracy_soft=setting.evaluate(see(state), state.batch_stats),
        accuracy_hard=setting.evaluate(hard, state.batch_stats),
    )
    trail.save_network(setting.workdir, point["step"], hard, state.batch_stats, point)
    record.points.append(point)


def _close_phase(setting, phase, plan, see, state, record) -> dict[str, Any]:
    """Measures and saves the network at the end of a phase."""
    if phase.name == "prune" and plan.allocate is not None:
        masks = plan.allocate(state)
        record.channels = channels.as_json(masks)
        record.result = _result(state)
        small = _compacted(setting, phase._replace(name="finetune"), record)
        params, batch_stats = setting.task.channels.shrink(
            masks, state.params, state.batch_stats
        )
        return _close_compact(small, phase, params, batch_stats, state, record)
    if phase.name == "finetune" and record.channels is not None:
        network = state.params, state.batch_stats
        return _close_compact(setting, phase, *network, state, record)
    if phase.name == "prune":
        _add_point(setting, plan, see, state, record, setting.keep_ratio)
        record.result = _result(state)
        masks = _hard_masks(setting, state.params, state)
        final = record.points[-1]
    else:
        masks = _nonzero_masks(state.params)
        final = trail.point_of(
            state.params,
            masks,
            step=int(state.step),
            accuracy_soft=None,
            accuracy_hard=setting.evaluate(state.params, state.batch_stats),
        )
        trail.save_network(
            setting.workdir, final["step"], state.params, state.batch_stats, final
        )
    if phase.name == "dense":
        record.dense_accuracy = final["accuracy_hard"]
    return {**final, "layers": trail.layers_of(state.params, masks)}


def _close_compact(
    setting: Setting, phase: Phase, params, batch_stats, state, record
) -> dict[str, Any]:
    """Measures and saves a compact network."""
    traced = setting.task.channels
    assert traced is not None
    assert record.channels is not None
    masks = channels.from_json(traced.graph, record.channels)
    point = trail.compact_point(
        traced.blank[0],
        params,
        step=int(state.step),
        accuracy_hard=setting.evaluate(params, batch_stats),
        costs=traced.reached(masks),
    )
    trail.save_network(setting.workdir, point["step"], params, batch_stats, point)
    if phase.name == "prune":
        record.points.append(point)
    layers = {
        name: {"size": len(mask), "kept": int(mask.sum()), "keep_ratio": mask.mean()}
        for name, mask in masks.items()
    }
    return {**point, "layers": layers}


def _result(state: TrainState) -> str | None:
    """How the budget stands at the end of pruning; None if there is none."""
    result = getattr(state.budget_state, "result", None)
    return None if result is None else Result(int(result)).name


def _summarize(
    setting: Setting,
    record: trail.Record,
    final: dict[str, Any] | None,
    status: str,
    command: Sequence[str],
) -> dict[str, Any]:
    """Writes `summary.json` and the report."""
    config, workdir = setting.config, setting.workdir
    if final is not None:
        final = {
            **{k: final[k] for k in final if not k.startswith("accuracy")},
            "accuracy": final["accuracy_hard"],
        }
    layers = final["layers"] if final else {}
    summary = {
        "status": status,
        "method": config.plan.__name__,
        "dataset": config.dataset,
        "model": config.model,
        "seed": config.seed,
        "config": config_as_json(config),
        "versions": {
            "jaxprune": jaxprune.__version__,
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
        "devices": [device.device_kind for device in jax.devices()],
        "command": list(command),
        "seconds": record.seconds,
        "dense_accuracy": record.dense_accuracy,
        "budget": _asked(setting),
        "costs": final and {"weights": final["keep_ratio"], **final.get("costs", {})},
        "keep_ratios": {name: layer["keep_ratio"] for name, layer in layers.items()},
        "result": record.result,
        "channels": record.channels,
        "points": record.points,
        "final": final,
    }
    if jax.process_index() == 0:
        write_atomically(workdir / "summary.json", json.dumps(summary, indent=2) + "\n")
        report.write_report(workdir)
    return summary


def _asked(setting: Setting) -> dict[str, float] | None:
    """The limits asked for, as fractions of the dense network; None without any."""
    asked = plans.channel_budget(setting.config)
    if not asked and setting.keep_ratio is not None:
        asked = {"weights": setting.keep_ratio}
    return asked or None


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
