"""Compact networks on disk: smaller trees, and which channels they are of.

One process prunes and saves; another, which has the code of the dense network and
nothing else, loads and goes on:

    save_compact("runs/1", step, small.masks, params, opt_state)

    graph = trace_channels(apply_fn, abstract_params, images)
    small = load_compact(latest("runs/1"), graph, abstract_params, abstract_opt_state)
    params, opt_state = small.trees
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxprune.channels._compaction import Compacted
from jaxprune.channels._graph import ChannelGraph
from jaxprune.io._checkpoint import Entry, load, read_entry, save

_CHANNELS = "channels"


def save_compact(
    directory: str | Path,
    step: int,
    masks: Mapping[str, Any],
    *trees: Any,
    metadata: dict[str, Any] | None = None,
) -> Path:
    """Save trees of a compact network as `directory/<step>`, with its channels.

    Args:
      directory: where the checkpoints are; made if needed.
      step: not negative.
      masks: which channels are left, bool of shape (channels,) for every group of the
        graph: `Compacted.masks`.
      *trees: trees of the compact network, as they are now: parameters, statistics, the
        state of an optimizer, all that `save` takes.
      metadata: JSON values to store beside them; `channels` is taken.

    Returns:
      The folder.

    Raises:
      ValueError: as `save`, and if `metadata` has a key `channels`.
      TypeError: if a mask is not boolean, or as `save`.
      OSError: as `save`.

    Examples:
      >>> import tempfile
      >>> import jax, jax.numpy as jnp
      >>> from jaxprune.channels import trace_channels
      >>> from jaxprune.io import latest
      >>> mlp = lambda params, x: jnp.tanh(x @ params["w1"]) @ params["w2"]
      >>> params = {"w1": jnp.ones((3, 4)), "w2": jnp.ones((4, 2))}
      >>> graph = trace_channels(mlp, params, jnp.ones((1, 3)))
      >>> small = graph.compact({"w1:1": np.arange(4) < 3}, params)
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     folder = save_compact(directory, 1, small.masks, *small.trees)
      ...     blank = jax.eval_shape(lambda: params)
      ...     again = load_compact(latest(directory), graph, blank)
      >>> again.trees[0]["w1"].shape, again.widths
      ((3, 3), {'w1:1': 3})
    """
    if metadata and _CHANNELS in metadata:
        raise ValueError(
            f"`save_compact(metadata={{{_CHANNELS!r}: ...}})`: the key must be "
            "another; this one holds the masks."
        )
    channels = {}
    for name, mask in masks.items():
        mask = np.asarray(mask)
        if mask.dtype != np.bool_ or mask.ndim != 1:
            raise TypeError(
                f"`save_compact(masks={{{name!r}: ...}})`: must be boolean, of shape "
                f"(channels,), got {mask.dtype} of shape {mask.shape}. Pass "
                "`Compacted.masks`."
            )
        channels[name] = [len(mask), np.packbits(mask).tobytes().hex()]
    return save(
        directory, step, list(trees), metadata={**(metadata or {}), _CHANNELS: channels}
    )


def load_compact(
    checkpoint: Entry | str | Path | None, graph: ChannelGraph, *trees: Any
) -> Compacted:
    """Load what `save_compact` saved, and compact the functions of the graph to it.

    Args:
      checkpoint: an `Entry`, or the path of one.
      graph: of the dense network, traced as for `graph.compact`, with the same `norms`;
        abstract parameters do.
      *trees: the trees that were saved, at the shapes of the dense network, possibly
        abstract: `jax.eval_shape(init)`, `jax.eval_shape(optimizer.init, params)`.

    Returns:
      As `graph.compact(masks, *trees)`, with the trees that were saved.

    Raises:
      FileNotFoundError: if there is no finished checkpoint.
      ValueError: if the checkpoint holds no compact network, or one of another graph;
        or as `load`.

    Examples:
      >>> import tempfile
      >>> import jax.numpy as jnp
      >>> from jaxprune.channels import trace_channels
      >>> mlp = lambda params, x: jnp.tanh(x @ params["w1"]) @ params["w2"]
      >>> params = {"w1": jnp.ones((3, 4)), "w2": jnp.ones((4, 2))}
      >>> graph = trace_channels(mlp, params, jnp.ones((1, 3)))
      >>> small = graph.compact({"w1:1": np.arange(4) < 3}, params)
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     folder = save_compact(directory, 1, small.masks, *small.trees)
      ...     again = load_compact(folder, graph, params)
      >>> again.apply_fn(again.trees[0], jnp.ones((5, 3))).shape
      (5, 2)
    """
    entry = read_entry("load_compact", checkpoint)
    masks = _masks(entry, graph)
    small = graph.compact(masks, *trees)
    return small._replace(trees=tuple(load(entry, list(small.trees))))


def _masks(entry: Entry, graph: ChannelGraph) -> dict[str, np.ndarray]:
    """Return the channel masks of a checkpoint, checked against a graph."""
    where = f"`load_compact({str(entry.path)!r}, graph)`"
    stored = entry.metadata.get(_CHANNELS)
    if not isinstance(stored, dict):
        raise ValueError(
            f"{where}: must be a checkpoint of `save_compact`; it says nothing of "
            "channels. Use `load`."
        )
    sizes = {name: group.size for name, group in graph.groups.items()}
    kept = {name: size for name, (size, _) in stored.items()}
    if not kept.keys() <= sizes.keys():  # Those of blocks are there if layers went.
        blocks = {name: block.layers for name, block in graph.blocks.items()}
        sizes |= {name: layers for name, layers in blocks.items() if name in kept}
    if sizes != kept:
        differing = [n for n in [*sizes, *kept] if sizes.get(n) != kept.get(n)]
        name = differing[0]
        raise ValueError(
            f"{where}: the groups must be those that were saved; {name!r} has "
            f"{kept.get(name)} channels in the checkpoint, {sizes.get(name)} in the "
            "graph. It was written for another network, or the functions were traced "
            "otherwise."
        )
    masks = {}
    for name, (size, bits) in stored.items():
        flat = np.frombuffer(bytes.fromhex(bits), np.uint8)
        if len(flat) != math.ceil(size / 8):
            raise ValueError(f"{where}: the mask of {name!r} is not of {size} bits.")
        masks[name] = np.unpackbits(flat, count=size).astype(bool)
    return masks
