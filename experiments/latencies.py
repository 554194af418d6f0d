"""Measured latency as a limit of a run: measured before training, kept with the run.

What was measured decides what is pruned; so it is measured once, and a run that goes on
reads it from its workdir.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from experiments.channels import Channels
from experiments.files import write_atomically
from jaxprune import costs, latency

LATENCY_FILE = "latency.json"

_PRICES = ("constant", "per_mac", "per_byte")


def with_latency(traced: Channels, config: Any, workdir: Path) -> Channels:
    """Adds the cost `latency`: what an earlier call measured for the run, or new.

    Args:
      traced: the channels of the network.
      config: of the run; `latency_batch`, `latency_widths`, `channel_multiple` and
        `seed` count.
      workdir: the folder of the run.

    Raises:
      ValueError: if `config.latency_batch` or `config.latency_widths` is too small.
    """
    for field, least in (("latency_batch", 1), ("latency_widths", 4)):
        if config[field] < least:
            raise ValueError(
                f"`config.{field}={config[field]}` must be at least {least}."
            )
    path = workdir / LATENCY_FILE
    found = json.loads(path.read_text()) if path.exists() else None
    prices = found or _measure(traced, config)
    cost = latency.LatencyCost(
        **{name: prices[name] for name in _PRICES},
        macs=costs.macs(traced.graph),
        bytes_moved=costs.bytes_moved(traced.graph),
    )
    return dataclasses.replace(traced, costs={**traced.costs, "latency": cost})


def save(traced: Channels | None, workdir: Path) -> None:
    """Writes what was measured beside the run, if anything was."""
    cost = None if traced is None else traced.costs.get("latency")
    if jax.process_index() or not isinstance(cost, latency.LatencyCost):
        return
    prices = {name: getattr(cost, name) for name in _PRICES}
    found = {**prices, "dense": cost.dense, "unit": "seconds"}
    write_atomically(workdir / LATENCY_FILE, json.dumps(found, indent=2) + "\n")


def _measure(traced: Channels, config: Any) -> dict[str, float]:
    """The prices on this machine; on that of the first process, if there are more."""
    found = np.zeros(len(_PRICES))
    if jax.process_index() == 0:
        blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), traced.blank)
        cost = latency.fit(
            traced.graph,
            latency.measure(
                traced.apply_fn,
                traced.graph,
                {"params": blank[0], "batch_stats": blank[1]},
                jnp.zeros((config.latency_batch, *traced.example.shape[1:])),
                keep_ratios=latency.random_keep_ratios(
                    jax.random.key(config.seed), traced.graph, config.latency_widths
                ),
                multiple_of=config.channel_multiple,
            ),
        )
        found = np.array([getattr(cost, name) for name in _PRICES])
    if jax.process_count() > 1:
        # In nanoseconds: they travel in single precision.
        found = multihost_utils.broadcast_one_to_all(found * 1e9) / 1e9
    return dict(zip(_PRICES, np.asarray(found, float).tolist(), strict=True))
