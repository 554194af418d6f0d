"""Pruning in one step by scores of weights, or at random (SNIP, GraSP, ERK)."""

import functools

import jax
import optax

import jaxprune
from experiments.plans.method import (
    SAMPLE,
    WEIGHT_FIELDS,
    WEIGHTS,
    Config,
    Method,
    Plan,
    Task,
)

_SCORED = {**WEIGHT_FIELDS, **SAMPLE}


def snip(config: Config, task: Task) -> Plan:
    """Prunes at the end of the phase by the sensitivity of the loss."""
    floor = config.method.min_keep_ratio
    return _prune_once(jaxprune.snip(task.loss, min_keep_ratio=floor))


def grasp(config: Config, task: Task) -> Plan:
    """Prunes at the end of the phase, keeping the flow of gradients."""
    # The paper's temperature: near-uniform outputs, whatever the initialisation says.
    flat = functools.partial(task.loss, temperature=200.0)
    floor = config.method.min_keep_ratio
    return _prune_once(jaxprune.grasp(flat, min_keep_ratio=floor))


def random_erk(config: Config, task: Task) -> Plan:
    """Prunes at the end of the phase, at random, with densities by shape."""
    del task
    key = jax.random.fold_in(jax.random.key(config.seed), 1)
    floor = config.method.min_keep_ratio
    return _prune_once(jaxprune.random_erk(key, min_keep_ratio=floor))


def _prune_once(pruner) -> Plan:
    """Moves no weight: the phase is there for the masks at its end."""
    return Plan(pruner, jaxprune.unlimited(), optax.set_to_zero())


SNIP = Method(
    title="SNIP",
    full_title="Pruning at initialisation by SNIP",
    plan=snip,
    fields=_SCORED,
    budget=WEIGHTS,
)

GRASP = Method(
    title="GraSP",
    full_title="Pruning at initialisation by GraSP",
    plan=grasp,
    fields=_SCORED,
    budget=WEIGHTS,
)

RANDOM_ERK = Method(
    title="Random (ERK)",
    full_title="Random pruning at initialisation",
    plan=random_erk,
    fields=WEIGHT_FIELDS,
    budget=WEIGHTS,
)
