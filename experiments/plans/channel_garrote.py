"""The latent garrote for channels: limits met at every step, with learned widths."""

from typing import Any

import jax
import optax

import jaxprune
from experiments.plans.allocation import channels_of, limits_of, rounded
from experiments.plans.channels import Masks
from experiments.plans.fields import NOT_NEGATIVE, Field
from experiments.plans.garrote import SHARES, prior, with_shares
from experiments.plans.method import CHANNELS, Config, Method, Plan, Task
from experiments.plans.optimizers import pruning_learning_rate, weights_optimizer
from experiments.plans.penalties import shrink_channels


def channel_garrote(config: Config, task: Task) -> Plan:
    """Channels to limits along a geometric ramp, under a group lasso."""
    fields, known = config.method, channels_of(config, task)
    begin = round(fields.ramp_begin * task.steps)
    steps = max(task.steps - begin, 1)

    def ramped(limit: jaxprune.Limit) -> jaxprune.Limit:
        ramp = jaxprune.schedules.geometric_ramp(
            1 - float(limit.at_most),  # pyright: ignore
            steps,
            power=fields.ramp_power,
            variation=fields.size_variation,
        )
        return limit._replace(at_most=lambda step: 1 - ramp(step - begin))

    pruner = jaxprune.channel_garrote(
        known.graph,
        [ramped(limit) for limit in limits_of(config, task)],
        steps=steps,
        power=fields.power,
    )
    learning_rate = pruning_learning_rate(config, task)
    strength = float(fields.channel_penalty)
    strengths = dict.fromkeys(known.graph.groups, strength)
    weights = optax.chain(
        weights_optimizer(config, learning_rate),
        shrink_channels(known.graph, strengths, learning_rate),
    )

    def allocate(state: Any) -> Masks:
        pruned = pruner.apply(state.params, state.variables, step=task.steps)
        ratios = jax.device_get(pruned.keep_ratios)
        counts = rounded(config, task, {n: float(r) for n, r in ratios.items()})
        return pruner.masks(state.params, state.variables, counts=counts)

    cost = jaxprune.costs.relative_entropy(known.graph)
    optimizer = with_shares(config, task, weights)
    return Plan(pruner, prior(config, task, cost), optimizer, allocate=allocate)


CHANNEL_GARROTE = Method(
    title="Channel garrote",
    full_title="Latent garrote of channels",
    plan=channel_garrote,
    fields={
        **SHARES,
        "prior_strength": Field(1.0, "Of even widths, in examples.", NOT_NEGATIVE),
        "channel_penalty": Field(0.003, "Strength of the group lasso.", NOT_NEGATIVE),
    },
    budget=CHANNELS,
)
