"""Removes from the network of a run what it does not need, exactly.

```
python -m experiments compact --workdir=DIR
```

reads the final network of a finished run, finds the channels that can go without
changing what it computes, and makes the smaller function. Both are compared, timed in
turns and weighed; a table is printed, `report.html` gets a section, and `DIR/compact`
holds

- `checkpoint/STEP`: the smaller parameters and statistics;
- `weights.safetensors`: the same for other frameworks, with the original indices;
- `sparse.safetensors`: the network of the run as bitmasks and values;
- `program.jax`: the smaller network for `jax.export.deserialize`, any batch size;
- `summary.json`: the numbers.
"""

import argparse
import functools
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from experiments import data, models
from experiments.analyses.timing import compiled, in_turns
from experiments.logging.files import read_json, write_atomically
from experiments.logging.summary import SUMMARY_FILE
from experiments.plans import channels
from experiments.report import compact_report, report
from experiments.run import trail
from jaxprune import costs, io
from jaxprune.channels import (
    ChannelGraph,
    Compacted,
    fold_constants,
    live_channels,
    trace_channels,
)
from jaxprune.io import export_program, save_sparse, save_weights
from jaxprune.tree import named_leaves


class Network(NamedTuple):
    """The final network of a run."""

    # `apply_fn(variables, images) -> logits`, in evaluation mode.
    apply_fn: Callable[..., Any]
    graph: ChannelGraph
    variables: Any  # `{"params": ..., "batch_stats": ...}`, of the dense shapes
    images: np.ndarray  # One image of the right shape, all zero
    entry: io.Entry
    # The channel masks of a structured run, which saved a compact network; what it left
    # out is zero in `variables`. None for other runs.
    masks: dict[str, np.ndarray] | None


def read_network(workdir: Path) -> Network:
    """Read the final network of a run.

    Raises:
      FileNotFoundError: If the folder holds no finished run.
    """
    path = workdir / SUMMARY_FILE
    entry = io.latest(workdir / trail.FOLDER)
    if not path.exists() or entry is None:
        raise FileNotFoundError(
            f"`--workdir={workdir}` must be the folder of a finished run, with "
            f"`{path.name}` and a checkpoint in `{trail.FOLDER}`. Run "
            "`python -m experiments train --config=... --workdir=...` first."
        )
    summary = read_json(path)
    model, like, images = read_model(summary)

    def apply_fn(variables, images):
        return model.apply(variables, images, train=False)

    graph = trace_channels(apply_fn, like, images, norms=channels.NORMS)
    kept, masks = summary.get("channels"), None
    if not kept:
        saved = io.load(entry, like)
    else:
        masks = channels.from_json(graph, kept)
        blank = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)
        small = graph.compact(masks, blank)
        saved = _enlarge(blank, io.load(entry, small.trees[0]), small.kept)
    return Network(apply_fn, graph, saved, images, entry, masks)


def read_model(summary: Mapping[str, Any]) -> tuple[nn.Module, Any, np.ndarray]:
    """Return the dense model of a run, its abstract variables, and a blank image."""
    spec = data.dataset_spec(summary["dataset"])
    side = summary["config"]["data"]["image_size"] or spec.image_shape[0]
    sides = (side,) * (len(spec.image_shape) - 1)
    kind = np.int32 if spec.is_text else np.float32
    images = np.zeros((1, *sides, spec.image_shape[-1]), kind)
    dtype = summary["config"].get("dtype", "float32")  # older runs had no other
    model = models.create(summary["model"], spec.num_classes, dtype=dtype)
    variables = jax.eval_shape(
        functools.partial(model.init, train=False), jax.random.key(0), images
    )
    return model, {"batch_stats": {}, **variables}, images


def _enlarge(blank: Any, small: Any, kept: Any) -> Any:
    """Put the arrays of a compact network where they were in the dense one."""
    large = named_leaves(blank)
    for name, leaf in named_leaves(small).items():
        large[name][np.ix_(*kept[name])] = leaf
    return blank


def compact_run(
    workdir: Path, *, batch_sizes: Sequence[int] = (1, 64), rounds: int = 30
) -> dict[str, Any]:
    """Compact the network of a run, write `DIR/compact` and the report.

    Returns:
      What is written to `DIR/compact/summary.json`: `rows` of a table with the columns
      `dense`, `compact` and `ratio`, and how the two were found equal.

    Raises:
      FileNotFoundError: If the folder holds no finished run.
    """
    network = read_network(workdir)
    graph, masks, variables = network.graph, network.masks, network.variables
    if masks is None:
        # Those channels go that zeros leave without a reader, constants folded.
        how, reference = "channels that zeros left unused", network.apply_fn
        variables = fold_constants(graph, variables)
        masks = live_channels(graph, variables)
    else:
        # What counts is the dense network under the masks that the run decided.
        how, reference = "masks of the run", graph.masked(masks)
    small = graph.compact(masks, variables)
    folder = workdir / "compact"
    folder.mkdir(exist_ok=True)
    found = {
        "how": how,
        "channels": {n: [g.size, small.widths[n]] for n, g in graph.groups.items()},
        "difference": _difference(network, reference, small),
        "rows": [
            *_counts(network, small),
            *_weigh(network, small, folder),
            *_times(network, small, batch_sizes, rounds),
        ],
        "devices": sorted({device.device_kind for device in jax.devices()}),
        "rounds": rounds,
    }
    write_atomically(folder / "summary.json", json.dumps(found, indent=2) + "\n")
    report.write_report(workdir)
    return found


def _difference(network: Network, reference, small: Compacted) -> float:
    """The largest difference of logits, relative to the largest logit."""
    shape = (64, *network.images.shape[1:])
    rng = np.random.default_rng(0)
    images = rng.normal(size=shape).astype(np.float32)
    if network.images.dtype != np.float32:  # a text, whose bytes are the classes too
        logits = jax.eval_shape(reference, network.variables, network.images)
        images = rng.integers(0, logits.shape[-1], shape, network.images.dtype)
    want = np.asarray(jax.jit(reference)(network.variables, images))
    got = np.asarray(jax.jit(small.apply_fn)(small.trees[0], images))
    return float(np.abs(got - want).max() / np.abs(want).max())


def _row(name: str, unit: str, dense: Any, compact: Any) -> dict[str, Any]:
    return {"name": name, "unit": unit, "dense": dense, "compact": compact}


def _counts(network: Network, small: Compacted) -> list:
    after = trace_channels(small.apply_fn, small.trees[0], network.images)
    counted = {"parameters, statistics": costs.parameters, "MACs": costs.macs}
    return [
        _row(name, "", cost(network.graph).dense, cost(after).dense)
        for name, cost in counted.items()
    ]


def _weigh(network: Network, small: Compacted, folder: Path) -> list:
    """Write the files; return their sizes beside those of the network of the run."""
    tree = small.trees[0]
    path = io.save(
        folder / "checkpoint",
        network.entry.step,
        tree,
        metadata={**network.entry.metadata, "widths": small.widths},
    )
    program = export_program(small.apply_fn, tree, network.images)
    write_atomically(folder / "program.jax", program)
    with tempfile.TemporaryDirectory() as temporary:
        full = save_weights(Path(temporary) / "weights", network.variables)
    weights = save_weights(folder / "weights.safetensors", tree, small.kept)
    sparse = save_sparse(folder / "sparse.safetensors", network.variables)
    dense = len(export_program(network.apply_fn, network.variables, network.images))
    return [
        _row("checkpoint", "bytes", _on_disk(network.entry.path), _on_disk(path)),
        _row("weights.safetensors", "bytes", full, weights),
        _row("sparse.safetensors", "bytes", full, sparse),
        _row("program.jax", "bytes", dense, len(program)),
    ]


def _on_disk(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def _times(network: Network, small: Compacted, batch_sizes, rounds: int) -> list:
    rows = []
    for size in batch_sizes:
        images = np.broadcast_to(network.images, (size, *network.images.shape[1:]))
        both = in_turns(
            [
                compiled(network.apply_fn, network.variables, images),
                compiled(small.apply_fn, small.trees[0], images),
            ],
            rounds,
        )
        rows.append(_row(f"batch of {size}", "seconds", *map(list, both)))
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Compact the network of a run, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments compact",
        description="Remove from the network of a run what it does not need.",
    )
    parser.add_argument("--workdir", required=True, help="the folder of the run")
    parser.add_argument("--rounds", type=int, default=30, help="timings of each")
    options = parser.parse_args(arguments)
    try:
        found = compact_run(Path(options.workdir), rounds=options.rounds)
    except (OSError, ValueError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(compact_report.table(found))
    print(f"Files: {options.workdir}/compact; report: {options.workdir}/report.html")
    return 0
