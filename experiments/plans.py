"""From a config to a `Plan`: one function for each method.

A config refers to one of these functions by `config.plan`. Each takes the config, the
(possibly abstract) parameters and the number of steps of the pruning phase.
"""

from typing import Any

import jax
import optax

import jaxprune
from experiments.steps import Plan

Config = Any
"""A `ConfigDict` with the fields of `configs/default.py`; they have no static types."""


def weights_optimizer(
    config: Config, learning_rate: optax.ScalarOrSchedule
) -> optax.GradientTransformation:
    """SGD with Nesterov momentum; weight decay on the kernels."""
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay, mask=jaxprune.kernels),
        optax.sgd(learning_rate, momentum=config.momentum, nesterov=True),
    )


def pruning_learning_rate(config: Config, steps: int) -> optax.Schedule:
    """Cosine from `learning_rate` to a fraction of it, after a linear warm-up."""
    return optax.warmup_cosine_decay_schedule(
        0.0,
        config.learning_rate,
        warmup_steps=max(steps // 20, 1),
        decay_steps=max(steps, 2),
        end_value=config.learning_rate * config.end_learning_rate_factor,
    )


def dense(config: Config, params, steps: int, learning_rate: float) -> Plan:
    """Trains the network as it is, with a cosine learning rate that ends at zero."""
    del params
    schedule = optax.cosine_decay_schedule(learning_rate, max(steps, 1))
    optimizer = weights_optimizer(config, schedule)
    return Plan(jaxprune.identity(), jaxprune.unlimited(), optimizer)


def finetune(config: Config, params, masks, steps: int) -> Plan:
    """Trains what the masks keep; what they prune stays exactly zero."""
    plan = dense(config, params, steps, config.finetune_learning_rate)
    frozen = jaxprune.freeze_pruned({"params": masks, "variables": {}})
    return plan._replace(optimizer=optax.chain(plan.optimizer, frozen))


def keep_ratio_ramp(config: Config, steps: int) -> optax.Schedule:
    """The keep ratio asked for over the pruning phase: a cubic ramp down from 1."""
    return jaxprune.schedules.cubic_ramp(
        1.0,
        jaxprune.masks.keep_ratio_of(config.sparsity),
        begin_step=round(config.ramp_begin * steps),
        end_step=max(round(config.ramp_end * steps), 1),
    )


def ltp(config: Config, params, steps: int) -> Plan:
    """Learned threshold pruning, to a size (`sparsity`) or for a fixed `price`."""
    pruner = jaxprune.ltp(
        temperature=config.temperature,
        init_threshold=config.init_threshold,
        min_keep_ratio=config.min_keep_ratio,
    )
    cost = jaxprune.parameter_ratio(params)
    if config.price is None:
        budget = jaxprune.dual_ascent(
            cost, keep_ratio_ramp(config, steps), rate=config.price_rate
        )
    else:
        budget = jaxprune.weighted(cost, config.price)
    weights = weights_optimizer(config, pruning_learning_rate(config, steps))
    thresholds = optax.adam(config.threshold_learning_rate)
    optimizer = optax.partition(
        {"weights": weights, "thresholds": thresholds},
        {"params": "weights", "variables": "thresholds"},
    )
    return Plan(pruner, budget, optimizer)


def magnitude(config: Config, params, steps: int) -> Plan:
    """Magnitude pruning with the same share of every layer, along the same ramp."""
    return _magnitude(jaxprune.magnitude, config, params, steps)


def global_magnitude(config: Config, params, steps: int) -> Plan:
    """Magnitude pruning with one threshold for all layers, along the same ramp."""
    return _magnitude(jaxprune.global_magnitude, config, params, steps)


def _magnitude(method, config, params, steps) -> Plan:
    del params
    ramp = keep_ratio_ramp(config, steps)
    pruner = method(
        sparsity=lambda step: 1 - ramp(step), min_keep_ratio=config.min_keep_ratio
    )
    optimizer = weights_optimizer(config, pruning_learning_rate(config, steps))
    return Plan(pruner, jaxprune.unlimited(), optimizer)


def asked_keep_ratio(config: Config) -> float | None:
    """The keep ratio to harden to, or None where a fixed price decides the size."""
    if config.price is not None:
        return None
    return jaxprune.masks.keep_ratio_of(config.sparsity)


def check_feasible(config: Config, params) -> None:
    """Raises ValueError, before any training, if the size asked for cannot be met."""
    keep_ratio = asked_keep_ratio(config)
    if keep_ratio is not None:
        jax.eval_shape(
            lambda p: jaxprune.global_magnitude(
                sparsity=config.sparsity, min_keep_ratio=config.min_keep_ratio
            ).masks(p, {}),
            params,
        )
