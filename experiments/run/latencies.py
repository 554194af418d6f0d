"""Measured latency as a limit of a run: measured before training, kept with the run.

What was measured decides what is pruned; so it is measured once, by the first process,
and a run that goes on reads it from its workdir.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from experiments.logging.files import read_json, write_atomically
from experiments.plans.channels import Channels, trace_both
from experiments.run.workdir import LATENCY_FILE
from jaxprune import costs

_SLOPES = ("constant", "per_mac", "per_byte")


def with_latency(traced: Channels, config: Any, workdir: Path) -> Channels:
    """Adds the cost `latency`: what an earlier call measured for the run, or new."""
    # Traced with as many images as are timed: weights are moved once for all of them.
    shape = (config.budget.latency_batch, *traced.example.shape[1:])
    images = jax.ShapeDtypeStruct(shape, traced.example.dtype)
    tree = {"params": traced.blank[0], "batch_stats": traced.blank[1]}
    graph = trace_both(traced.model, tree, images)
    found = np.zeros(len(_SLOPES))
    if jax.process_index() == 0:
        path = workdir / LATENCY_FILE
        if path.exists():
            slopes = read_json(path)
        else:
            cost = _measure(traced, graph, images, config)
            slopes = {name: getattr(cost, name) for name in _SLOPES}
            kept = {**slopes, "dense": cost.dense, "unit": "seconds"}
            # At once: measuring takes minutes, and the run may be killed before it
            # begins.
            write_atomically(path, json.dumps(kept, indent=2) + "\n")
        found = np.array([slopes[name] for name in _SLOPES])
    if jax.process_count() > 1:
        # In nanoseconds: they travel in single precision.
        found = np.asarray(multihost_utils.broadcast_one_to_all(found * 1e9)) / 1e9
    cost = costs.LatencyCost(
        **dict(zip(_SLOPES, found.astype(float).tolist(), strict=True)),
        macs=costs.macs(graph),
        bytes_moved=costs.bytes_moved(graph),
    )
    return dataclasses.replace(traced, costs={**traced.costs, "latency": cost})


def _measure(traced: Channels, graph, images, config: Any) -> costs.LatencyCost:
    """Times compact networks of random widths, and fits."""
    blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), traced.blank)
    widths = costs.random_keep_ratios(
        jax.random.key(config.seed), graph, config.budget.latency_widths
    )
    measured = costs.measure(
        graph,
        {"params": blank[0], "batch_stats": blank[1]},
        jnp.zeros(images.shape, images.dtype),
        keep_ratios=widths,
        multiple_of=config.budget.channel_multiple,
    )
    return costs.fit(graph, measured)
