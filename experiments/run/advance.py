"""One step of a phase over all devices: weights, the search, and what they changed."""

import sys
import time
from collections.abc import Callable

import jax
import numpy as np

import jaxprune
from experiments.plans.method import Plan
from experiments.run import regrowth, transition
from experiments.run.network import Network
from experiments.run.phases import Phase
from experiments.run.setting import Setting
from experiments.run.steps import (
    Metrics,
    Step,
    TrainState,
    make_search_step,
    make_train_step,
)
from jaxprune.base import Cost

INPUT_SECONDS = "input_seconds"
"""The metric that says how long a step waited for its batch, in the mean since it was
logged last. Where it comes near the time of a step, the accelerator waits for data."""

Advance = Callable[[TrainState, int], tuple[TrainState, Metrics]]
"""`state, step -> state, metrics`: does this step; the state is on every device."""


def make(setting: Setting, phase: Phase, network: Network, plan: Plan) -> Advance:
    """Return the function that does the steps of a phase, one after the other."""
    ways = setting.parallel
    shared = Step(
        model=network.model,
        plan=plan,
        size_cost=size_cost(setting, network, plan),
        first_step=phase.begin,
        seed=setting.config.seed,
        label_smoothing=setting.config.optimizer.label_smoothing,
        parts=setting.config.data.batch_parts,
        axis_name=ways.axis_name,
    )
    train_step = ways.compile(make_train_step(shared))
    search_step = ways.compile(make_search_step(shared)) if plan.search else None
    zeros = regrowth.make_zeros(plan.pruner, first_step=phase.begin)
    share = transition.make_share(plan.pruner, first_step=phase.begin)

    def look(state):
        return zeros(*ways.peek((state.params, state.variables, state.step)))

    waits: list[float] = []  # seconds for each batch since a step was logged

    def batch():
        begin = time.monotonic()
        found = next(phase.stream)
        waits.append(time.monotonic() - begin)
        return ways.shard(found)

    def advance(state, step):
        logged = is_logged(setting, phase, step)
        # In other phases nothing is pruned, or the masks are fixed.
        before = look(state) if logged and phase.finds_points else None
        state, metrics = train_step(state, batch())
        if logged:
            metrics = {**metrics, INPUT_SECONDS: np.mean(waits)}
            waits.clear()
        if logged and plan.masks_are_soft:
            now = ways.peek((state.params, state.variables, state.step))
            metrics = {**metrics, transition.METRIC: share(*now)}
        if before is not None:
            metrics = {**metrics, **regrowth.changes(before, look(state))}
        if plan.search and search_step and step % plan.search.every == 0:
            held_out = ways.shard(next(setting.streams["held_out"]))
            state, found = search_step(state, held_out)
            metrics = {**metrics, **found}
        return state, metrics

    return _announced(setting, phase, network, advance)


def size_cost(setting: Setting, network: Network, plan: Plan) -> Cost:
    """The fraction of the prunable weights that the keep ratios of a plan amount to."""
    known = setting.task.channels
    if plan.allocate and known:
        return known.costs["parameters"]
    return jaxprune.density(network.params)


def is_logged(setting: Setting, phase: Phase, step: int) -> bool:
    """Whether the numbers of a step are written."""
    every = setting.config.run.log_every
    return step % every == 0 or step in (phase.begin + 1, phase.end)


def _announced(setting: Setting, phase: Phase, network: Network, advance) -> Advance:
    """Prints that the first step is compiled, and how long that took."""
    if not setting.config.run.progress or jax.process_index():
        return advance
    leaves = len(jax.tree.leaves(network.params))
    # Two idle cores take a fifth of a second for each leaf, with what belongs to it.
    expected = 1 + leaves / 5
    first = True

    def announced(state, step):
        nonlocal first
        if not first:
            return advance(state, step)
        first = False
        print(
            f"{phase.name}: compiling the step of {setting.config.model}, about "
            f"{expected:.0f} s",
            file=sys.stderr,
            flush=True,
        )
        begin = time.monotonic()
        done = jax.block_until_ready(advance(state, step))
        took = time.monotonic() - begin
        print(f"{phase.name}: compiled in {took:.1f} s", file=sys.stderr, flush=True)
        return done

    return announced
