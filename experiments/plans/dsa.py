"""Differentiable sparsity allocation (DSA): numbers of channels found by gradients."""

from typing import Any

import jax
import optax

import jaxprune
from experiments.plans.allocation import IMPORTANCES, channels_of, rounded
from experiments.plans.channels import Masks
from experiments.plans.fields import (
    COUNT,
    NOT_NEGATIVE,
    POSITIVE,
    Field,
    Fields,
    one_of,
)
from experiments.plans.method import (
    CHANNELS,
    Config,
    Method,
    Plan,
    Search,
    Task,
    channel_limits,
)
from experiments.plans.optimizers import (
    pruning_learning_rate,
    weights_optimizer,
    with_variables,
)
from experiments.plans.size import RAMP
from jaxprune import budgets, transforms
from jaxprune.methods import sharpness_schedule

SHARPNESS: Fields = {
    "importance": Field("norm_scale", "Of channels in a group.", one_of(*IMPORTANCES)),
    "sharpness": Field(2.0, "Of the gates, at the start of the phase.", POSITIVE),
    "sharpness_growth": Field(1.6, "Factor of the sharpness per epoch.", POSITIVE),
    "keep_floor": Field(0.01, "Minimum of a keep probability.", NOT_NEGATIVE),
}
"""What methods read that train weights under gates; see `jaxprune.dsa`."""

_FIELDS: Fields = {
    **SHARPNESS,
    "init_logit": Field(3.0, "The logit of every keep ratio at first."),
    "ratio_every": Field(2, "Steps of the weights for one of the ratios.", COUNT),
    "ratio_learning_rate": Field(0.1, "Rate of the logits.", NOT_NEGATIVE),
}


def dsa(config: Config, task: Task) -> Plan:
    """Differentiable sparsity allocation, held to the budget by ADMM."""
    known = channels_of(config, task)
    rounds = max(task.steps // config.method.ratio_every, 1)
    begin = round(config.method.ramp_begin * rounds)
    end = max(round(config.method.ramp_end * rounds), 1)
    limits = channel_limits(config)
    budget = budgets.admm(
        [
            jaxprune.at_most(known.costs[name], limit, ramp=(begin, end), name=name)
            for name, limit in limits.items()
        ],
        min_keep_ratio={n: 1 / g.size for n, g in known.graph.groups.items()},
    )
    # A short memory of squares: multipliers rise by orders of magnitude on the way.
    optimizer = optax.adam(config.method.ratio_learning_rate, b2=0.99)
    search = Search(optimizer, config.method.ratio_every)
    return _allocated(config, task, sharpness_of(config, task), budget, search)


def dsa_as_published(config: Config, task: Task) -> Plan:
    """Differentiable sparsity allocation in every published detail that is known.

    The sharpness grows once an epoch, the limits are constant, the multipliers are
    those of the paper, and SGD moves the logits: downwards only, until the limits are
    met.
    """
    known = channels_of(config, task)
    budget = budgets.admm_as_published(
        [
            jaxprune.at_most(known.costs[name], limit, name=name)
            for name, limit in channel_limits(config).items()
        ]
    )
    optimizer = optax.chain(
        transforms.non_negative_gradients(),
        optax.sgd(config.method.ratio_learning_rate),
    )
    search = Search(optimizer, config.method.ratio_every, until_met=True)
    sharpness = sharpness_of(config, task, every=task.steps_per_epoch)
    return _allocated(config, task, sharpness, budget, search)


def _allocated(
    config: Config,
    task: Task,
    sharpness: optax.Schedule,
    budget: jaxprune.Budget,
    search: Search,
) -> Plan:
    """Train weights under gates, and keep ratios apart from them on held-out data."""
    known = channels_of(config, task)
    pruner = jaxprune.dsa(
        known.graph,
        importance=IMPORTANCES[config.method.importance](known.graph),
        sharpness=sharpness,
        floor=config.method.keep_floor,
        init_logit=config.method.init_logit,
    )
    weights = weights_optimizer(config, pruning_learning_rate(config, task))

    def allocate(state: Any) -> Masks:
        ratios = {n: float(jax.nn.sigmoid(v)) for n, v in state.variables.items()}
        counts = rounded(config, task, ratios)
        return pruner.masks(state.params, state.variables, counts=counts)

    return Plan(
        pruner=pruner,
        budget=budget,
        optimizer=with_variables(weights, optax.set_to_zero()),
        search=search,
        allocate=allocate,
    )


def sharpness_of(config: Config, task: Task, every: int = 1) -> optax.Schedule:
    """The sharpness, multiplied by its growth every epoch."""
    epochs = max(task.steps, 1) / task.steps_per_epoch
    return sharpness_schedule(
        max(task.steps, 1),
        initial=config.method.sharpness,
        final=config.method.sharpness * config.method.sharpness_growth**epochs,
        every=every,
    )


DSA = Method(
    title="DSA",
    full_title="Differentiable sparsity allocation",
    plan=dsa,
    fields={**_FIELDS, **RAMP},
    budget=CHANNELS,
)

DSA_AS_PUBLISHED = Method(
    title="DSA, as published",
    full_title="Differentiable sparsity allocation, as published",
    plan=dsa_as_published,
    fields=_FIELDS,
    budget=CHANNELS,
)
