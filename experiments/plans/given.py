"""Numbers of channels that are given: those of another run, or equal widths."""

import itertools
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

import jaxprune
from experiments.logging.files import read_json
from experiments.plans.allocation import (
    IMPORTANCES,
    Counts,
    channels_of,
    uniform_counts,
)
from experiments.plans.channels import Masks
from experiments.plans.dsa import SHARPNESS, sharpness_of
from experiments.plans.fields import Field
from experiments.plans.method import CHANNELS, Config, Method, Plan, Task
from experiments.plans.optimizers import (
    pruning_learning_rate,
    weights_optimizer,
    with_variables,
)
from jaxprune import channels

CROSSED = tuple(
    itertools.product(
        ("uniform", "dsa"), ("filter_norm", "norm_scale"), ("plain", "gated")
    )
)
"""Whose numbers of channels, by which ranking, trained how: all combinations."""


def given(config: Config, task: Task) -> Plan:
    """Numbers of channels that are given; ranking and training are free.

    It tells apart what a method gains by its numbers, by its ranking and by its
    training. `allocation` is the folder of a finished run whose numbers are taken, the
    file of a cell of `seeds`, or empty for equal widths; `importance` ranks the
    channels of a group; with `gated` the weights are trained under the gates of DSA at
    these keep ratios, else without.
    """
    known = channels_of(config, task)
    counts = _given_counts(config, task)
    importance = IMPORTANCES[config.method.importance](known.graph)
    scores_of = jax.jit(importance)

    def allocate(state: Any) -> Masks:
        return channels.important_channels(known.graph, scores_of(state.params), counts)

    pruner = jaxprune.identity()
    if config.method.gated:
        pruner = jaxprune.dsa(
            known.graph,
            importance=importance,
            sharpness=sharpness_of(config, task),
            floor=config.method.keep_floor,
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
        optimizer=with_variables(weights, optax.set_to_zero()),
        allocate=allocate,
    )


def _logit(ratio: float) -> float:
    ratio = min(ratio, 0.999)
    return math.log(ratio / (1 - ratio))


def _given_counts(config: Config, task: Task) -> Counts:
    """The numbers of channels of `config.method.allocation`."""
    if not config.method.allocation:
        return uniform_counts(config, task)
    kept = _kept_channels(Path(config.method.allocation), config.seed)
    groups = channels_of(config, task).graph.groups
    if not kept or kept.keys() != groups.keys():
        raise ValueError(
            f"`config.method.allocation={config.method.allocation!r}` must be the "
            "folder of a finished run that pruned channels of the same network, or the "
            f"file of a cell that holds seed {config.seed}."
        )
    return kept


def _kept_channels(path: Path, seed: int) -> Counts | None:
    """The numbers of channels of a run or, of the file of a cell, of one seed."""
    if path.is_file():
        rows = {row["seed"]: row for row in read_json(path)["rows"]}
        layers = rows.get(seed, {}).get("layers", {})
        return {name: layer["kept"] for name, layer in layers.items()}
    path /= "summary.json"
    kept = read_json(path)["channels"] if path.exists() else None
    return kept and {name: len(indices) for name, indices in kept.items()}


GIVEN = Method(
    title="Given widths",
    full_title="Given numbers of channels",
    plan=given,
    fields={
        **SHARPNESS,
        "allocation": Field("", "Run or cell whose widths are taken."),
        "gated": Field(False, "Whether weights are trained under gates."),
    },
    budget=CHANNELS,
)
