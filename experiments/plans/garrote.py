"""Latent garrote pruning: an exact size, with learned shares of the layers."""

import optax

import jaxprune
from experiments.plans.fields import NOT_NEGATIVE, POSITIVE, SHARE, Field, Fields
from experiments.plans.method import (
    WEIGHT_FIELDS,
    WEIGHTS,
    Config,
    Method,
    Plan,
    Task,
)
from experiments.plans.optimizers import (
    pruning_learning_rate,
    weights_optimizer,
    with_variables,
)

SHARES: Fields = {
    "ramp_begin": Field(0.15, "Where the ramp of the size begins.", SHARE),
    "ramp_power": Field(2.0, "How much faster it falls at first.", POSITIVE),
    "size_variation": Field(0.3, "How far the size varies above it.", NOT_NEGATIVE),
    "power": Field(4.0, "Of the garrote; 1 is the soft threshold.", POSITIVE),
    "share_learning_rate": Field(0.01, "Rate of the shares' Adam.", NOT_NEGATIVE),
}
"""What the methods read that learn shares of an exact size."""


def prior(config: Config, task: Task, cost: jaxprune.base.Cost) -> jaxprune.Budget:
    """The penalty of uneven shares, in examples of the training data."""
    examples = config.data.batch_size * task.steps_per_epoch
    return jaxprune.weighted(cost, config.method.prior_strength / examples)


def with_shares(
    config: Config, task: Task, weights: optax.GradientTransformation
) -> optax.GradientTransformation:
    """Moves weights as given, and shares by an Adam whose rate falls to a fifth."""
    rate = optax.cosine_decay_schedule(
        config.method.share_learning_rate, max(task.steps, 1), alpha=0.2
    )
    return with_variables(weights, optax.adam(rate))


def garrote(config: Config, task: Task) -> Plan:
    """Latent weights, cut to an exact size along a geometric ramp."""
    fields = config.method
    begin = round(fields.ramp_begin * task.steps)
    steps = max(round(fields.ramp_end * task.steps) - begin, 1)
    ramp = jaxprune.schedules.geometric_ramp(
        config.budget.sparsity,
        steps,
        power=fields.ramp_power,
        variation=fields.size_variation,
    )
    pruner = jaxprune.garrote(
        sparsity=config.budget.sparsity,
        steps=steps,
        ramp=lambda step: ramp(step - begin),
        power=fields.power,
        min_keep_ratio=config.method.min_keep_ratio,
    )
    cost = jaxprune.costs.relative_entropy(task.params)
    weights = weights_optimizer(config, pruning_learning_rate(config, task))
    return Plan(pruner, prior(config, task, cost), with_shares(config, task, weights))


GARROTE = Method(
    title="Garrote",
    full_title="Latent garrote pruning",
    plan=garrote,
    fields={
        **WEIGHT_FIELDS,
        **SHARES,
        "ramp_end": Field(1.0, "Where it ends, as a fraction of the phase.", SHARE),
        "prior_strength": Field(3.0, "Of even layers, in examples.", NOT_NEGATIVE),
    },
    budget=WEIGHTS,
)
