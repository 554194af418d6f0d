"""Magnitude pruning along a ramp, by layer (GMP) or with one threshold."""

import jaxprune
from experiments.plans.method import WEIGHT_FIELDS, WEIGHTS, Config, Method, Plan, Task
from experiments.plans.optimizers import pruning_learning_rate, weights_optimizer
from experiments.plans.size import RAMP, keep_ratio_ramp


def magnitude(config: Config, task: Task) -> Plan:
    """Magnitude pruning with the same share of every layer, along the same ramp."""
    return _magnitude(jaxprune.magnitude, config, task)


def global_magnitude(config: Config, task: Task) -> Plan:
    """Magnitude pruning with one threshold for all layers, along the same ramp."""
    return _magnitude(jaxprune.global_magnitude, config, task)


def _magnitude(method, config: Config, task: Task) -> Plan:
    ramp = keep_ratio_ramp(config, task.steps)
    pruner = method(
        sparsity=lambda step: 1 - ramp(step),
        min_keep_ratio=config.method.min_keep_ratio,
    )
    optimizer = weights_optimizer(config, pruning_learning_rate(config, task))
    return Plan(pruner, jaxprune.unlimited(), optimizer)


_FIELDS = {**WEIGHT_FIELDS, **RAMP}

MAGNITUDE = Method(
    title="GMP",
    full_title="Magnitude pruning",
    plan=magnitude,
    fields=_FIELDS,
    budget=WEIGHTS,
)

GLOBAL_MAGNITUDE = Method(
    title="Magnitude",
    full_title="Global magnitude pruning",
    plan=global_magnitude,
    fields=_FIELDS,
    budget=WEIGHTS,
)
