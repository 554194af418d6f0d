"""What half of the multiplications buy: compact networks against dense ones.

    python -m experiments bench compaction [--models vgg16 resnet56]
        [--batch_sizes 1 64] [--macs=0.5] [--multiples 1 8] [--rounds=30] [--json=FILE]

Every group keeps the same fraction of its channels, the largest for which the MACs are
at most the given fraction; with a multiple of 8 the counts are rounded down, and a
larger fraction is looked for. Dense and compact network are timed in turns. The ideal
speed-up is the inverse of the MAC ratio that was reached.
"""

import bisect
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from experiments.analyses.timing import Quartiles, compiled, in_turns
from experiments.benchmarks.common import make_parser, network, print_row, write_json
from jaxprune import costs
from jaxprune.channels import (
    ChannelGraph,
    channel_counts,
    largest_channels,
    trace_channels,
)

_WIDTHS = (10, 8, 5, 6, 25, 25, 9, 6, 6)


def uniform_ratio(
    graph: ChannelGraph, limit: float, multiple_of: int
) -> tuple[float, float]:
    """Finds the largest keep ratio, in thousandths, that holds a limit on MACs.

    Returns:
      The keep ratio of every group, and the fraction of MACs after rounding.

    Raises:
      ValueError: If even the narrowest network is above the limit.
    """
    cost = costs.macs(graph)
    sizes = {name: group.size for name, group in graph.groups.items()}

    def reached(thousandths: int) -> float:
        counts = channel_counts(graph, thousandths / 1000, multiple_of=multiple_of)
        return float(cost({n: jnp.float32(c / sizes[n]) for n, c in counts.items()}))

    largest = bisect.bisect_right(range(1, 1000), limit, key=reached)
    if not largest:
        raise ValueError(
            f"`--macs={limit}` cannot be reached with multiples of {multiple_of}: the "
            f"narrowest network has {reached(1):.3f}. Ask for more."
        )
    return largest / 1000, reached(largest)


def measure(
    name: str, batch_sizes: list[int], limit: float, multiple_of: int, rounds: int
) -> Iterator[dict[str, Any]]:
    """Yields a row for each number of images."""
    one = jnp.zeros((1, 32, 32, 3))
    apply_fn, variables = network(name, one)
    graph = trace_channels(apply_fn, variables, one)
    keep_ratio, macs = uniform_ratio(graph, limit, multiple_of)
    masks = largest_channels(graph, variables, keep_ratio, multiple_of=multiple_of)
    small = graph.compact(masks, variables)
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
        yield {
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a table; writes numbers and context to a file where one is given."""
    parser = make_parser("compaction")
    parser.add_argument("--models", nargs="+", default=["vgg16", "resnet56"])
    parser.add_argument("--batch_sizes", nargs="+", type=int, default=[1, 64])
    parser.add_argument("--macs", type=float, default=0.5)
    parser.add_argument("--multiples", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    print_row(
        _WIDTHS, "model", "multiple", "batch", "MACs", "dense ms", "compact ms",
        "speed-up", "ideal", "of it",
    )  # fmt: skip
    rows = []
    for name, multiple in itertools.product(options.models, options.multiples):
        for row in measure(
            name, options.batch_sizes, options.macs, multiple, options.rounds
        ):
            rows.append(row)
            print_row(
                _WIDTHS,
                name,
                f"{multiple}",
                f"{row['batch_size']}",
                f"{row['mac_ratio']:.3f}",
                _milliseconds(row["dense_seconds"]),
                _milliseconds(row["compact_seconds"]),
                f"{row['speed_up']:.2f}x",
                f"{1 / row['mac_ratio']:.2f}x",
                f"{row['of_ideal']:.2f}",
            )
    write_json(options.json, options, rows)


def _milliseconds(taken: Quartiles) -> str:
    return f"{1e3 * taken.median:.2f} ({1e3 * taken.low:.2f}-{1e3 * taken.high:.2f})"
