"""How weights move: SGD, Adam and learning rates, for every method and phase."""

import optax

import jaxprune
from experiments.plans.method import Config, Method, Plan, Task


def weights_optimizer(
    config: Config, learning_rate: optax.ScalarOrSchedule
) -> optax.GradientTransformation:
    """SGD with momentum or Adam, after weight decay, as `config.optimizer` says."""
    fields = config.optimizer
    decayed = None if fields.decay_everything else jaxprune.kernels
    moved = {
        "sgd": optax.sgd(learning_rate, fields.momentum, fields.nesterov),
        "adam": optax.adam(learning_rate),
    }
    return optax.chain(
        optax.add_decayed_weights(fields.weight_decay, mask=decayed),
        moved[fields.name],
    )


def stepped_learning_rate(config: Config, task: Task) -> optax.Schedule:
    """`learning_rate`, a tenth of it after each of `learning_rate_drops`."""
    ends = [
        round(epoch * task.steps_per_epoch) - task.first_step
        for epoch in config.optimizer.learning_rate_drops
    ]
    passed = sum(end <= 0 for end in ends)
    return optax.piecewise_constant_schedule(
        config.optimizer.learning_rate * 0.1**passed,
        {end: 0.1 for end in ends if end > 0},
    )


def pruning_learning_rate(config: Config, task: Task) -> optax.Schedule:
    """Cosine from `learning_rate` to a fraction of it, after a linear warm-up.

    With `learning_rate_drops` it falls in steps instead, over the whole run.
    """
    fields = config.optimizer
    if fields.learning_rate_drops:
        return stepped_learning_rate(config, task)
    return optax.warmup_cosine_decay_schedule(
        0.0,
        fields.learning_rate,
        warmup_steps=max(task.steps // 20, 1),
        decay_steps=max(task.steps, 2),
        end_value=fields.learning_rate * fields.end_learning_rate_factor,
    )


def dense_learning_rate(
    config: Config, task: Task, learning_rate: float
) -> optax.Schedule:
    """Cosine from a learning rate to zero.

    With `learning_rate_drops` it falls in steps instead, over the whole run.
    """
    if config.optimizer.learning_rate_drops:
        return stepped_learning_rate(config, task)
    return optax.cosine_decay_schedule(learning_rate, max(task.steps, 1))


def with_variables(
    weights: optax.GradientTransformation, variables: optax.GradientTransformation
) -> optax.GradientTransformation:
    """Moves weights and variables by optimizers of their own."""
    return optax.partition(
        {"params": weights, "variables": variables},
        {"params": "params", "variables": "variables"},
    )


def dense(config: Config, task: Task, learning_rate: float) -> Plan:
    """Trains the network as it is."""
    schedule = dense_learning_rate(config, task, learning_rate)
    optimizer = weights_optimizer(config, schedule)
    return Plan(
        jaxprune.identity(),
        jaxprune.unlimited(),
        optimizer,
        average=config.optimizer.average,
    )


def finetune(config: Config, task: Task, masks) -> Plan:
    """Trains what the masks keep; what they prune stays exactly zero."""
    plan = dense(config, task, config.optimizer.finetune_learning_rate)
    frozen = jaxprune.freeze_pruned({"params": masks, "variables": {}})
    return plan._replace(optimizer=optax.chain(plan.optimizer, frozen))


DENSE = Method(title="Dense", full_title="Dense training", plan=None)
"""Nothing is pruned; the pruning phase must be left out."""
