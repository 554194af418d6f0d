"""What methods for channels share: limits, whole numbers, and a decision at the end.

All see the same groups, are held to the same limits and end the same way: numbers of
channels that meet the budget exactly, the most important channels of each group, and a
compact network that is fine-tuned. They differ in how the numbers are found.
"""

from collections.abc import Callable, Mapping
from typing import Any

import optax

import jaxprune
from experiments.plans.channels import Channels, Masks
from experiments.plans.method import Config, Plan, Task, channel_limits, no_budget
from jaxprune import channels

Counts = dict[str, int]

IMPORTANCES = {
    "norm_scale": channels.norm_scales,
    "filter_norm": channels.filter_norms,
    "filter_norm_and_scale": channels.filter_norms_and_scales,
}
"""What can stand for the importance of channels, by name."""


def channels_of(config: Config, task: Task) -> Channels:
    """The channels of the network.

    Raises:
      ValueError: if no limit is set, so that none were traced.
    """
    if task.channels is None:
        raise no_budget(config)
    return task.channels


def limits_of(config: Config, task: Task) -> list[jaxprune.Limit]:
    """The limits of the config on the costs of the network."""
    return channels_of(config, task).limits(channel_limits(config))


def rounded(config: Config, task: Task, ratios: Mapping[str, float]) -> Counts:
    """Numbers of channels near these ratios, within the limits."""
    return channels.round_to_limits(
        channels_of(config, task).graph,
        ratios,
        limits_of(config, task),
        multiple_of=config.budget.channel_multiple,
    )


def uniform_counts(config: Config, task: Task) -> Counts:
    """The numbers of channels of equal widths."""
    graph = channels_of(config, task).graph
    ratio = channels.uniform_ratio(graph, limits_of(config, task))
    return rounded(config, task, dict.fromkeys(graph.groups, ratio))


def trained_already(allocate: Callable[[Any], Masks]) -> Plan:
    """Moves no weight: the phase is there for the decision at its end."""
    return Plan(
        pruner=jaxprune.identity(),
        budget=jaxprune.unlimited(),
        optimizer=optax.set_to_zero(),
        allocate=allocate,
    )
