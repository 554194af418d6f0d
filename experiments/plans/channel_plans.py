"""Plans of the methods that prune channels to a budget; see `plans`.

All see the same groups, are held to the same limits and end the same way: numbers of
channels that meet the budget exactly, the most important channels of each group, and a
compact network that is fine-tuned. They differ in how the numbers are found:

- `dsa`: by gradients, while the weights are trained;
- `dsa_as_published`: the same by the paper's own alternation;
- `uniform`: the same keep ratio everywhere;
- `filter_norm`, `norm_scale`: one ranking of all channels;
- `group_lasso` (SSL), `morphnet`: what a penalty on whole channels leaves;
- `evolution` (in the manner of AMC): trial and error on held-out data;
- `given`: they are those of another run, or equal widths.
"""

import functools
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np
import optax

import jaxprune
from experiments.plans.channels import Channels, Masks
from experiments.plans.penalties import channel_norms, shrink_channels
from experiments.plans.weight_plans import (
    Config,
    Task,
    channel_budget,
    pruning_learning_rate,
    weights_optimizer,
)
from experiments.run.steps import Plan, Search, TrainState
from jaxprune import budgets, channels, transforms
from jaxprune.channels._allocation import largest
from jaxprune.methods import sharpness_schedule

Counts = dict[str, int]

_IMPORTANCES = {
    "norm_scale": channels.norm_scales,
    "filter_norm": channels.filter_norms,
    "filter_norm_and_scale": channels.filter_norms_and_scales,
}


def dsa(config: Config, task: Task) -> Plan:
    """Differentiable sparsity allocation, held to the budget by ADMM."""
    known = _channels(config, task)
    rounds = max(task.steps // config.ratio_every, 1)
    begin, end = round(config.ramp_begin * rounds), round(config.ramp_end * rounds)
    asked = channel_budget(config)
    budget = budgets.admm(
        [
            jaxprune.at_most(
                known.costs[name], limit, ramp=(begin, max(end, 1)), name=name
            )
            for name, limit in asked.items()
        ],
        min_keep_ratio={n: 1 / g.size for n, g in known.graph.groups.items()},
    )
    # A short memory of squares: multipliers rise by orders of magnitude on the way.
    optimizer = optax.adam(config.ratio_learning_rate, b2=0.99)
    search = Search(optimizer, config.ratio_every)
    return _allocated(config, task, _sharpness(config, task), budget, search)


def dsa_as_published(config: Config, task: Task) -> Plan:
    """Differentiable sparsity allocation in every published detail that is known.

    The sharpness grows once an epoch, the limits are constant, the multipliers are
    those of the paper, and SGD moves the logits: downwards only, until the limits are
    met.
    """
    known = _channels(config, task)
    budget = budgets.admm_as_published(
        [
            jaxprune.at_most(known.costs[name], limit, name=name)
            for name, limit in channel_budget(config).items()
        ]
    )
    optimizer = optax.chain(
        transforms.non_negative_gradients(), optax.sgd(config.ratio_learning_rate)
    )
    search = Search(optimizer, config.ratio_every, until_met=True)
    sharpness = _sharpness(config, task, every=task.steps_per_epoch)
    return _allocated(config, task, sharpness, budget, search)


def _allocated(
    config: Config,
    task: Task,
    sharpness: optax.Schedule,
    budget: jaxprune.Budget,
    search: Search,
) -> Plan:
    """Train weights under gates, and keep ratios apart from them on held-out data."""
    known = _channels(config, task)
    pruner = jaxprune.dsa(
        known.graph,
        importance=_IMPORTANCES[config.importance](known.graph),
        sharpness=sharpness,
        floor=config.keep_floor,
        init_logit=config.init_logit,
    )
    weights = weights_optimizer(config, pruning_learning_rate(config, task))

    def allocate(state: TrainState) -> Masks:
        ratios = {n: float(jax.nn.sigmoid(v)) for n, v in state.variables.items()}
        counts = _rounded(config, task, ratios)
        return pruner.masks(state.params, state.variables, counts=counts)

    return Plan(
        pruner=pruner,
        budget=budget,
        optimizer=_of_weights(weights),
        search=search,
        allocate=allocate,
    )


def _of_weights(weights: optax.GradientTransformation) -> optax.GradientTransformation:
    """Trains the weights; the search trains the keep ratios, or nothing does."""
    return optax.partition(
        {"weights": weights, "ratios": optax.set_to_zero()},
        {"params": "weights", "variables": "ratios"},
    )


def uniform(config: Config, task: Task) -> Plan:
    """The same keep ratio in every group; filters with the largest norm stay."""
    known = _channels(config, task)
    norms_of = jax.jit(channels.filter_norms(known.graph))

    def allocate(state: TrainState) -> Masks:
        scores = norms_of(state.params)
        counts = _uniform_counts(config, task)
        return channels.important_channels(known.graph, scores, counts)

    return _trained_already(allocate)


def given(config: Config, task: Task) -> Plan:
    """Numbers of channels that are given; ranking and training are free.

    It tells apart what a method gains by its numbers, by its ranking and by its
    training. `allocation` is the folder of a finished run whose numbers are taken, or
    empty for equal widths; `importance` ranks the channels of a group; with `gated` the
    weights are trained under the gates of DSA at these keep ratios, else without.
    """
    known = _channels(config, task)
    counts = _given_counts(config, task)
    importance = _IMPORTANCES[config.importance](known.graph)
    scores_of = jax.jit(importance)

    def allocate(state: TrainState) -> Masks:
        return channels.important_channels(known.graph, scores_of(state.params), counts)

    pruner = jaxprune.identity()
    if config.gated:
        pruner = jaxprune.dsa(
            known.graph,
            importance=importance,
            sharpness=_sharpness(config, task),
            floor=config.keep_floor,
        )
        logits = {
            name: np.float32(_logit(count / known.graph.groups[name].size))
            for name, count in counts.items()
        }
        pruner = pruner._replace(init=lambda params: logits)
    weights = weights_optimizer(config, pruning_learning_rate(config, task))
    return Plan(
        pruner=pruner,
        budget=jaxprune.unlimited(),
        optimizer=_of_weights(weights),
        allocate=allocate,
    )


def _logit(ratio: float) -> float:
    ratio = min(ratio, 0.999)
    return math.log(ratio / (1 - ratio))


def _given_counts(config: Config, task: Task) -> Counts:
    """The numbers of channels of `config.allocation`."""
    if not config.allocation:
        return _uniform_counts(config, task)
    path = Path(config.allocation) / "summary.json"
    kept = json.loads(path.read_text())["channels"] if path.exists() else None
    groups = _channels(config, task).graph.groups
    if not kept or kept.keys() != groups.keys():
        raise ValueError(
            f"`config.allocation={config.allocation!r}` must be the folder of a "
            "finished run that pruned channels of the same network."
        )
    return {name: len(indices) for name, indices in kept.items()}


def _uniform_counts(config: Config, task: Task) -> Counts:
    """The numbers of channels of equal widths."""
    known = _channels(config, task)
    ratio = channels.uniform_ratio(known.graph, known.limits(channel_budget(config)))
    return _rounded(config, task, dict.fromkeys(known.graph.groups, ratio))


def filter_norm(config: Config, task: Task) -> Plan:
    """One ranking of all channels, by the L1 norm of their filters.

    Norms are divided by the mean of their group: what an initialisation makes of the
    size of filters, and normalisation undoes, must not decide between groups.
    """
    norms_of = channels.filter_norms(_channels(config, task).graph)

    def relative(params):
        return {name: norm / norm.mean() for name, norm in norms_of(params).items()}

    return _ranked(config, task, relative)


def norm_scale(config: Config, task: Task) -> Plan:
    """One ranking of all channels, by the scale of their batch normalisation."""
    known = _channels(config, task)
    return _ranked(config, task, channels.norm_scales(known.graph))


def _ranked(config: Config, task: Task, scores_of: channels.Importance) -> Plan:
    scores_of = jax.jit(scores_of)

    def allocate(state: TrainState) -> Masks:
        scores = {n: np.asarray(x) for n, x in scores_of(state.params).items()}
        everything = np.sort(np.concatenate(list(scores.values())))
        known = _channels(config, task)
        limits = known.limits(channel_budget(config))

        def ratios(share: float) -> dict[str, float]:
            least = everything[-max(round(share * len(everything)), 1)]
            return {
                name: max(float(np.mean(x >= least)), 1 / len(x))
                for name, x in scores.items()
            }

        def fits(share: float) -> bool:
            return all(one.cost(ratios(share)) <= one.at_most for one in limits)

        share = largest(fits, 0.0, 1.0)
        counts = _rounded(config, task, ratios(share))
        return channels.important_channels(known.graph, scores, counts)

    return _trained_already(allocate)


def group_lasso(config: Config, task: Task) -> Plan:
    """SSL: a penalty on the norm of each channel's filters and scales.

    References:
      Wen et al., "Learning Structured Sparsity in Deep Neural Networks", NeurIPS 2016,
      arXiv:1608.03665.
    """
    return _penalised(config, task, dict.fromkeys(_groups(config, task), 1.0))


def morphnet(config: Config, task: Task) -> Plan:
    """MorphNet: the penalty on a channel is what it costs; then uniform expansion.

    The penalty of a group is the derivative of the first cost of the budget in its keep
    ratio, per channel. As all scales of a group are removed together, they are
    penalised together, by their norm.

    References:
      Gordon et al., "MorphNet: Fast & Simple Resource-Constrained Structure Learning of
      Deep Networks", CVPR 2018, arXiv:1711.06798.
    """
    known = _channels(config, task)
    cost = known.costs[next(iter(channel_budget(config)))]
    groups = known.graph.groups
    per_ratio = {n: cost({n: 1.0}) - cost({n: 0.0}) for n in groups}
    per_channel = {n: per_ratio[n] / groups[n].size for n in groups}
    mean = sum(per_channel.values()) / len(per_channel)
    weights = {n: float(slope / mean) for n, slope in per_channel.items()}
    return _penalised(config, task, weights, scales_only=True)


def _penalised(
    config: Config, task: Task, weights: Mapping[str, float], scales_only: bool = False
) -> Plan:
    """Trains under a penalty; what is left, scaled by one factor, is the allocation."""
    known = _channels(config, task)
    rate = pruning_learning_rate(config, task)
    strengths = {n: config.channel_penalty * weight for n, weight in weights.items()}
    norms_of = jax.jit(channel_norms(known.graph, scales_only=scales_only))
    optimizer = optax.chain(
        weights_optimizer(config, rate),
        optax.masked(
            shrink_channels(known.graph, strengths, rate, scales_only=scales_only),
            {"params": True, "variables": False},
        ),
    )

    def allocate(state: TrainState) -> Masks:
        norms = {
            n: np.asarray(x) for n, x in norms_of({"params": state.params}).items()
        }
        left = {n: max(float(np.mean(x > 0)), 1 / len(x)) for n, x in norms.items()}
        if config.round_to_budget:
            counts = _rounded(config, task, left)
        else:
            counts = {n: round(left[n] * len(x)) for n, x in norms.items()}
        return channels.important_channels(known.graph, norms, counts)

    return Plan(
        pruner=jaxprune.identity(),
        budget=jaxprune.unlimited(),
        optimizer=optimizer,
        allocate=allocate,
    )


def evolution(config: Config, task: Task) -> Plan:
    """Trial and error: changed keep ratios stay if the pruned network is no worse.

    The task of AMC with a (1 + 1) evolution strategy in place of its agent: each trial
    multiplies the ratios of a third of the groups by random factors, is rounded to the
    budget, and judged on held-out data without training.

    References:
      He et al., "AMC: AutoML for Model Compression and Acceleration on Mobile Devices",
      ECCV 2018, arXiv:1802.03494.
    """
    known = _channels(config, task)
    plan = channels.plan_gates(known.graph)
    gated = jax.jit(functools.partial(channels.apply_gates, plan))
    norms_of = jax.jit(channels.filter_norms(known.graph))

    def allocate(state: TrainState) -> Masks:
        rng = np.random.default_rng(config.seed)
        scores = norms_of(state.params)
        limits = known.limits(channel_budget(config))
        names = list(known.graph.groups)

        def judged(ratios):
            counts = _rounded(config, task, ratios)
            masks = channels.important_channels(known.graph, scores, counts)
            gates = {n: mask.astype(np.float32) for n, mask in masks.items()}
            return task.judge(gated(state.params, gates), state.batch_stats), masks

        best = dict.fromkeys(names, channels.uniform_ratio(known.graph, limits))
        accuracy, masks = judged(best)
        for _ in range(config.trials):
            chosen = rng.random(len(names)) < 1 / 3
            factors = np.where(chosen, np.exp(0.4 * rng.normal(size=len(names))), 1)
            ratios = {
                n: min(best[n] * factor, 1.0)
                for n, factor in zip(names, factors.tolist(), strict=True)
            }
            found, tried = judged(ratios)
            if found >= accuracy:
                best, accuracy, masks = ratios, found, tried
        return masks

    return _trained_already(allocate)


def _trained_already(allocate: Callable[[TrainState], Masks]) -> Plan:
    """Moves no weight: the phase is there for the decision at its end."""
    return Plan(
        pruner=jaxprune.identity(),
        budget=jaxprune.unlimited(),
        optimizer=optax.set_to_zero(),
        allocate=allocate,
    )


def _channels(config: Config, task: Task) -> Channels:
    if task.channels is None:
        raise ValueError(
            f"`config.plan={config.plan.__name__}` prunes channels and needs a budget: "
            "set `config.budget.macs`, `config.budget.parameters` or "
            "`config.budget.bytes`, for instance `--config.budget.macs=0.5`."
        )
    return task.channels


def _groups(config: Config, task: Task) -> list[str]:
    return list(_channels(config, task).graph.groups)


def _rounded(config: Config, task: Task, ratios: Mapping[str, float]) -> Counts:
    known = _channels(config, task)
    return channels.round_to_limits(
        known.graph,
        ratios,
        known.limits(channel_budget(config)),
        multiple_of=config.channel_multiple,
    )


def _sharpness(config: Config, task: Task, every: int = 1) -> optax.Schedule:
    """`config.sharpness`, multiplied by `config.sharpness_growth` every epoch."""
    epochs = max(task.steps, 1) / task.steps_per_epoch
    return sharpness_schedule(
        max(task.steps, 1),
        initial=config.sharpness,
        final=config.sharpness * config.sharpness_growth**epochs,
        every=every,
    )
