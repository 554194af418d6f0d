"""Plans of the methods that prune channels to a budget; see `plans`.

All see the same groups, are held to the same limits and end the same way: numbers of
channels that meet the budget exactly, the most important channels of each group, and a
compact network that is fine-tuned. They differ in how the numbers are found:

- `dsa`: by gradients, while the weights are trained;
- `uniform`: the same keep ratio everywhere;
- `filter_norm`, `norm_scale`: one ranking of all channels;
- `group_lasso` (SSL), `morphnet`: what a penalty on whole channels leaves;
- `evolution` (in the manner of AMC): trial and error on held-out data.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxprune
from experiments.channels import Channels, Masks
from experiments.plans import (
    Config,
    Task,
    channel_budget,
    pruning_learning_rate,
    weights_optimizer,
)
from experiments.steps import Plan, Search, TrainState
from jaxprune import allocation, channel_gates, hard_budgets, importance, transforms
from jaxprune.methods.dsa import sharpness_schedule

Counts = dict[str, int]


def dsa(config: Config, task: Task) -> Plan:
    """Differentiable sparsity allocation, held to the budget by ADMM."""
    known = _channels(config, task)
    pruner = jaxprune.dsa(
        known.graph,
        sharpness=sharpness_schedule(
            config.sharpness, config.sharpness_growth, task.steps_per_epoch
        ),
        floor=config.keep_floor,
        init_logit=config.init_logit,
    )
    rounds = max(task.steps // config.ratio_every, 1)
    begin, end = round(config.ramp_begin * rounds), round(config.ramp_end * rounds)
    asked = channel_budget(config)
    budget = hard_budgets.admm(
        {name: known.costs[name] for name in asked},
        {
            name: jaxprune.schedules.cubic_ramp(
                1.0, limit, begin_step=begin, end_step=max(end, 1)
            )
            for name, limit in asked.items()
        },
        pruner.apply(task.params, pruner.init(task.params), key=jax.random.key(0))[1],
        min_keep_ratio={n: 1 / g.size for n, g in known.graph.groups.items()},
    )
    weights = weights_optimizer(config, pruning_learning_rate(config, task.steps))

    def allocate(state: TrainState) -> Masks:
        ratios = {n: float(jax.nn.sigmoid(v)) for n, v in state.variables.items()}
        counts = allocation.round_to_budget(
            known.graph,
            ratios,
            known.limits(asked),
            multiple_of=config.channel_multiple,
        )
        return _most_important(importance.norm_scales(known.graph), state, counts)

    return Plan(
        pruner=pruner,
        budget=budget,
        optimizer=optax.partition(
            {"weights": weights, "ratios": optax.set_to_zero()},
            {"params": "weights", "variables": "ratios"},
        ),
        search=Search(optax.adam(config.ratio_learning_rate), config.ratio_every),
        allocate=allocate,
    )


def _channels(config: Config, task: Task) -> Channels:
    if task.channels is None:
        raise ValueError(
            f"`config.plan={config.plan.__name__}` prunes channels and needs a budget: "
            "set `config.budget.macs`, `config.budget.parameters` or "
            "`config.budget.bytes`, for instance `--config.budget.macs=0.5`."
        )
    return task.channels


def _most_important(
    scores_of: importance.Importance, state: TrainState, counts: Counts
) -> Masks:
    """Keeps the most important channels of every group; ties go by position."""
    masks = {}
    for name, scores in scores_of(state.params).items():
        order = np.argsort(-np.asarray(scores), kind="stable")
        masks[name] = np.zeros(len(order), bool)
        masks[name][order[: counts[name]]] = True
    return masks
