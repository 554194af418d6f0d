"""Equal widths by norms or activations, one ranking of all channels, and depth."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.plans.allocation import (
    channels_of,
    limits_of,
    rounded,
    trained_already,
    uniform_counts,
)
from experiments.plans.channels import Masks
from experiments.plans.method import (
    CHANNELS,
    SAMPLE,
    Config,
    Method,
    Plan,
    Task,
    channel_limits,
)
from jaxprune import channels
from jaxprune.calibration import activation_norms, calibrate
from jaxprune.channels._allocation import largest


def uniform(config: Config, task: Task) -> Plan:
    """The same keep ratio in every group; filters with the largest norm stay."""
    known = channels_of(config, task)
    norms_of = jax.jit(channels.filter_norms(known.graph))

    def allocate(state: Any) -> Masks:
        scores = norms_of(state.params)
        counts = uniform_counts(config, task)
        return channels.important_channels(known.graph, scores, counts)

    return trained_already(allocate)


def activation(config: Config, task: Task) -> Plan:
    """The same keep ratio in every group; channels with large activations stay.

    An activation is what the layers that read a channel multiply, on the sample.

    References:
      Muralidharan et al., "Compact Language Models via Pruning and Knowledge
      Distillation", NeurIPS 2024, arXiv:2407.14679, Sec. 2.2.
    """
    graph = channels_of(config, task).graph

    def allocate(state: Any) -> Masks:
        network = {"params": state.params, "batch_stats": state.batch_stats}
        sample = task.sample()["image"]
        seen = calibrate(graph.functions["eval"].apply_fn, network, [sample])
        norms = channels.filter_norms(graph)  # of heads that no product reads
        scores = activation_norms(graph, seen, otherwise=norms)(state.params)
        counts = uniform_counts(config, task)
        return channels.important_channels(graph, scores, counts)

    return trained_already(allocate)


def depth(config: Config, task: Task) -> Plan:
    """Whole residual branches go, those without which the loss changes least.

    To first order: |dL / dm| at m = 1, with m the factor of a branch, on the sample.
    Layers that are stacked under a scan go one by one.
    """
    known = channels_of(config, task).with_blocks()
    limits = known.limits(channel_limits(config))
    gates = {n: jnp.ones(block.layers) for n, block in known.graph.blocks.items()}
    # Refuses now what could not be met after all the training.
    channels.important_layers(known.graph, gates, limits)
    gated = known.graph.gated(function="eval")

    @jax.jit
    def loss(gates, network, batch):
        logits = gated(network, gates, batch["image"])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        return jnp.mean(losses)

    def allocate(state: Any) -> Masks:
        network = {"params": state.params, "batch_stats": state.batch_stats}
        found = jax.grad(loss)(gates, network, task.sample())
        scores = jax.device_get(jax.tree.map(jnp.abs, found))
        return channels.important_layers(known.graph, scores, limits)

    return trained_already(allocate)


def filter_norm(config: Config, task: Task) -> Plan:
    """One ranking of all channels, by the L1 norm of their filters.

    Norms are divided by the mean of their group: what an initialisation makes of the
    size of filters, and normalisation undoes, must not decide between groups.
    """
    norms_of = channels.filter_norms(channels_of(config, task).graph)

    def relative(params):
        return {name: norm / norm.mean() for name, norm in norms_of(params).items()}

    return _ranked(config, task, relative)


def norm_scale(config: Config, task: Task) -> Plan:
    """One ranking of all channels, by the scale of their batch normalisation."""
    known = channels_of(config, task)
    return _ranked(config, task, channels.norm_scales(known.graph))


def _ranked(config: Config, task: Task, scores_of: channels.Importance) -> Plan:
    scores_of = jax.jit(scores_of)

    def allocate(state: Any) -> Masks:
        scores = {n: np.asarray(x) for n, x in scores_of(state.params).items()}
        everything = np.sort(np.concatenate(list(scores.values())))
        known = channels_of(config, task)
        limits = limits_of(config, task)

        def ratios(share: float) -> dict[str, float]:
            least = everything[-max(round(share * len(everything)), 1)]
            return {
                name: max(float(np.mean(x >= least)), 1 / len(x))
                for name, x in scores.items()
            }

        def fits(share: float) -> bool:
            return all(one.cost(ratios(share)) <= one.at_most for one in limits)

        share = largest(fits, 0.0, 1.0)
        counts = rounded(config, task, ratios(share))
        return channels.important_channels(known.graph, scores, counts)

    return trained_already(allocate)


UNIFORM = Method(
    title="Uniform",
    full_title="Uniform channel pruning",
    plan=uniform,
    budget=CHANNELS,
)

ACTIVATION = Method(
    title="Activations",
    full_title="Uniform channel pruning by activations",
    plan=activation,
    fields=SAMPLE,
    budget=CHANNELS,
)

DEPTH = Method(
    title="Depth",
    full_title="Pruning of whole residual branches",
    plan=depth,
    fields=SAMPLE,
    budget=CHANNELS,
)

FILTER_NORM = Method(
    title="Filter norms",
    full_title="Channel pruning by the size of filters",
    plan=filter_norm,
    budget=CHANNELS,
)

NORM_SCALE = Method(
    title="Norm scales",
    full_title="Channel pruning by the scale of norms",
    plan=norm_scale,
    budget=CHANNELS,
)
