"""One training step for every method, and evaluation: pure functions.

Nothing here knows a method by name: a `Plan` says which weights the network computes
with, how weights and variables move, and what the network may cost.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

import jaxprune
from experiments.plans.method import Plan
from jaxprune.budgets import AdmmState, DualAscentState

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]

_FINE = -1
_MOST = 5
_DROPOUT = 1  # apart from what the pruner draws


class TrainState(NamedTuple):
    """Everything that a training step changes."""

    params: Any  # the weights that are trained; dense while a method prunes softly
    variables: Any  # what the method learns beside them
    batch_stats: Any  # running statistics of the normalisation layers
    opt_state: Any  # of the optimizer, over params and variables
    search_state: Any  # of the optimizer of the search, over variables; () without one
    budget_state: Any  # of the budget
    average: Any  # of params and batch_stats over the steps; {} if it is not taken
    step: jax.Array  # int32, updates so far, over all phases
    bad_step: jax.Array  # int32, the first step whose loss was not finite, or -1

    def with_average(self) -> "TrainState":
        """The state with the average, where it is taken: what is measured and kept."""
        return self._replace(**self.average)


def init_state(plan: Plan, params: Any, batch_stats: Any, step: int) -> TrainState:
    """Begins a phase at `step` with the given weights and a fresh optimizer."""
    variables = plan.pruner.init(params)
    apply = functools.partial(plan.pruner.apply, key=jax.random.key(0), step=0)
    keep_ratios = jax.eval_shape(apply, params, variables).keep_ratios
    return TrainState(
        params=params,
        variables=variables,
        batch_stats=batch_stats,
        opt_state=plan.optimizer.init({"params": params, "variables": variables}),
        search_state=plan.search.optimizer.init(variables) if plan.search else (),
        budget_state=plan.budget.init(keep_ratios),
        average=_network(params, batch_stats) if plan.average else {},
        step=jnp.int32(step),
        bad_step=jnp.int32(_FINE),
    )


class Step(NamedTuple):
    """What the steps of a phase share."""

    model: nn.Module  # a module called as `model(image, train=True)`
    plan: Plan  # what trains
    # The fraction of the prunable weights that keep ratios amount to.
    size_cost: Callable[[jaxprune.base.KeepRatios], jax.Array]
    first_step: int = 0  # the step at which the phase began; the pruner counts from it
    seed: int = 0  # what the pruner's random numbers come from, together with the step
    label_smoothing: float = 0.0  # in [0, 1)
    parts: int = 1  # of a batch, one after the other, whose gradients are averaged
    # The mapped axis under `pmap`, over which gradients are averaged. Under `jit` over
    # a sharded batch the mean over the batch is global by itself.
    axis_name: str | None = None

    def objective(self, trainable, state: TrainState, batch: Batch, part=0):
        """Returns the loss with the penalty, and what the step reports."""
        # The same on every replica, another one at every step.
        key = jax.random.fold_in(jax.random.key(self.seed), state.step)
        pruned = self.plan.pruner.apply(
            trainable["params"],
            trainable["variables"],
            key=key,
            step=state.step - self.first_step,
        )
        logits, updated = self.model.apply(
            {"params": pruned.params, "batch_stats": state.batch_stats},
            batch["image"],
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": self._dropout_key(key, part)},
        )
        targets = optax.smooth_labels(
            jax.nn.one_hot(batch["label"], logits.shape[-1]), self.label_smoothing
        )
        loss = jnp.mean(optax.softmax_cross_entropy(logits, targets))
        penalty = self.plan.budget.penalty(pruned.keep_ratios, state.budget_state)
        accuracy = jnp.mean(jnp.argmax(logits, -1) == batch["label"])
        batch_stats = updated.get("batch_stats", {})
        return loss + penalty, (loss, accuracy, batch_stats, pruned.keep_ratios)

    def gradient(self, trainable, state: TrainState, batch: Batch):
        """Returns the gradient over a batch, and what the step reports."""
        grad = jax.grad(self.objective, has_aux=True)
        if self.parts == 1:
            return grad(trainable, state, batch)
        # Every part has examples of all devices, which a sharded batch has in turn.
        batch = jax.tree.map(
            lambda x: x.reshape(-1, self.parts, *x.shape[1:]).swapaxes(0, 1), batch
        )

        def add(carry, part):
            sums, batch_stats = carry
            now = state._replace(batch_stats=batch_stats)
            grads, (loss, accuracy, batch_stats, ratios) = grad(trainable, now, *part)
            sums = jax.tree.map(jnp.add, sums, (grads, loss, accuracy))
            return (sums, batch_stats), ratios

        zeros = jax.tree.map(
            jnp.zeros_like, (trainable, jnp.float32(0), jnp.float32(0))
        )
        (sums, batch_stats), ratios = jax.lax.scan(
            add, (zeros, state.batch_stats), (batch, jnp.arange(self.parts))
        )
        grads, loss, accuracy = jax.tree.map(lambda x: x / self.parts, sums)
        last = jax.tree.map(lambda x: x[-1], ratios)
        return grads, (loss, accuracy, batch_stats, last)

    def _dropout_key(self, key: jax.Array, part: Any) -> jax.Array:
        """What drops units: another key for each part and replica, of other images."""
        key = jax.random.fold_in(jax.random.fold_in(key, _DROPOUT), part)
        if self.axis_name is None:
            return key
        return jax.random.fold_in(key, jax.lax.axis_index(self.axis_name))

    def averaged(self, tree):
        """The mean over replicas."""
        return tree if self.axis_name is None else jax.lax.pmean(tree, self.axis_name)


def make_train_step(step: Step) -> Callable[[TrainState, Batch], Any]:
    """Returns `(state, batch) -> (state, metrics)`, to be compiled by the caller.

    It moves weights, and variables too unless the plan has a search.
    """
    plan = step.plan
    if plan.search:  # What they cost is the business of the search.
        step = step._replace(plan=plan._replace(budget=jaxprune.unlimited()))

    def train_step(state, batch):
        trainable = {"params": state.params, "variables": state.variables}
        grads, aux = step.gradient(trainable, state, batch)
        loss, accuracy, batch_stats, keep_ratios = aux
        grads, loss, accuracy = step.averaged((grads, loss, accuracy))
        updates, opt_state = plan.optimizer.update(grads, state.opt_state, trainable)
        trainable: Any = optax.apply_updates(trainable, updates)
        budget_state = step.plan.budget.update(keep_ratios, state.budget_state)
        average = state.average
        if plan.average:
            now = _network(trainable["params"], batch_stats)
            done = state.step - step.first_step
            average = optax.incremental_update(now, average, _share(plan.average, done))
        fine = jnp.isfinite(loss) | (state.bad_step != _FINE)
        metrics = {
            "loss": loss,
            "accuracy": accuracy,
            "keep_ratio": step.size_cost(keep_ratios),
            **{f"keep_ratio/{name}": r for name, r in keep_ratios.items()},
            **{f"threshold/{name}": v for name, v in state.variables.items()},
            **_budget_metrics(budget_state),
        }
        new_state = state._replace(
            params=trainable["params"],
            variables=trainable["variables"],
            batch_stats=batch_stats,
            opt_state=opt_state,
            budget_state=budget_state,
            average=average,
            step=state.step + 1,
            bad_step=jnp.where(fine, state.bad_step, state.step),
        )
        return new_state, metrics

    return train_step


def _network(params: Any, batch_stats: Any) -> dict[str, Any]:
    """What an average is taken of."""
    return {"params": params, "batch_stats": batch_stats}


def _share(decay: float, steps: jax.Array) -> jax.Array:
    """The share of the newest in the average: greater while there are few."""
    return 1 - jnp.minimum(decay, (1 + steps) / (10 + steps))


def make_search_step(step: Step) -> Callable[[TrainState, Batch], Any]:
    """Returns `(state, held-out batch) -> (state, metrics)`: variables move, alone.

    First order, as [DARTS]: that the weights would follow is left out. Running
    statistics stay as they are; the step is not counted.

    References:
      [DARTS] Liu, Simonyan, Yang, "DARTS: Differentiable Architecture Search", 2019,
      arXiv:1806.09055, Sec. 2.3.
    """
    search = step.plan.search
    assert search is not None

    def objective(variables, state, batch):
        trainable = {"params": state.params, "variables": variables}
        return step.objective(trainable, state, batch)

    def search_step(state, batch):
        grads, aux = jax.grad(objective, has_aux=True)(state.variables, state, batch)
        loss, accuracy, _, keep_ratios = aux
        grads, loss, accuracy = step.averaged((grads, loss, accuracy))
        updates, search_state = search.optimizer.update(
            grads, state.search_state, state.variables
        )
        if search.until_met:
            met = _is_met(state.budget_state)
            updates = jax.tree.map(lambda u: jnp.where(met, 0, u), updates)
        variables: Any = optax.apply_updates(state.variables, updates)
        # A variable that is not finite may leave the loss of the weights as it was.
        total = loss + sum(map(jnp.sum, variables.values()))
        fine = jnp.isfinite(total) | (state.bad_step != _FINE)
        new_state = state._replace(
            variables=variables,
            search_state=search_state,
            bad_step=jnp.where(fine, state.bad_step, state.step - 1),
            budget_state=step.plan.budget.update(keep_ratios, state.budget_state),
        )
        return new_state, {"held_out_loss": loss, "held_out_accuracy": accuracy}

    return search_step


def _is_met(state: AdmmState) -> jax.Array:
    """Whether every cost was at its limit or below in the last update."""
    return (state.step > 0) & jnp.all(state.cost <= state.limit)


def _budget_metrics(state: Any) -> Metrics:
    """Return the metrics of the state of a budget."""
    if isinstance(state, DualAscentState):
        return {
            "target_keep_ratio": state.limit[0],
            "log_multiplier": state.log_multiplier[0],
        }
    if isinstance(state, AdmmState):
        several = {
            "cost": state.cost,
            "limit": state.limit,
            "multiplier": state.multipliers,
        }
        return {
            "primal_residual": state.primal_residual,
            "dual_residual": state.dual_residual,
            "rho": state.rho,
            **{
                f"budget/{what}/{j}": value[j]
                for what, value in several.items()
                for j in range(len(value))
            },
        }
    return {}


def make_loss(
    model: nn.Module, batch_stats: Any, sample: Callable[[], Batch]
) -> Callable[..., jax.Array]:
    """Returns `params, temperature=1.0 -> float32`, for scores of weights.

    It is the mean cross-entropy of a sample, its logits divided by the temperature.
    It is compiled, and so are its derivatives: run op by op over several devices they
    would be many small programs that wait for each other, and on a busy machine XLA
    gives up on them.

    Args:
      model: a module called as `model(image, train=True)`.
      batch_stats: of the right shapes; batch statistics are used, not these.
      sample: `() -> batch`, called when the loss is.
    """

    @jax.jit
    def loss_of(params, batch, temperature):
        logits, _ = model.apply(
            {"params": params, "batch_stats": batch_stats},
            batch["image"],
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(_DROPOUT)},
        )
        return jnp.mean(
            optax.softmax_cross_entropy_with_integer_labels(
                logits / temperature, batch["label"]
            )
        )

    def loss(params, temperature=1.0):
        # Scores are compiled; the sample, which is kept, must be concrete all the same.
        with jax.ensure_compile_time_eval():
            batch = sample()
        return loss_of(params, batch, temperature)

    return loss


def make_count_correct(model: nn.Module) -> Callable[[Any, Any, Batch], jax.Array]:
    """Returns `(params, batch_stats, batch) -> int32 (2,)`, the correct of the valid.

    The first number counts those whose label has the largest logit, the second those
    whose label is among the five largest (top-5).
    """

    def count_correct(params, batch_stats, batch):
        variables = {"params": params, "batch_stats": batch_stats}
        logits: Any = model.apply(variables, batch["image"], train=False)
        label = batch["label"]
        own = jnp.take_along_axis(logits, label[:, None], axis=-1)
        # A logit that is not a number is before all others, never behind.
        before = jnp.sum(~(logits <= own), axis=-1)
        counts = (batch["valid"] > 0) & ~jnp.isnan(own[:, 0])
        correct = [jnp.argmax(logits, -1) == label, before < _MOST]
        return jnp.sum(jnp.stack([c & counts for c in correct]), -1, dtype=jnp.int32)

    return count_correct


def make_total_nats(model: nn.Module) -> Callable[[Any, Any, Batch], jax.Array]:
    """Returns `(params, batch_stats, batch) -> float32`, the loss of the valid, summed.

    It is the cross-entropy of all labels of the valid examples, in nats.
    """

    def total_nats(params, batch_stats, batch):
        variables = {"params": params, "batch_stats": batch_stats}
        logits: Any = model.apply(variables, batch["image"], train=False)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        each = jnp.sum(losses, axis=tuple(range(1, losses.ndim)))
        return jnp.sum(jnp.where(batch["valid"] > 0, each, 0))

    return total_nats
