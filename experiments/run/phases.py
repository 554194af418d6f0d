"""The phases of a run as values: what trains in each, how it starts and finishes."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import jaxprune
from experiments.plans import channels, optimizers
from experiments.plans.method import Plan
from experiments.run import parallel, pretrained, trail
from experiments.run.network import Network, compact, nonzero_masks
from experiments.run.setting import Setting
from experiments.run.steps import TrainState, init_state
from jaxprune.budgets import Result


class Left(NamedTuple):
    """What a phase leaves to the next, which starts from it."""

    network: Network  # what is trained
    params: Any  # its weights
    batch_stats: Any  # its statistics
    masks: Any = None  # which weights stay, once that is decided; None before


class Phase(NamedTuple):
    """A part of a run: the steps from `begin` to before `end`."""

    name: str  # `dense`, `prune` or `finetune`
    begin: int  # steps of the run before it
    end: int  # steps of the run after it
    stream: Any  # the training batches
    learning_rate: optax.Schedule  # of the weights, by the steps of the phase so far
    plan: Callable[[Network], Plan]  # `network -> Plan`, how it trains
    start: Callable[[Left], TrainState]  # `Left -> TrainState`, its first state
    # `network, state, record -> Left, final`: measures and saves the network at its
    # end, whose numbers are `final`.
    finish: Callable[[Network, TrainState, trail.Record], tuple[Left, dict[str, Any]]]
    # Whether networks of the trail are looked for on the way.
    finds_points: bool = False
    is_decided: bool = False  # whether the size no longer changes


def make(setting: Setting) -> tuple[Phase, ...]:
    """Return the phases of a run that are not empty.

    Raises:
      ValueError: if all are empty, or the one that would meet the budget is.
    """
    makers = {"dense": _dense, "prune": _prune, "finetune": _finetune}
    found, begin = [], 0
    for name, phase in makers.items():
        epochs = setting.config.phases[name]
        end = begin + round(epochs * setting.task.steps_per_epoch)
        if end > begin:
            found.append(phase(setting, begin, end))
        begin = end
    if not found:
        raise ValueError(
            "`config.phases`: at least one of `dense`, `prune` and `finetune` must be "
            "long enough for a step, none is."
        )
    for name, limit in setting.limits.items():
        if all(phase.name != "prune" for phase in found):
            raise ValueError(
                f"`config.budget.{name}={limit}`: `config.phases.prune="
                f"{setting.config.phases.prune}` leaves the pruning out. Lengthen it, "
                "or leave the limit out."
            )
    return tuple(found)


def initial(setting: Setting, record: trail.Record) -> Left:
    """The network that a run starts from: initialised, or trained before."""
    network = setting.init()
    params, batch_stats = network["params"], network.get("batch_stats", {})
    if setting.config.phases.pretrained:
        first = {"params": params, "batch_stats": batch_stats}
        loaded = pretrained.load(setting.config, first)
        loaded = parallel.create("jit").replicate(loaded)
        params, batch_stats = loaded["params"], loaded["batch_stats"]
        if not setting.config.phases.new_head:
            record.dense_accuracy = setting.network.evaluate(params, batch_stats).value
    return Left(setting.network, params, batch_stats)


def resumed(setting: Setting, phase: Phase, record: trail.Record) -> Network:
    """The network of a phase that was interrupted."""
    if not phase.is_decided or record.channels is None:
        return setting.network
    known = setting.task.channels
    assert known is not None
    masks = channels.from_json(known.graph, record.channels)
    return compact(known, setting.evaluator, masks)[0]


def blank_state(phase: Phase, network: Network) -> TrainState:
    """The state of a phase, as shapes alone."""
    begin = functools.partial(init_state, phase.plan(network), step=phase.begin)
    return jax.eval_shape(begin, network.params, network.batch_stats)


def make_pruned(plan: Plan, phase: Phase) -> Callable[[TrainState], Any]:
    """Returns `state -> params` as the network computes with them in this phase."""

    @jax.jit
    def weights(params, variables, step):
        key = jax.random.fold_in(jax.random.key(0), step)
        return plan.pruner.apply(params, variables, key=key, step=step).params

    return lambda s: weights(s.params, s.variables, s.step - phase.begin)


def add_point(
    setting: Setting,
    network: Network,
    plan: Plan,
    pruned: Callable[[TrainState], Any],
    state: TrainState,
    record: trail.Record,
    keep_ratio: float | None,
) -> Left:
    """Finalizes a copy of the network to a keep ratio, measures and saves it."""
    pruner: Any = plan.pruner
    masks = pruner.masks(state.params, state.variables, keep_ratio=keep_ratio)
    hard = jax.jit(pruner.final_weights)(state.params, state.variables, masks)
    found = Left(network, hard, state.batch_stats, masks)
    counts = trail.counts(state.params, masks)
    soft = network.evaluate(pruned(state), state.batch_stats).value
    more = {f"{setting.dataset.spec.measure.key}_soft": soft}
    point = _saved(setting, found, state, counts.kept, counts.size, **more)
    record.points.append(point)
    return found


def _saved(
    setting: Setting, left: Left, state: TrainState, kept: int, total: int, **more: Any
) -> dict[str, Any]:
    """Measures and saves a network; returns its point of the trail."""
    step, key = int(state.step), setting.dataset.spec.measure.key
    score = left.network.evaluate(left.params, left.batch_stats)
    point = {
        "step": step,
        "sparsity": 1 - kept / total,
        "keep_ratio": kept / total,
        "compression": total / kept if kept else math.inf,
        "kept_weights": kept,
        "total_weights": total,
        f"{key}_soft": None,
        f"{key}_hard": score.value,
        **({} if score.top5 is None else {"accuracy_top5": score.top5}),
        "checkpoint": f"{trail.FOLDER}/{step}",
        **more,
    }
    if setting.spikes and left.network is setting.network:  # as it was, not compact
        point["spikes"] = setting.spikes(left.params, left.batch_stats)
    trail.save_network(setting.workdir, step, left.params, left.batch_stats, point)
    return point


# ------------------------------------------------------------------ the three phases


def _dense(setting: Setting, begin: int, end: int) -> Phase:
    config = setting.config
    task = setting.task._replace(first_step=begin, steps=end - begin)
    rate = config.optimizer.learning_rate
    plan = optimizers.dense(config, task, rate)

    def finish(network, state, record):
        state = state.with_average()
        left = Left(network, state.params, state.batch_stats)
        final = _measured(setting, left, state)
        record.dense_accuracy = final[f"{setting.dataset.spec.measure.key}_hard"]
        return left, final

    return Phase(
        name="dense",
        begin=begin,
        end=end,
        stream=setting.streams.get("weights", setting.streams["train"]),
        learning_rate=optimizers.dense_learning_rate(config, task, rate),
        plan=lambda network: plan,
        start=_starting(plan, begin),
        finish=finish,
    )


def _prune(setting: Setting, begin: int, end: int) -> Phase:
    task = setting.task._replace(first_step=begin, steps=end - begin)
    plan = setting.config.plan.plan(setting.config, task)
    if bool(setting.limits) != (plan.allocate is not None):
        raise ValueError(
            f"`config.plan={setting.config.plan.name}`: a method with a budget of "
            "channels must allocate them, and no other may."
        )
    phase = Phase(
        name="prune",
        begin=begin,
        end=end,
        stream=setting.streams.get("weights", setting.streams["train"]),
        learning_rate=optimizers.pruning_learning_rate(setting.config, task),
        plan=lambda network: plan,
        start=_starting(plan, begin),
        finish=functools.partial(_finish_channels, setting, plan),
    )
    if plan.allocate is not None:
        return phase
    pruned = make_pruned(plan, phase)
    return phase._replace(
        finish=functools.partial(_finish_weights, setting, plan, pruned),
        finds_points=True,
    )


def _finetune(setting: Setting, begin: int, end: int) -> Phase:
    config = setting.config
    task = setting.task._replace(first_step=begin, steps=end - begin)

    def plan(network):  # The state holds the masks.
        shapes = jax.eval_shape(nonzero_masks, network.params)
        blank = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
        return optimizers.finetune(config, task, blank)

    def start(left):
        masks = nonzero_masks(left.params) if left.masks is None else left.masks

        # Masks are an argument: as constants they would be compiled into the program.
        @jax.jit
        def first(params, batch_stats, masks):
            chosen = optimizers.finetune(config, task, masks)
            return init_state(chosen, params, batch_stats, begin)

        return first(jaxprune.apply_masks(left.params, masks), left.batch_stats, masks)

    def finish(network, state, record):
        state = state.with_average()
        left = Left(network, state.params, state.batch_stats)
        if record.channels is not None:
            return left, _measured_compact(setting, left, state, record)
        return left, _measured(setting, left, state)

    return Phase(
        name="finetune",
        begin=begin,
        end=end,
        stream=setting.streams["train"],
        learning_rate=optimizers.dense_learning_rate(
            config, task, config.optimizer.finetune_learning_rate
        ),
        plan=plan,
        start=start,
        finish=finish,
        is_decided=True,
    )


def _starting(plan: Plan, begin: int) -> Callable[[Left], TrainState]:
    """Begins with the weights of the phase before, by one program for all leaves."""
    first = jax.jit(functools.partial(init_state, plan, step=begin))
    return lambda left: first(left.params, left.batch_stats)


def _finish_weights(setting, plan, pruned, network, state, record):
    """Decides which weights stay."""
    left = add_point(setting, network, plan, pruned, state, record, setting.keep_ratio)
    record.result = result_of(state)
    layers = trail.layers_of(state.params, left.masks)
    if setting.config.phases.rewind:
        left = initial(setting, record)._replace(masks=left.masks)
    return left, {**record.points[-1], "layers": layers}


def _finish_channels(setting, plan, network, state, record):
    """Decides which channels stay, and removes the others."""
    del network
    masks = plan.allocate(state)
    record.channels = channels.as_json(masks)
    record.result = result_of(state)
    networks = [(final_weights(plan, state, masks), state.batch_stats)]
    if setting.config.phases.rewind:
        start = initial(setting, record)
        networks.append((start.params, start.batch_stats))
    small, cut = compact(setting.task.channels, setting.evaluator, masks, *networks)
    final = _measured_compact(setting, Left(small, *cut[0]), state, record)
    record.points.append({k: v for k, v in final.items() if k != "layers"})
    return Left(small, *cut[-1]), final


def final_weights(plan: Plan, state: TrainState, masks: Any) -> Any:
    """Return the weights that are cut: of a method with soft gates, times the gates."""
    if not isinstance(plan.pruner, jaxprune.ChannelPruner):
        return state.params
    return plan.pruner.final_weights(state.params, state.variables, masks)


def _measured(setting, left: Left, state) -> dict[str, Any]:
    """Measures and saves a network that is finished."""
    masks = nonzero_masks(left.params)
    counts = trail.counts(left.params, masks)
    point = _saved(setting, left, state, counts.kept, counts.size)
    return {**point, "layers": trail.layers_of(left.params, masks)}


def _measured_compact(setting, left: Left, state, record) -> dict[str, Any]:
    """Measures and saves a compact network; prunable weights are counted."""
    known = setting.task.channels
    masks = channels.from_json(known.graph, record.channels)
    kept, total = (
        sum(jaxprune.tree.sizes(params).values())
        for params in (left.params, known.blank[0])
    )
    costs = known.reached(masks)
    point = _saved(setting, left, state, kept, total, costs=costs)
    layers = {
        name: {"size": len(mask), "kept": int(mask.sum()), "keep_ratio": mask.mean()}
        for name, mask in masks.items()
    }
    return {**point, "layers": layers}


def result_of(state: TrainState) -> str | None:
    """How the budget stands at the end of pruning; None if there is none."""
    result = getattr(state.budget_state, "result", None)
    return None if result is None else Result(int(result)).name
