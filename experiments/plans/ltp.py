"""Learned threshold pruning."""

import optax

import jaxprune
from experiments.plans.fields import NOT_NEGATIVE, POSITIVE, Field, Fields
from experiments.plans.method import WEIGHT_FIELDS, WEIGHTS, Config, Method, Plan, Task
from experiments.plans.optimizers import (
    pruning_learning_rate,
    weights_optimizer,
    with_variables,
)
from experiments.plans.size import RAMP, size_budget, size_fields

LEARNED: Fields = {
    **WEIGHT_FIELDS,
    **size_fields("dual_ascent", "admm"),
    **RAMP,
    "temperature": Field(0.1, "How soft the masks are while training.", POSITIVE),
    "threshold_learning_rate": Field(0.05, "Rate of their Adam.", NOT_NEGATIVE),
}
"""What methods read whose thresholds are trained."""


def ltp(config: Config, task: Task) -> Plan:
    """Learned threshold pruning, to `sparsity` or under a `penalty_weight`."""
    pruner = jaxprune.ltp(
        temperature=config.method.temperature,
        init_threshold=config.method.init_threshold,
        min_keep_ratio=config.method.min_keep_ratio,
    )
    plan = learned_thresholds(pruner, config, task)
    return plan._replace(masks_are_soft=True)


def learned_thresholds(pruner: jaxprune.Pruner, config: Config, task: Task) -> Plan:
    """Thresholds trained by Adam beside the weights, under the penalty of a budget."""
    weights = weights_optimizer(config, pruning_learning_rate(config, task))
    thresholds = optax.adam(config.method.threshold_learning_rate)
    return Plan(pruner, size_budget(config, task), with_variables(weights, thresholds))


LTP = Method(
    title="LTP",
    full_title="Learned threshold pruning",
    plan=ltp,
    fields={**LEARNED, "init_threshold": Field(0.05, "Of every layer.", POSITIVE)},
    budget=WEIGHTS,
)
