"""How well the latency cost predicts: widths it was not fitted to.

    python -m experiments bench latency

Compact networks of random widths are timed; the model is fitted to the first half of
them and predicts the others.
"""

import argparse
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.analyses.sensitivity import rank_correlation
from experiments.benchmarks.common import network
from jaxprune import costs
from jaxprune.channels import trace_channels


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measures, fits and predicts."""
    x = jax.random.normal(jax.random.key(0), (options.batch, 32, 32, 3))
    apply_fn, variables = network(options.model, x, seed=1)
    graph = trace_channels(apply_fn, variables, x)
    measured = costs.measure(
        graph,
        variables,
        x,
        keep_ratios=costs.random_keep_ratios(jax.random.key(2), graph, options.number),
        multiple_of=options.multiple_of,
        timer=functools.partial(costs.interleaved, repeats=options.repeats),
    )
    half = len(measured) // 2
    cost = costs.fit(graph, measured[:half])
    held_out = measured[half:]
    seconds = [m.seconds for m in held_out]
    predicted = [
        cost.dense * float(cost({n: jnp.float32(k) for n, k in m.keep_ratios.items()}))
        for m in held_out
    ]
    errors = np.abs(np.array(predicted) / np.array(seconds) - 1)
    yield {
        "model": options.model,
        "batch": options.batch,
        "multiple": options.multiple_of,
        "dense ms": 1e3 * measured[0].seconds,
        "held out ms": f"{1e3 * min(seconds):.2f} to {1e3 * max(seconds):.2f}",
        "constant ms": 1e3 * cost.constant,
        "ns/MAC": 1e9 * cost.per_mac,
        "ns/byte": 1e9 * cost.per_byte,
        "rank correlation": rank_correlation(predicted, seconds),
        "mean error": float(errors.mean()),
        "largest error": float(errors.max()),
    }


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what this benchmark can be asked."""
    parser.add_argument("--model", default="resnet20", help="for images of 32x32")
    parser.add_argument("--batch", type=int, default=8, help="number of examples")
    parser.add_argument("--number", type=int, default=60, help="number of networks")
    parser.add_argument("--repeats", type=int, default=30, help="timings of each")
    parser.add_argument("--multiple_of", type=int, default=1, help="of all widths")
