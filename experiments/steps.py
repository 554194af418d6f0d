"""One training step for every method, and evaluation: pure functions.

Nothing here knows a method by name: a `Plan` says what the network sees, how weights
and variables move, and what the network may cost.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

import jaxprune
from jaxprune.budgets import DualAscentState

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]

_FINE = -1


class Plan(NamedTuple):
    """How one phase of a run trains.

    Attributes:
      pruner: what the network sees.
      budget: what it may cost.
      optimizer: moves `{"params": ..., "variables": ...}`.
    """

    pruner: jaxprune.Pruner
    budget: jaxprune.Budget
    optimizer: optax.GradientTransformation


class TrainState(NamedTuple):
    """Everything that a training step changes.

    Attributes:
      params: the weights that are trained; dense while a method prunes softly.
      variables: what the method learns beside them.
      batch_stats: running statistics of the normalisation layers.
      opt_state: of the optimizer, over params and variables.
      budget_state: of the budget.
      step: int32, updates so far, over all phases.
      bad_step: int32, the first step whose loss was not finite, or -1.
    """

    params: Any
    variables: Any
    batch_stats: Any
    opt_state: Any
    budget_state: Any
    step: jax.Array
    bad_step: jax.Array


def init_state(plan: Plan, params: Any, batch_stats: Any, step: int) -> TrainState:
    """Begins a phase at `step` with the given weights and a fresh optimizer."""
    variables = plan.pruner.init(params)
    return TrainState(
        params=params,
        variables=variables,
        batch_stats=batch_stats,
        opt_state=plan.optimizer.init({"params": params, "variables": variables}),
        budget_state=plan.budget.init(),
        step=jnp.int32(step),
        bad_step=jnp.int32(_FINE),
    )


def make_train_step(
    model: nn.Module,
    plan: Plan,
    *,
    size_cost: Callable[[jaxprune.base.KeepRatios], jax.Array],
    first_step: int = 0,
    label_smoothing: float = 0.0,
    axis_name: str | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Returns `(state, batch) -> (state, metrics)`, to be compiled by the caller.

    Args:
      model: a module called as `model(image, train=True)`.
      plan: what trains.
      size_cost: the fraction of the prunable weights that keep ratios amount to.
      first_step: the step at which the phase began; the pruner counts from it.
      label_smoothing: in [0, 1).
      axis_name: the mapped axis under `pmap`, over which gradients are averaged. Under
        `jit` over a sharded batch the mean over the batch is global by itself.
    """

    def objective(trainable, state, batch):
        pruned = plan.pruner.apply(
            trainable["params"],
            trainable["variables"],
            key=None,
            step=state.step - first_step,
        )
        logits, updated = model.apply(
            {"params": pruned.params, "batch_stats": state.batch_stats},
            batch["image"],
            train=True,
            mutable=["batch_stats"],
        )
        targets = optax.smooth_labels(
            jax.nn.one_hot(batch["label"], logits.shape[-1]), label_smoothing
        )
        loss = jnp.mean(optax.softmax_cross_entropy(logits, targets))
        price = plan.budget.penalty(pruned.keep_ratios, state.budget_state)
        accuracy = jnp.mean(jnp.argmax(logits, -1) == batch["label"])
        batch_stats = updated.get("batch_stats", {})
        return loss + price, (loss, accuracy, batch_stats, pruned.keep_ratios)

    def train_step(state, batch):
        trainable = {"params": state.params, "variables": state.variables}
        grads, aux = jax.grad(objective, has_aux=True)(trainable, state, batch)
        loss, accuracy, batch_stats, keep_ratios = aux
        if axis_name is not None:
            grads, loss, accuracy = jax.lax.pmean((grads, loss, accuracy), axis_name)
        updates, opt_state = plan.optimizer.update(grads, state.opt_state, trainable)
        trainable: Any = optax.apply_updates(trainable, updates)
        budget_state = plan.budget.update(keep_ratios, state.budget_state)
        fine = jnp.isfinite(loss) | (state.bad_step != _FINE)
        metrics = {
            "loss": loss,
            "accuracy": accuracy,
            "keep_ratio": size_cost(keep_ratios),
            **{f"keep_ratio/{name}": r for name, r in keep_ratios.items()},
            **{f"threshold/{name}": v for name, v in state.variables.items()},
        }
        if isinstance(budget_state, DualAscentState):
            metrics["target_keep_ratio"] = budget_state.limit
            metrics["log_price"] = budget_state.log_price
        new_state = TrainState(
            params=trainable["params"],
            variables=trainable["variables"],
            batch_stats=batch_stats,
            opt_state=opt_state,
            budget_state=budget_state,
            step=state.step + 1,
            bad_step=jnp.where(fine, state.bad_step, state.step),
        )
        return new_state, metrics

    return train_step


def make_loss(
    model: nn.Module, batch_stats: Any, sample: Callable[[], Batch]
) -> Callable[..., jax.Array]:
    """Returns `params, temperature=1.0 -> float32`, for scores of weights.

    It is the mean cross-entropy of a sample, its logits divided by the temperature.

    Args:
      model: a module called as `model(image, train=True)`.
      batch_stats: of the right shapes; batch statistics are used, not these.
      sample: `() -> batch`, called when the loss is.
    """

    def loss(params, temperature=1.0):
        batch = sample()
        logits, _ = model.apply(
            {"params": params, "batch_stats": batch_stats},
            batch["image"],
            train=True,
            mutable=["batch_stats"],
        )
        return jnp.mean(
            optax.softmax_cross_entropy_with_integer_labels(
                logits / temperature, batch["label"]
            )
        )

    return loss


def make_count_correct(model: nn.Module) -> Callable[[Any, Any, Batch], jax.Array]:
    """Returns `(params, batch_stats, batch) -> int32`, the correct among the valid."""

    def count_correct(params, batch_stats, batch):
        variables = {"params": params, "batch_stats": batch_stats}
        logits: Any = model.apply(variables, batch["image"], train=False)
        correct = jnp.argmax(logits, -1) == batch["label"]
        return jnp.sum(correct & (batch["valid"] > 0), dtype=jnp.int32)

    return count_correct
