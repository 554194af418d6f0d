"""From a config to a `Plan`: one function for each method.

A config refers to one of these functions by `config.plan`. Each takes the config, the
(possibly abstract) parameters and the number of steps of the pruning phase, and the
loss of a sample of the training data as a function of the parameters.

Three families, all of the same phases (dense, prune, finetune) and the same total:

- during training: most epochs prune, the others fine-tune what is left;
- early pruning: the prune phase is a prefix of training; then the mask is frozen and
  the weights train on (`pgh`);
- at initialisation: the prune phase is short and thrown away but for its mask, under
  which the initial weights are trained (`pgh` with `config.rewind`), or it is one step
  that moves nothing, at whose end weights are scored (`snip`, `grasp`, `random_erk`).
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import optax

import jaxprune
from experiments.steps import Plan
from jaxprune import threshold_schedules

Config = Any
"""A `ConfigDict` with the fields of `configs/default.py`; they have no static types."""

Loss = Callable[..., jax.Array]
"""`params, temperature=1.0` to the loss of a sample; see `steps.make_loss`."""


def weights_optimizer(
    config: Config, learning_rate: optax.ScalarOrSchedule
) -> optax.GradientTransformation:
    """SGD with momentum and weight decay, as the config says."""
    decayed = None if config.decay_everything else jaxprune.kernels
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay, mask=decayed),
        optax.sgd(learning_rate, momentum=config.momentum, nesterov=config.nesterov),
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


def ltp(config: Config, params, steps: int, loss: Loss) -> Plan:
    """Learned threshold pruning, to a size (`sparsity`) or for a fixed `price`."""
    del loss
    pruner = jaxprune.ltp(
        temperature=config.temperature,
        init_threshold=config.init_threshold,
        min_keep_ratio=config.min_keep_ratio,
    )
    return _learned_thresholds(pruner, config, params, steps)


def soft_threshold_reparameterization(
    config: Config, params, steps: int, loss: Loss
) -> Plan:
    """A trainable soft threshold for every layer, to a size or for a fixed `price`."""
    del loss
    pruner = jaxprune.soft_threshold_reparameterization(
        init_value=config.init_threshold_logit,
        temperature=config.temperature,
        min_keep_ratio=config.min_keep_ratio,
    )
    return _learned_thresholds(pruner, config, params, steps)


def _learned_thresholds(pruner, config, params, steps) -> Plan:
    """Thresholds trained by Adam beside the weights, against the price of a budget."""
    cost = jaxprune.parameter_ratio(params)
    if config.price is None:
        budget = jaxprune.dual_ascent(
            cost, keep_ratio_ramp(config, steps), rate=config.price_rate
        )
    else:
        budget = jaxprune.weighted(cost, config.price)
    weights = weights_optimizer(config, pruning_learning_rate(config, steps))
    thresholds = optax.adam(config.threshold_learning_rate)
    return Plan(pruner, budget, _weights_and_thresholds(weights, thresholds))


def _weights_and_thresholds(weights, thresholds) -> optax.GradientTransformation:
    return optax.partition(
        {"weights": weights, "thresholds": thresholds},
        {"params": "weights", "variables": "thresholds"},
    )


def magnitude(config: Config, params, steps: int, loss: Loss) -> Plan:
    """Magnitude pruning with the same share of every layer, along the same ramp."""
    del loss
    return _magnitude(jaxprune.magnitude, config, params, steps)


def global_magnitude(config: Config, params, steps: int, loss: Loss) -> Plan:
    """Magnitude pruning with one threshold for all layers, along the same ramp."""
    del loss
    return _magnitude(jaxprune.global_magnitude, config, params, steps)


def _magnitude(method, config, params, steps) -> Plan:
    del params
    ramp = keep_ratio_ramp(config, steps)
    pruner = method(
        sparsity=lambda step: 1 - ramp(step), min_keep_ratio=config.min_keep_ratio
    )
    optimizer = weights_optimizer(config, pruning_learning_rate(config, steps))
    return Plan(pruner, jaxprune.unlimited(), optimizer)


def lats(config: Config, params, steps: int, loss: Loss) -> Plan:
    """Soft thresholds; the L1 coefficient is constant, whatever the learning rate."""
    del loss
    rate = pruning_learning_rate(config, steps)
    shape = threshold_schedules.from_learning_rate(rate, 1.0, steps)
    return _soft_thresholding(config, params, rate, shape)


def s_lats(config: Config, params, steps: int, loss: Loss) -> Plan:
    """Soft thresholds along the published closed form, that of a bare cosine."""
    del loss
    rate = pruning_learning_rate(config, steps)
    return _soft_thresholding(
        config, params, rate, threshold_schedules.s_lats(1.0, steps)
    )


def pgh(config: Config, params, steps: int, loss: Loss) -> Plan:
    """Soft thresholds; the L1 coefficient fades to `homotopy_beta` of itself."""
    del loss
    rate = pruning_learning_rate(config, steps)
    shape = threshold_schedules.pgh_from_learning_rate(
        rate, 1.0, steps, beta=config.homotopy_beta
    )
    return _soft_thresholding(config, params, rate, shape)


def _soft_thresholding(config, params, rate, shape) -> Plan:
    """A size (`sparsity`), an L1 coefficient (`price`) or a `final_threshold`."""
    pruner = jaxprune.soft_thresholding(min_keep_ratio=config.min_keep_ratio)
    weights = weights_optimizer(config, rate)
    if config.price is not None:
        budget = jaxprune.weighted(jaxprune.parameter_ratio(params), config.price)
        optimizer = _weights_and_thresholds(weights, optax.sgd(rate))
        return Plan(pruner, budget, optimizer)
    if config.final_threshold is not None:
        optimizer = jaxprune.follow_threshold(
            weights, threshold=lambda step: config.final_threshold * shape(step)
        )
    else:
        optimizer = jaxprune.reach_keep_ratio(
            weights,
            keep_ratio=jaxprune.masks.keep_ratio_of(config.sparsity),
            shape=shape,
        )
    return Plan(pruner, jaxprune.unlimited(), optimizer)


def snip(config: Config, params, steps: int, loss: Loss) -> Plan:
    """Prunes at the end of the phase by the sensitivity of the loss."""
    del params, steps
    return _prune_once(jaxprune.snip(loss, min_keep_ratio=config.min_keep_ratio))


def grasp(config: Config, params, steps: int, loss: Loss) -> Plan:
    """Prunes at the end of the phase, keeping the flow of gradients."""
    del params, steps
    # The paper's temperature: near-uniform outputs, whatever the initialisation says.
    flat = functools.partial(loss, temperature=200.0)
    return _prune_once(jaxprune.grasp(flat, min_keep_ratio=config.min_keep_ratio))


def random_erk(config: Config, params, steps: int, loss: Loss) -> Plan:
    """Prunes at the end of the phase, at random, with densities by shape."""
    del params, steps, loss
    key = jax.random.fold_in(jax.random.key(config.seed), 1)
    return _prune_once(jaxprune.random_erk(key, min_keep_ratio=config.min_keep_ratio))


def _prune_once(pruner) -> Plan:
    """Moves no weight: the phase is there for the masks at its end."""
    return Plan(pruner, jaxprune.unlimited(), optax.set_to_zero())


def asked_keep_ratio(config: Config) -> float | None:
    """The keep ratio to harden to, or None where a fixed price decides the size."""
    if config.price is not None or config.final_threshold is not None:
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
