"""Soft thresholds whose L1 coefficient is constant (LATS) or fades (PGH)."""

import optax

import jaxprune
from experiments.plans.fields import NOT_NEGATIVE, POSITIVE, Field, Fields
from experiments.plans.method import WEIGHT_FIELDS, WEIGHTS, Config, Method, Plan, Task
from experiments.plans.optimizers import (
    pruning_learning_rate,
    weights_optimizer,
    with_variables,
)
from experiments.plans.size import LOWEST_RUNG, RAMP, size_budget, size_fields
from jaxprune import schedules

_FINAL: Fields = {
    "final_threshold": Field(
        None, "Threshold to end with; decides the size, not `sparsity`.", NOT_NEGATIVE
    ),
}
_FIELDS: Fields = {**WEIGHT_FIELDS, **_FINAL, "lowest_rung": LOWEST_RUNG}


def lats(config: Config, task: Task) -> Plan:
    """Soft thresholds; the L1 coefficient is constant, whatever the learning rate.

    Or they are learned, under a `penalty_weight` or by a `solver`.
    """
    names = ("penalty_weight", "final_threshold", "solver")
    given = [name for name in names if config.method[name]]
    if len(given) > 1:
        raise ValueError(
            f"`config.method.{given[0]}` and `config.method.{given[1]}` both say what "
            "moves the threshold. Leave one out."
        )
    rate = pruning_learning_rate(config, task)
    if config.method.penalty_weight is not None or config.method.solver:
        return _learned(config, task, rate)
    shape = schedules.from_learning_rate(rate, 1.0, task.steps)
    return _scheduled(config, rate, shape)


def s_lats(config: Config, task: Task) -> Plan:
    """Soft thresholds along the published closed form, that of a bare cosine."""
    rate = pruning_learning_rate(config, task)
    return _scheduled(config, rate, schedules.s_lats(1.0, task.steps))


def pgh(config: Config, task: Task) -> Plan:
    """Soft thresholds; the L1 coefficient fades to `homotopy_beta` of itself."""
    rate = pruning_learning_rate(config, task)
    shape = schedules.pgh_from_learning_rate(
        rate, 1.0, task.steps, beta=config.method.homotopy_beta
    )
    return _scheduled(config, rate, shape)


def _learned(config: Config, task: Task, rate: optax.Schedule) -> Plan:
    pruner = jaxprune.soft_thresholding(min_keep_ratio=config.method.min_keep_ratio)
    # At the rate of the weights a penalty weight is an L1 coefficient. The dual
    # variables of ADMM are none, and differ by orders of magnitude between layers.
    thresholds = optax.sgd(rate)
    if config.method.solver == "admm":
        thresholds = optax.adam(lambda step: 0.1 * rate(step), b2=0.99)
    thresholds = optax.chain(thresholds, optax.keep_params_nonnegative())
    weights = weights_optimizer(config, rate)
    return Plan(pruner, size_budget(config, task), with_variables(weights, thresholds))


def _scheduled(config: Config, rate: optax.Schedule, shape: optax.Schedule) -> Plan:
    """To `sparsity` or a `final_threshold`."""
    final = config.method.final_threshold
    pruner = jaxprune.soft_thresholding(min_keep_ratio=config.method.min_keep_ratio)
    weights = weights_optimizer(config, rate)
    if final is not None:
        optimizer = jaxprune.follow_threshold(
            weights, pruner, threshold=lambda step: final * shape(step)
        )
    else:
        keep_ratio = jaxprune.masks.keep_ratio_of(config.budget.sparsity)
        optimizer = jaxprune.reach_keep_ratio(
            weights, pruner, keep_ratio=keep_ratio, shape=shape
        )
    return Plan(pruner, jaxprune.unlimited(), optimizer)


LATS = Method(
    title="LATS",
    full_title="Soft threshold pruning",
    plan=lats,
    fields={
        **_FIELDS,
        **size_fields("", "dual_ascent", "admm"),
        **RAMP,
    },
    budget=WEIGHTS,
)

S_LATS = Method(
    title="S-LATS",
    full_title="Soft threshold pruning, S-LATS",
    plan=s_lats,
    fields=_FIELDS,
    budget=WEIGHTS,
)

PGH = Method(
    title="PGH",
    full_title="Soft threshold pruning by homotopy",
    plan=pgh,
    fields={
        **_FIELDS,
        "homotopy_beta": Field(
            0.01, "L1 coefficient at the end, over that at the start.", POSITIVE
        ),
    },
    budget=WEIGHTS,
)
