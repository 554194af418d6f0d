"""A method as one value, what it knows of a run, and how a phase then trains."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import optax

import jaxprune
from experiments.plans.channels import Channels
from experiments.plans.fields import COUNT, FRACTION, LIMIT, Field, Fields, at_least

Config = Any
"""A `ConfigDict` with the fields of `configs/default.py`; they have no static types."""

Loss = Callable[..., jax.Array]
"""`params, temperature=1.0` to the loss of a sample; see `steps.make_loss`."""


class Task(NamedTuple):
    """What a method knows of the run.

    Attributes:
      params: the parameters, possibly abstract.
      first_step: the step of the run at which the phase begins.
      steps: the number of steps of the phase.
      steps_per_epoch: steps.
      loss: of a sample of the training data, as a function of the parameters.
      channels: the channels of the network, if they are what is pruned.
      judge: `params, batch_stats -> score` on the held-out data, more is better: the
        accuracy, of texts less their bits per byte; on the training data if none is
        held out.
      sample: `() -> batch`, the sample of the loss.
    """

    params: Any
    first_step: int
    steps: int
    steps_per_epoch: int
    loss: Loss
    channels: Channels | None
    judge: Callable[[Any, Any], float]
    sample: Callable[[], dict[str, jax.Array]]


class Search(NamedTuple):
    """How variables are learned apart from the weights, on held-out data.

    Attributes:
      optimizer: moves the variables.
      every: steps of the weights for one of the variables.
      until_met: whether the variables stand still once every limit is met.
    """

    optimizer: optax.GradientTransformation
    every: int
    until_met: bool = False


class Plan(NamedTuple):
    """How one phase of a run trains.

    Attributes:
      pruner: from the weights to those that the network computes with.
      budget: what it may cost.
      optimizer: moves `{"params": ..., "variables": ...}`.
      search: if given, the optimizer leaves the variables alone, and they are learned
        on held-out data.
      allocate: of a method that prunes channels, `state -> {group: bool mask}`, called
        when the pruning phase ends; the state has `params`, `variables` and
        `batch_stats`.
      masks_are_soft: whether weights are multiplied with soft masks, in whose band
        thresholds are learned.
      average: the decay of the average of weights and statistics, which is what is
        measured and left to the next phase; 0 for none.
    """

    pruner: jaxprune.Pruner | jaxprune.ChannelPruner
    budget: jaxprune.Budget
    optimizer: optax.GradientTransformation
    search: Search | None = None
    allocate: Callable[[Any], dict[str, Any]] | None = None
    masks_are_soft: bool = False
    average: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """A method: what a config and the tables need to know of it.

    Attributes:
      title: its name in tables, as papers write it.
      full_title: its name in full, for the page of a run.
      plan: `config, task -> Plan`, how the pruning phase trains; its name is that of
        the method in `summary.json`. None if nothing is pruned.
      fields: those that only this method reads; they are `config.method`.
      budget: the fields of `config.budget`, that is `WEIGHTS` or `CHANNELS`.
    """

    title: str
    full_title: str
    plan: Callable[[Config, Task], Plan] | None
    fields: Fields = dataclasses.field(default_factory=dict)
    budget: Fields = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the method in `summary.json`."""
        return "dense" if self.plan is None else self.plan.__name__


WEIGHTS: Fields = {
    "sparsity": Field(
        0.95, "Fraction of the weights that are zero at the end.", FRACTION
    )
}
"""The budget of methods that prune single weights."""

LIMITS = ("macs", "parameters", "bytes", "latency")

CHANNELS: Fields = {
    "macs": Field(None, "Multiplications, at most this fraction of dense.", LIMIT),
    "parameters": Field(None, "Parameters, at most this fraction of dense.", LIMIT),
    "bytes": Field(None, "Bytes moved, at most this fraction of dense.", LIMIT),
    "latency": Field(None, "Seconds on this machine, as a fraction of dense.", LIMIT),
    "latency_batch": Field(64, "Images in a call that is timed.", COUNT),
    "latency_widths": Field(
        24, "Compact networks that are timed, before training.", at_least(4)
    ),
    "channel_multiple": Field(1, "Numbers of channels are multiples of this.", COUNT),
}
"""The budget of methods that prune channels."""

WEIGHT_FIELDS: Fields = {
    "min_keep_ratio": Field(1e-3, "What every layer keeps at minimum.", FRACTION),
    "trail_every": Field(5, "Steps between looks for a point of the trail.", COUNT),
}
"""What every method reads that prunes single weights."""

SAMPLE: Fields = {
    "score_batches": Field(8, "Batches of the loss that scores come from.", COUNT),
}
"""What methods read that score by a sample of the data."""


def prunes_channels(method: Method) -> bool:
    """Whether the budget of a method limits what channels cost."""
    return method.budget is CHANNELS


def channel_limits(config: Config) -> dict[str, float]:
    """The limits on the costs of channels, by name; empty if weights are pruned."""
    found = {name: config.budget.get(name) for name in LIMITS}
    # A limit of 1 is none; so one in a config can be lifted on the command line.
    return {name: limit for name, limit in found.items() if limit not in (None, 1)}


def no_budget(config: Config) -> ValueError:
    """The error of a method that prunes channels and has no limit."""
    return ValueError(
        f"`config.plan={config.plan.name}` prunes channels and needs a budget: set "
        "`config.budget.macs`, `config.budget.parameters` or `config.budget.bytes`, "
        "for instance `--config.budget.macs=0.5`."
    )


def target_keep_ratio(config: Config) -> float | None:
    """The keep ratio to finalize to, or None where none is the target."""
    method: Mapping[str, Any] = config.method
    free = ("penalty_weight", "final_threshold")
    if "sparsity" not in config.budget or any(
        method.get(name) is not None for name in free
    ):
        return None
    return jaxprune.masks.keep_ratio_of(config.budget.sparsity)


def check_feasible(config: Config, keep_ratio: float | None, params: Any) -> None:
    """Raise ValueError, before any training, if a target cannot be met."""
    if keep_ratio is not None:
        jax.eval_shape(
            lambda p: jaxprune.global_magnitude(
                sparsity=config.budget.sparsity,
                min_keep_ratio=config.method.min_keep_ratio,
            ).masks(p, {}),
            params,
        )
