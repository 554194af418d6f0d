"""Soft threshold reparameterization (STR)."""

import jaxprune
from experiments.plans.fields import Field
from experiments.plans.ltp import LEARNED, learned_thresholds
from experiments.plans.method import WEIGHTS, Config, Method, Plan, Task


def soft_threshold_reparameterization(config: Config, task: Task) -> Plan:
    """A soft threshold learned per layer, to a size or under a `penalty_weight`."""
    pruner = jaxprune.soft_threshold_reparameterization(
        init_value=config.method.init_threshold_logit,
        temperature=config.method.temperature,
        min_keep_ratio=config.method.min_keep_ratio,
    )
    return learned_thresholds(pruner, config, task)


STR = Method(
    title="STR",
    full_title="Soft threshold reparameterization",
    plan=soft_threshold_reparameterization,
    fields={
        **LEARNED,
        "init_threshold_logit": Field(-5.0, "The logit of every threshold at first."),
    },
    budget=WEIGHTS,
)
