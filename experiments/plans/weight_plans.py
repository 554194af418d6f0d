"""From a config to a `Plan`: one function for each method.

A config refers to one of these functions by `config.plan`. Each takes the config and a
`Task`, what there is to know of the network, the data and the phase. Methods that prune
channels are in `channel_plans`.

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
from typing import Any, NamedTuple

import jax
import optax

import jaxprune
from experiments.plans.channels import Channels
from experiments.run.steps import Plan
from jaxprune import schedules

Config = Any
"""A `ConfigDict` with the fields of `configs/default.py`; they have no static types."""

Loss = Callable[..., jax.Array]
"""`params, temperature=1.0` to the loss of a sample; see `steps.make_loss`."""


class Task(NamedTuple):
    """What a method is told of the run.

    Attributes:
      params: the parameters, possibly abstract.
      first_step: the step of the run at which the phase begins.
      steps: the number of steps of the phase.
      steps_per_epoch: steps.
      loss: of a sample of the training data, as a function of the parameters.
      channels: the channels of the network, if they are what is pruned.
      judge: `params, batch_stats -> accuracy` on the held-out data; on the training
        data if none is held out.
    """

    params: Any
    first_step: int
    steps: int
    steps_per_epoch: int
    loss: Loss
    channels: Channels | None
    judge: Callable[[Any, Any], float]


def weights_optimizer(
    config: Config, learning_rate: optax.ScalarOrSchedule
) -> optax.GradientTransformation:
    """SGD with momentum and weight decay, as the config says."""
    decayed = None if config.decay_everything else jaxprune.kernels
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay, mask=decayed),
        optax.sgd(learning_rate, momentum=config.momentum, nesterov=config.nesterov),
    )


def stepped_learning_rate(config: Config, task: Task) -> optax.Schedule:
    """`learning_rate`, a tenth of it after each of `learning_rate_drops`."""
    ends = [
        round(epoch * task.steps_per_epoch) - task.first_step
        for epoch in config.learning_rate_drops
    ]
    passed = sum(end <= 0 for end in ends)
    return optax.piecewise_constant_schedule(
        config.learning_rate * 0.1**passed, {end: 0.1 for end in ends if end > 0}
    )


def pruning_learning_rate(config: Config, task: Task) -> optax.Schedule:
    """Cosine from `learning_rate` to a fraction of it, after a linear warm-up.

    With `learning_rate_drops` it falls in steps instead, over the whole run.
    """
    if config.learning_rate_drops:
        return stepped_learning_rate(config, task)
    steps = task.steps
    return optax.warmup_cosine_decay_schedule(
        0.0,
        config.learning_rate,
        warmup_steps=max(steps // 20, 1),
        decay_steps=max(steps, 2),
        end_value=config.learning_rate * config.end_learning_rate_factor,
    )


def dense(config: Config, task: Task, learning_rate: float) -> Plan:
    """Trains the network as it is, with a cosine learning rate that ends at zero.

    With `learning_rate_drops` it falls in steps instead, over the whole run.
    """
    if config.learning_rate_drops:
        schedule = stepped_learning_rate(config, task)
    else:
        schedule = optax.cosine_decay_schedule(learning_rate, max(task.steps, 1))
    optimizer = weights_optimizer(config, schedule)
    return Plan(jaxprune.identity(), jaxprune.unlimited(), optimizer)


def finetune(config: Config, task: Task, masks) -> Plan:
    """Trains what the masks keep; what they prune stays exactly zero."""
    plan = dense(config, task, config.finetune_learning_rate)
    frozen = jaxprune.freeze_pruned({"params": masks, "variables": {}})
    return plan._replace(optimizer=optax.chain(plan.optimizer, frozen))


def keep_ratio_ramp(config: Config, steps: int) -> optax.Schedule:
    """The target keep ratio over the pruning phase: a cubic ramp down from 1."""
    return jaxprune.schedules.cubic_ramp(
        1.0,
        jaxprune.masks.keep_ratio_of(config.sparsity),
        begin_step=round(config.ramp_begin * steps),
        end_step=max(round(config.ramp_end * steps), 1),
    )


def ltp(config: Config, task: Task) -> Plan:
    """Learned threshold pruning, to `sparsity` or under a `penalty_weight`."""
    pruner = jaxprune.ltp(
        temperature=config.temperature,
        init_threshold=config.init_threshold,
        min_keep_ratio=config.min_keep_ratio,
    )
    return _learned_thresholds(pruner, config, task)


def soft_threshold_reparameterization(config: Config, task: Task) -> Plan:
    """A soft threshold learned per layer, to a size or under a `penalty_weight`."""
    pruner = jaxprune.soft_threshold_reparameterization(
        init_value=config.init_threshold_logit,
        temperature=config.temperature,
        min_keep_ratio=config.min_keep_ratio,
    )
    return _learned_thresholds(pruner, config, task)


def _learned_thresholds(pruner, config: Config, task: Task) -> Plan:
    """Thresholds trained by Adam beside the weights, under the penalty of a budget."""
    budget = _size_budget(config, task, config.solver or "dual_ascent")
    weights = weights_optimizer(config, pruning_learning_rate(config, task))
    thresholds = optax.adam(config.threshold_learning_rate)
    return Plan(pruner, budget, _weights_and_thresholds(weights, thresholds))


def _size_budget(config: Config, task: Task, solver: str) -> jaxprune.Budget:
    """A `penalty_weight`, or the limit on the weights along its ramp, by a solver."""
    cost = jaxprune.density(task.params)
    if config.penalty_weight is not None:
        return jaxprune.weighted(cost, config.penalty_weight)
    limit = jaxprune.at_most(cost, keep_ratio_ramp(config, task.steps))
    if solver == "dual_ascent":
        return jaxprune.dual_ascent(limit, rate=config.multiplier_rate)
    if solver == "admm":
        return jaxprune.admm(limit, min_keep_ratio=max(config.min_keep_ratio, 1e-6))
    raise AssertionError(solver)  # `check_feasible` has looked at it.


def _weights_and_thresholds(weights, thresholds) -> optax.GradientTransformation:
    return optax.partition(
        {"weights": weights, "thresholds": thresholds},
        {"params": "weights", "variables": "thresholds"},
    )


def magnitude(config: Config, task: Task) -> Plan:
    """Magnitude pruning with the same share of every layer, along the same ramp."""
    return _magnitude(jaxprune.magnitude, config, task)


def global_magnitude(config: Config, task: Task) -> Plan:
    """Magnitude pruning with one threshold for all layers, along the same ramp."""
    return _magnitude(jaxprune.global_magnitude, config, task)


def _magnitude(method, config: Config, task: Task) -> Plan:
    ramp = keep_ratio_ramp(config, task.steps)
    pruner = method(
        sparsity=lambda step: 1 - ramp(step), min_keep_ratio=config.min_keep_ratio
    )
    optimizer = weights_optimizer(config, pruning_learning_rate(config, task))
    return Plan(pruner, jaxprune.unlimited(), optimizer)


def lats(config: Config, task: Task) -> Plan:
    """Soft thresholds; the L1 coefficient is constant, whatever the learning rate.

    Or they are learned, under a `penalty_weight` or by a `solver`.
    """
    given = [f for f in ("penalty_weight", "final_threshold", "solver") if config[f]]
    if len(given) > 1:
        raise ValueError(
            f"`config.{given[0]}` and `config.{given[1]}` both say what moves the "
            "threshold. Leave one out."
        )
    rate = pruning_learning_rate(config, task)
    if config.penalty_weight is not None or config.solver:
        return _learned_soft_thresholds(config, task, rate)
    shape = schedules.from_learning_rate(rate, 1.0, task.steps)
    return _soft_thresholding(config, task, rate, shape)


def s_lats(config: Config, task: Task) -> Plan:
    """Soft thresholds along the published closed form, that of a bare cosine."""
    rate = pruning_learning_rate(config, task)
    return _soft_thresholding(config, task, rate, schedules.s_lats(1.0, task.steps))


def pgh(config: Config, task: Task) -> Plan:
    """Soft thresholds; the L1 coefficient fades to `homotopy_beta` of itself."""
    rate = pruning_learning_rate(config, task)
    shape = schedules.pgh_from_learning_rate(
        rate, 1.0, task.steps, beta=config.homotopy_beta
    )
    return _soft_thresholding(config, task, rate, shape)


def _learned_soft_thresholds(config: Config, task: Task, rate) -> Plan:
    pruner = jaxprune.soft_thresholding(min_keep_ratio=config.min_keep_ratio)
    budget = _size_budget(config, task, config.solver)
    # At the rate of the weights a penalty weight is an L1 coefficient. The dual
    # variables of ADMM are none, and differ by orders of magnitude between layers.
    thresholds = optax.sgd(rate)
    if config.solver == "admm":
        thresholds = optax.adam(lambda step: 0.1 * rate(step), b2=0.99)
    thresholds = optax.chain(thresholds, optax.keep_params_nonnegative())
    weights = weights_optimizer(config, rate)
    return Plan(pruner, budget, _weights_and_thresholds(weights, thresholds))


def _soft_thresholding(config: Config, task: Task, rate, shape) -> Plan:
    """To `sparsity` or a `final_threshold`."""
    pruner = jaxprune.soft_thresholding(min_keep_ratio=config.min_keep_ratio)
    weights = weights_optimizer(config, rate)
    if config.final_threshold is not None:
        optimizer = jaxprune.follow_threshold(
            weights, pruner, threshold=lambda step: config.final_threshold * shape(step)
        )
    else:
        optimizer = jaxprune.reach_keep_ratio(
            weights,
            pruner,
            keep_ratio=jaxprune.masks.keep_ratio_of(config.sparsity),
            shape=shape,
        )
    return Plan(pruner, jaxprune.unlimited(), optimizer)


def snip(config: Config, task: Task) -> Plan:
    """Prunes at the end of the phase by the sensitivity of the loss."""
    return _prune_once(jaxprune.snip(task.loss, min_keep_ratio=config.min_keep_ratio))


def grasp(config: Config, task: Task) -> Plan:
    """Prunes at the end of the phase, keeping the flow of gradients."""
    # The paper's temperature: near-uniform outputs, whatever the initialisation says.
    flat = functools.partial(task.loss, temperature=200.0)
    return _prune_once(jaxprune.grasp(flat, min_keep_ratio=config.min_keep_ratio))


def random_erk(config: Config, task: Task) -> Plan:
    """Prunes at the end of the phase, at random, with densities by shape."""
    del task
    key = jax.random.fold_in(jax.random.key(config.seed), 1)
    return _prune_once(jaxprune.random_erk(key, min_keep_ratio=config.min_keep_ratio))


def _prune_once(pruner) -> Plan:
    """Moves no weight: the phase is there for the masks at its end."""
    return Plan(pruner, jaxprune.unlimited(), optax.set_to_zero())


def target_keep_ratio(config: Config) -> float | None:
    """The keep ratio to finalize to, or None where none is the target."""
    if config.penalty_weight is not None or config.final_threshold is not None:
        return None
    if channel_budget(config):
        return None
    return jaxprune.masks.keep_ratio_of(config.sparsity)


def channel_budget(config: Config) -> dict[str, float]:
    """The limits on the costs of channels, by name; empty if weights are pruned.

    Raises:
      ValueError: if a limit is not in (0, 1].
    """
    for name, limit in config.budget.items():
        if limit is not None and not 0 < limit <= 1:
            raise ValueError(
                f"`config.budget.{name}={limit}` must be in (0, 1], a fraction of the "
                "dense cost."
            )
    # A limit of 1 is none; so one in a config can be lifted on the command line.
    return {n: limit for n, limit in config.budget.items() if limit not in (None, 1)}


def check_feasible(config: Config, params) -> None:
    """Raises ValueError, before any training, if a target cannot be met."""
    if config.solver not in ("", "dual_ascent", "admm"):
        raise ValueError(
            f"`config.solver={config.solver!r}` must be 'dual_ascent', 'admm', or '' "
            "for the method's own."
        )
    keep_ratio = target_keep_ratio(config)
    if keep_ratio is not None:
        jax.eval_shape(
            lambda p: jaxprune.global_magnitude(
                sparsity=config.sparsity, min_keep_ratio=config.min_keep_ratio
            ).masks(p, {}),
            params,
        )
