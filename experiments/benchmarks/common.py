"""What the benchmarks have in common: options, networks, what they print and write.

A benchmark is a module with `add_options(parser)` and `measure(options)`, which yields
rows: dictionaries whose keys are the columns of a table.
"""

import argparse
import functools
import importlib
import importlib.metadata
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import pandas as pd

from experiments import models
from experiments.analyses.timing import Quartiles
from experiments.benchmarks import COMMANDS


def network(name: str, images: jax.Array, seed: int = 0) -> tuple[Callable, Any]:
    """Return a network that evaluates images, and its variables."""
    model = models.create(name, 10)
    init = jax.jit(functools.partial(model.init, train=False))
    return functools.partial(model.apply, train=False), init(
        jax.random.key(seed), images
    )


def run(name: str, arguments: Sequence[str]) -> None:
    """Run a benchmark: print a table of its rows, write a file if one is named.

    Args:
      name: as on the command line.
      arguments: the rest of the command line.
    """
    benchmark, parser = load(name)
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    options = parser.parse_args(arguments)
    rows = list(benchmark.measure(options))
    print(as_table(rows))
    if options.json is not None:
        asked = {k: v for k, v in vars(options).items() if k != "json"}
        found = {**context(), "options": asked, "rows": rows}
        options.json.write_text(json.dumps(found, indent=2) + "\n")


def rows_of(name: str, *arguments: str) -> list[dict[str, Any]]:
    """Return the rows of a benchmark with these options of its command line."""
    benchmark, parser = load(name)
    return list(benchmark.measure(parser.parse_args(arguments)))


def load(name: str) -> tuple[Any, argparse.ArgumentParser]:
    """Return the module of a benchmark and the parser of its options."""
    module, about = COMMANDS[name]
    benchmark: Any = importlib.import_module(f"experiments.{module}")
    parser = argparse.ArgumentParser(
        prog=f"python -m experiments bench {name}", description=about
    )
    benchmark.add_options(parser)
    return benchmark, parser


def context() -> dict[str, Any]:
    """Return what figures depend on: the machine and the versions."""
    packages = "jax", "jaxlib", "flax", "optax", "jaxprune"
    return {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "machine": platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in packages},
    }


def as_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as a table of text; times in milliseconds, with quartiles."""
    texts = [{name: _as_text(value) for name, value in row.items()} for row in rows]
    return pd.DataFrame(texts).fillna("").to_string(index=False)


def _as_text(value: Any) -> str:
    if isinstance(value, Quartiles):
        low, median, high = (1e3 * seconds for seconds in value)
        return f"{median:.4g} ms ({low:.4g}-{high:.4g})"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
