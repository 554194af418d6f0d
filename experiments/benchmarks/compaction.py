"""What half of the multiplications buy: compact networks against dense ones.

    python -m experiments bench compaction [--models vgg16 resnet56]
        [--batch_sizes 1 64] [--macs=0.5] [--multiples 1 8] [--rounds=30] [--json=FILE]

Every group keeps the same fraction of its channels, the largest for which the MACs are
at most the given fraction; with a multiple of 8 the counts are rounded down, and a
larger fraction is looked for. Dense and compact network are timed in turns. The ideal
speed-up is the inverse of the MAC ratio that was reached.
"""

import argparse
import bisect
import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from experiments.analyses.timing import compiled, in_turns
from experiments.benchmarks.common import network
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


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yields a row for each network, multiple and number of images."""
    for name, multiple in itertools.product(options.models, options.multiples):
        yield from _measure(
            name, options.batch_sizes, options.macs, multiple, options.rounds
        )


def _measure(
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
            "multiple": multiple_of,
            "batch": size,
            "MACs": macs,
            "dense": dense,
            "compact": after,
            "speed-up": speed_up,
            "ideal": 1 / macs,
            "of it": speed_up * macs,
        }


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what this benchmark can be asked."""
    parser.add_argument("--models", nargs="+", default=["vgg16", "resnet56"])
    parser.add_argument("--batch_sizes", nargs="+", type=int, default=[1, 64])
    parser.add_argument("--macs", type=float, default=0.5)
    parser.add_argument("--multiples", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--rounds", type=int, default=30)
