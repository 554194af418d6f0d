"""Removes from the network of a run what it does not need, exactly.

```
python -m experiments.compact --workdir=DIR
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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import data, models, report, trail
from experiments.metrics import write_atomically
from experiments.timing import compiled, in_turns
from jaxprune import checkpoint, costs
from jaxprune.compaction import Compacted, compact, masked
from jaxprune.export import export_program, save_sparse, save_weights
from jaxprune.folding import fold_constants
from jaxprune.graph import ChannelGraph, trace_channels
from jaxprune.liveness import live_channels

MASKS_FILE = "channel_masks.json"


class Network(NamedTuple):
    """The final network of a run.

    Attributes:
      apply_fn: `apply_fn(variables, images) -> logits`, in evaluation mode.
      variables: `{"params": ..., "batch_stats": ...}`, as saved.
      images: One image of the right shape, all zero.
      entry: Its checkpoint.
    """

    apply_fn: Callable[..., Any]
    variables: Any
    images: np.ndarray
    entry: checkpoint.Entry


class Removal(NamedTuple):
    """What can go.

    Attributes:
      masks: Channel masks by group name.
      variables: Variables to compact, with constants folded.
      reference: What the compact network must equal, of the network's own variables.
      how: Where the masks are from, in words.
    """

    masks: dict[str, np.ndarray]
    variables: Any
    reference: Callable[..., Any]
    how: str


def read_network(workdir: Path) -> Network:
    """Read the final network of a run.

    Raises:
      FileNotFoundError: If the folder holds no finished run.
    """
    path = workdir / report.SUMMARY_FILE
    entry = checkpoint.latest(workdir / trail.FOLDER)
    if not path.exists() or entry is None:
        raise FileNotFoundError(
            f"`--workdir={workdir}` must be the folder of a finished run, with "
            f"`{path.name}` and a checkpoint in `{trail.FOLDER}`. Run "
            "`python -m experiments.main --config=... --workdir=...` first."
        )
    summary = json.loads(path.read_text())
    spec = data.dataset_spec(summary["dataset"])
    side = summary["config"].get("image_size") or spec.image_shape[0]
    images = np.zeros((1, side, side, spec.image_shape[-1]), np.float32)
    model = models.create(summary["model"], spec.num_classes)
    like = jax.eval_shape(
        functools.partial(model.init, train=False), jax.random.key(0), images
    )
    like = {"params": like["params"], "batch_stats": like.get("batch_stats", {})}

    def apply_fn(variables, images):
        return model.apply(variables, images, train=False)

    return Network(apply_fn, checkpoint.load(entry, like), images, entry)


def find_removal(workdir: Path, network: Network, graph: ChannelGraph) -> Removal:
    """Find the channels that the network of a run can lose.

    A structured run says so in `channel_masks.json`, `{group: [true, false, ...]}`, and
    what counts is the network under these masks. Of any other run those channels can go
    that its zeros leave without a reader, once constants are folded.
    """
    path = workdir / MASKS_FILE
    if path.exists():
        recorded = json.loads(path.read_text())
        masks = {name: np.array(mask, bool) for name, mask in recorded.items()}
        reference = masked(network.apply_fn, graph, masks)
        return Removal(masks, network.variables, reference, "masks of the run")
    folded = fold_constants(graph, network.variables)
    masks = live_channels(graph, folded)
    return Removal(masks, folded, network.apply_fn, "channels that zeros left unused")


def compact_run(
    workdir: Path, *, batch_sizes: Sequence[int] = (1, 64), rounds: int = 30
) -> dict[str, Any]:
    """Compact the network of a run, write `DIR/compact` and the report.

    Args:
      workdir: The folder of a finished run.
      batch_sizes: Numbers of images to time.
      rounds: How often each network is timed.

    Returns:
      What is written to `DIR/compact/summary.json`: `rows` of a table with the columns
      `dense`, `compact` and `ratio`, and how the two were found equal.

    Raises:
      FileNotFoundError: If the folder holds no finished run.
    """
    network = read_network(workdir)
    graph = trace_channels(network.apply_fn, network.variables, network.images)
    removal = find_removal(workdir, network, graph)
    small = compact(network.apply_fn, graph, removal.masks, removal.variables)
    folder = workdir / "compact"
    folder.mkdir(exist_ok=True)
    found = {
        "how": removal.how,
        "channels": {n: [g.size, small.widths[n]] for n, g in graph.groups.items()},
        "difference": _difference(network, removal, small),
        "rows": [
            *_counts(network, graph, small),
            *_weigh(network, small, folder),
            *_times(network, small, batch_sizes, rounds),
        ],
        "devices": sorted({device.device_kind for device in jax.devices()}),
        "rounds": rounds,
    }
    write_atomically(folder / "summary.json", json.dumps(found, indent=2) + "\n")
    report.write_report(workdir)
    return found


def _difference(network: Network, removal: Removal, small: Compacted) -> float:
    """The largest difference of logits, relative to the largest logit."""
    shape = (64, *network.images.shape[1:])
    images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    want = np.asarray(jax.jit(removal.reference)(network.variables, images))
    got = np.asarray(jax.jit(small.apply_fn)(small.trees[0], images))
    return float(np.abs(got - want).max() / np.abs(want).max())


def _row(name: str, unit: str, dense: Any, compact: Any) -> dict[str, Any]:
    return {"name": name, "unit": unit, "dense": dense, "compact": compact}


def _counts(network: Network, graph: ChannelGraph, small: Compacted) -> list:
    after = trace_channels(small.apply_fn, small.trees[0], network.images)
    return [
        _row(
            "parameters, statistics",
            "",
            costs.parameters(graph).dense,
            _size(small.trees[0]),
        ),
        _row("MACs", "", costs.macs(graph).dense, costs.macs(after).dense),
    ]


def _size(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _weigh(network: Network, small: Compacted, folder: Path) -> list:
    """Write the files; return their sizes beside those of the network of the run."""
    tree = small.trees[0]
    path = checkpoint.save(
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
    """Compact the network of a run from the command line.

    Args:
      arguments: Those of the process if not given.

    Returns:
      The exit status.
    """
    parser = argparse.ArgumentParser(
        prog="python -m experiments.compact",
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
    print(report.compact_table(found))
    print(f"Files: {options.workdir}/compact; report: {options.workdir}/report.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
