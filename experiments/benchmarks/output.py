"""What the benchmarks print and write."""

import argparse
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax


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
