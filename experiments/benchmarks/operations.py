"""Seconds of what is done once, or once a step without the network.

    python -m experiments bench operations [--model=resnet50] [--side=224] [--rounds=5]

The network is traced and grouped (JAX's own trace is a row of its own), the channels
are allocated and removed, all weights are ranked and cut, and the small network is
written and read. `compile` is the time of the first call where there is a program.
"""

import argparse
import functools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxprune
from experiments import models
from experiments.analyses.timing import in_turns
from jaxprune import budgets, channels, costs, io


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yields a row for each operation."""
    model = models.create(options.model, 10)
    apply_fn = functools.partial(model.apply, train=False)
    image = jnp.zeros((1, options.side, options.side, 3))
    init = jax.jit(functools.partial(model.init, train=False))
    variables = init(jax.random.key(0), image)

    def trace():  # A new function, lest JAX answer with what it remembers.
        return channels.trace_channels(lambda *a: apply_fn(*a), variables, image)

    graph = trace()
    half = jaxprune.at_most(costs.macs(graph), 0.5)
    masks = channels.largest_channels(graph, variables, 0.7)
    yield _row(
        options, "trace by JAX alone", lambda: _jaxpr(apply_fn, variables, image)
    )
    yield _row(options, "trace and group", trace)
    yield _row(
        options,
        "round to half of the MACs",
        lambda: channels.round_to_limits(graph, {}, [half]),
    )
    yield _admm(options, graph, half)
    yield _row(
        options,
        "compact the parameters",
        lambda: graph.compact(masks, variables).trees[0],
    )
    params = variables["params"]
    method = jaxprune.global_magnitude(sparsity=0.9)
    yield _row(
        options,
        "cut all weights exactly",
        jax.jit(lambda: method.masks(params, {}, keep_ratio=0.1)),
        compiles=True,
    )
    cut = method.masks(params, {}, keep_ratio=0.1)
    sparse = jaxprune.apply_masks(params, cut)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sparse.safetensors"

        yield _row(
            options, "write the sparse weights", lambda: io.save_sparse(path, sparse)
        )
        yield _row(options, "read them", lambda: io.load_sparse(path))


def _jaxpr(apply_fn, variables, image):
    return jax.make_jaxpr(lambda *a: apply_fn(*a))(variables, image) and ()


def _admm(options, graph, limit) -> dict[str, Any]:
    """Times an update of ADMM's state."""
    budget = budgets.admm([limit])
    ratios = {name: jnp.float32(0.9) for name in graph.groups}
    state = budget.init(ratios)
    update = jax.jit(budget.update)
    return _row(options, "update ADMM", lambda: update(ratios, state), compiles=True)


def _row(
    options: argparse.Namespace,
    name: str,
    function: Callable[[], Any],
    *,
    compiles: bool = False,
) -> dict[str, Any]:
    begin = time.perf_counter()
    jax.block_until_ready(function())
    first = time.perf_counter() - begin
    (taken,) = in_turns([function], options.rounds)
    return {
        "operation": name,
        "compile s": np.round(first - taken.median, 3).item() if compiles else "",
        "time": taken,
    }


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what this benchmark can be asked."""
    parser.add_argument("--model", default="resnet50", choices=models.MODELS)
    parser.add_argument("--side", type=int, default=224, help="of an image, in pixels")
    parser.add_argument("--rounds", type=int, default=5)
