"""What half of the multiplications buy: compact networks against dense ones.

    python -m experiments bench compaction [--models vgg16 resnet56]
        [--batch_sizes 1 64] [--macs=0.5] [--multiples 1 8] [--rounds=30] [--json=FILE]

Every group keeps the same fraction of its channels, the largest for which the MACs are
at most the given fraction; with a multiple of 8 the counts are rounded down, and a
larger fraction is looked for. Dense and compact network are timed in turns. The ideal
speed-up is the inverse of the MAC ratio that was reached.
"""

import argparse
import functools
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from experiments import models
from experiments.analyses.timing import compiled, in_turns
from jaxprune import costs
from jaxprune.channels import (
    ChannelGraph,
    channel_counts,
    largest_channels,
    trace_channels,
)


def uniform_ratio(
    graph: ChannelGraph, limit: float, multiple_of: int
) -> tuple[float, float]:
    """Finds the largest keep ratio, in thousandths, that holds a limit on MACs.

    Args:
      graph: The channel graph.
      limit: The limit, as a fraction of the dense MACs.
      multiple_of: What channel counts are multiples of.

    Returns:
      The keep ratio of every group, and the fraction of MACs after rounding.

    Raises:
      ValueError: If even the narrowest network is above the limit.
    """
    cost = costs.macs(graph)

    def reached(thousandths: int) -> float:
        counts = channel_counts(graph, thousandths / 1000, multiple_of=multiple_of)
        sizes = {name: group.size for name, group in graph.groups.items()}
        return float(cost({n: jnp.float32(c / sizes[n]) for n, c in counts.items()}))

    low, high = 1, 1000
    if reached(low) > limit:
        raise ValueError(
            f"`--macs={limit}` cannot be reached with multiples of {multiple_of}: the "
            f"narrowest network has {reached(low):.3f}. Ask for more."
        )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if reached(middle) <= limit else (low, middle)
    return low / 1000, reached(low)


def measure(
    name: str, batch_sizes: list[int], limit: float, multiple_of: int, rounds: int
) -> list[dict[str, Any]]:
    """Returns a row for each number of images."""
    model = models.create(name, 10)
    apply_fn = functools.partial(model.apply, train=False)
    one = jnp.zeros((1, 32, 32, 3))
    variables = jax.jit(functools.partial(model.init, train=False))(
        jax.random.key(0), one
    )
    graph = trace_channels(apply_fn, variables, one)
    keep_ratio, macs = uniform_ratio(graph, limit, multiple_of)
    masks = largest_channels(graph, variables, keep_ratio, multiple_of=multiple_of)
    small = graph.compact(masks, variables)
    rows = []
    for size in batch_sizes:
        images = jax.random.normal(jax.random.key(1), (size, 32, 32, 3))
        dense, after = in_turns(
            [
                compiled(apply_fn, variables, images),
                compiled(small.apply_fn, small.trees[0], images),
            ],
            rounds,
        )
        speed_up = dense.median / after.median
        rows.append(
            {
                "model": name,
                "batch_size": size,
                "multiple_of": multiple_of,
                "widths": sorted(set(small.widths.values())),
                "mac_ratio": macs,
                "dense_seconds": dense,
                "compact_seconds": after,
                "speed_up": speed_up,
                "of_ideal": speed_up * macs,
            }
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a table; writes numbers and context to a file where one is given."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments bench compaction",
        description="Time compact networks.",
    )
    parser.add_argument("--models", nargs="+", default=["vgg16", "resnet56"])
    parser.add_argument("--batch_sizes", nargs="+", type=int, default=[1, 64])
    parser.add_argument("--macs", type=float, default=0.5)
    parser.add_argument("--multiples", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    print(
        f"{'model':10}{'multiple':>9}{'batch':>6}{'MACs':>7}{'dense ms':>26}"
        f"{'compact ms':>26}{'speed-up':>10}{'ideal':>7}{'of it':>7}"
    )
    rows = []
    for name in options.models:
        for multiple in options.multiples:
            made = measure(
                name, options.batch_sizes, options.macs, multiple, options.rounds
            )
            for row in made:
                dense, after = (
                    f"{1e3 * middle:.2f} ({1e3 * low:.2f}-{1e3 * high:.2f})"
                    for low, middle, high in (
                        row["dense_seconds"],
                        row["compact_seconds"],
                    )
                )
                print(
                    f"{name:10}{multiple:9}{row['batch_size']:6}"
                    f"{row['mac_ratio']:7.3f}{dense:>26}{after:>26}"
                    f"{row['speed_up']:9.2f}x{1 / row['mac_ratio']:6.2f}x"
                    f"{row['of_ideal']:7.2f}",
                    flush=True,
                )
            rows += made
    if options.json:
        context = {
            "device": jax.devices()[0].device_kind,
            "machine": platform.machine(),
            "jax": jax.__version__,
            **{k: v for k, v in vars(options).items() if k != "json"},
        }
        text = json.dumps({**context, "rows": rows}, indent=2)
        options.json.write_text(text + "\n")
