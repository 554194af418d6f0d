"""What the benchmarks have in common: options, networks, what they print and write."""

import argparse
import functools
import json
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from experiments import models
from experiments.benchmarks import COMMANDS


def make_parser(name: str) -> argparse.ArgumentParser:
    """Return the parser of a benchmark; its options are still to be added."""
    return argparse.ArgumentParser(
        prog=f"python -m experiments bench {name}", description=COMMANDS[name][1]
    )


def network(name: str, images: jax.Array, seed: int = 0) -> tuple[Callable, Any]:
    """Return a network that evaluates images, and its variables."""
    model = models.create(name, 10)
    init = jax.jit(functools.partial(model.init, train=False))
    return functools.partial(model.apply, train=False), init(
        jax.random.key(seed), images
    )


def print_row(widths: Sequence[int], *cells: str) -> None:
    """Print a row of a table at once, all cells but the first to the right."""
    first, *others = widths
    texts = [f"{cell:>{width}}" for cell, width in zip(cells[1:], others, strict=True)]
    print(f"{cells[0]:{first}}", *texts, flush=True)


def write_json(
    path: Path | None, options: argparse.Namespace, rows: Sequence[Any]
) -> None:
    """Write the rows of a benchmark and what they depend on, if a file is given."""
    if path is None:
        return
    context = {
        "device": jax.devices()[0].device_kind,
        "machine": platform.machine(),
        "jax": jax.__version__,
        **{name: value for name, value in vars(options).items() if name != "json"},
    }
    path.write_text(json.dumps({**context, "rows": rows}, indent=2) + "\n")
