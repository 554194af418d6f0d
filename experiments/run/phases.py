"""The phases of a run: what trains in each, how it begins and what it leaves."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

import jaxprune
from experiments.plans import channels
from experiments.run import parallel, trail
from experiments.run.setting import Phase, Setting, nonzero_masks
from experiments.run.steps import Plan, TrainState, init_state
from jaxprune import io
from jaxprune.budgets import Result


def blank_state(setting: Setting, phase: Phase) -> TrainState:
    """The state of a phase, as shapes alone."""
    begin = functools.partial(init_state, setting.plan(phase), step=phase.begin)
    return jax.eval_shape(begin, *setting.blank)


def begin(setting, phase, previous: TrainState | None, record) -> TrainState:
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
        masks = nonzero_masks(params)
    elif phase.name == "finetune":
        masks = _hard_masks(setting, params, previous)
        if setting.config.rewind:
            params, batch_stats = _initial_network(setting, record)
        if previous is None or setting.config.rewind:
            params = jaxprune.apply_masks(params, masks)
        else:
            params = _final_weights(setting, previous, masks)
    return _first_state(setting, phase, params, batch_stats, masks)


def _first_state(setting, phase, params, batch_stats, masks) -> TrainState:
    """Begins with these weights, by one program for all leaves.

    Masks are an argument of it: as constants they would be compiled into it.
    """
    plan = setting.plan(phase) if masks is None else None

    @jax.jit
    def first(params, batch_stats, masks):
        chosen = plan or setting.plan(phase, masks)
        return init_state(chosen, params, batch_stats, phase.begin)

    return first(params, batch_stats, masks)


def _initial_network(setting: Setting, record: trail.Record) -> tuple[Any, Any]:
    network = setting.init()
    params, batch_stats = network["params"], network.get("batch_stats", {})
    pretrained = setting.config.pretrained
    if not pretrained:
        return params, batch_stats
    found = io.latest(Path(pretrained) / trail.FOLDER)
    if found is None:
        raise FileNotFoundError(
            f"`config.pretrained={pretrained!r}` must be the workdir of a finished "
            f"run; there is no checkpoint in its folder `{trail.FOLDER}`."
        )
    like = {"params": params, "batch_stats": batch_stats}
    loaded = parallel.create("jit").replicate(io.load(found, like))
    record.dense_accuracy = setting.evaluate(loaded["params"], loaded["batch_stats"])
    return loaded["params"], loaded["batch_stats"]


def _hard_masks(setting: Setting, params: Any, state: TrainState | None) -> Any:
    """The masks in which the pruning phase ends; nothing is pruned without one."""
    for phase in setting.phases:
        if phase.name == "prune" and state is not None:
            pruner: Any = setting.plan(phase).pruner
            return pruner.masks(params, state.variables, keep_ratio=setting.keep_ratio)
    return nonzero_masks(params)


def _final_weights(setting: Setting, state: TrainState, masks: Any) -> Any:
    """What is left of the network when the pruning phase ends in these masks."""
    for phase in setting.phases:
        if phase.name == "prune":
            pruner: Any = setting.plan(phase).pruner
            final_weights = jax.jit(pruner.final_weights)
            return final_weights(state.params, state.variables, masks)
    return jaxprune.apply_masks(state.params, masks)


def compacted(setting: Setting, phase: Phase, record: trail.Record) -> Setting:
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


def stream_of(setting: Setting, phase: Phase) -> Any:
    """What a phase trains on: until the size is found, not on what is held out."""
    if "weights" in setting.streams and phase.name != "finetune":
        return setting.streams["weights"]
    return setting.streams["train"]


def make_see(plan: Plan, phase: Phase) -> Callable[[TrainState], Any]:
    """Returns `state -> params` as the network sees them in this phase."""

    @jax.jit
    def see(params, variables, step):
        key = jax.random.fold_in(jax.random.key(0), step)
        return plan.pruner.apply(params, variables, key=key, step=step).params

    return lambda s: see(s.params, s.variables, s.step - phase.begin)


def add_point(
    setting: Setting,
    plan: Plan,
    see: Callable[[TrainState], Any],
    state: TrainState,
    record: trail.Record,
    keep_ratio: float | None,
) -> Any:
    """Finalizes a copy of the network to a rung, measures and saves it.

    Returns:
      Its masks.
    """
    pruner: Any = plan.pruner
    masks = pruner.masks(state.params, state.variables, keep_ratio=keep_ratio)
    hard = jax.jit(pruner.final_weights)(state.params, state.variables, masks)
    point = trail.point_of(
        state.params,
        masks,
        step=int(state.step),
        accuracy_soft=setting.evaluate(see(state), state.batch_stats),
        accuracy_hard=setting.evaluate(hard, state.batch_stats),
    )
    trail.save_network(setting.workdir, point["step"], hard, state.batch_stats, point)
    record.points.append(point)
    return masks


def close(setting, phase, plan, see, state, record) -> dict[str, Any]:
    """Measures and saves the network at the end of a phase."""
    if phase.name == "prune" and plan.allocate is not None:
        masks = plan.allocate(state)
        record.channels = channels.as_json(masks)
        record.result = _result(state)
        small = compacted(setting, phase._replace(name="finetune"), record)
        params, batch_stats = setting.task.channels.shrink(
            masks, state.params, state.batch_stats
        )
        return _close_compact(small, phase, params, batch_stats, state, record)
    if phase.name == "finetune" and record.channels is not None:
        network = state.params, state.batch_stats
        return _close_compact(setting, phase, *network, state, record)
    if phase.name == "prune":
        masks = add_point(setting, plan, see, state, record, setting.keep_ratio)
        record.result = _result(state)
        final = record.points[-1]
    else:
        masks = nonzero_masks(state.params)
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
