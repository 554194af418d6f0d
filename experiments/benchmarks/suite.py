"""All benchmarks in one table each and one file, with sizes for this machine.

    make bench            (python -m experiments bench suite --out=runs/bench.json)

On CPUs networks that need minutes a step are compiled and not run: FLOPs, bytes and
memory are the compiler's. On a GPU they are run, with larger batches. No data set is
needed. The file is written after each section, so that one can be stopped.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from experiments.benchmarks.common import as_table, context, rows_of

_LARGE = "--methods", "lats", "ltp", "garrote", "channel_garrote"
_NOT_RUN = "--rounds=0"

# Of each section the benchmarks with their options.
ON_CPU = {
    "a step with each method against the dense step": (
        ("training-step", "--model=cnn"),
        ("training-step", "--model=resnet20"),
    ),
    "steps of large networks, compiled": tuple(
        ("training-step", f"--model={name}", *sizes, _NOT_RUN, *_LARGE)
        for name, *sizes in (
            ("resnet50", "--image_size=224", "--batch_size=8"),
            ("vit_b16", "--image_size=224", "--batch_size=4"),
            ("decoder", "--image_size=512", "--batch_size=1"),
        )
    ),
    "what is done once": (("operations",),),
    "a compact network against the dense one": (
        (
            "compaction",
            *("--models", "resnet20", "resnet56", "vgg16"),
            *("--batch_sizes", "1", "8", "64", "--rounds=15"),
        ),
    ),
    "the same work for each of several devices": (("weak-scaling",),),
    "bytes of an update by the number of parameters": (("growth",),),
}
ON_ACCELERATOR = {
    "a step with each method against the dense step": (
        ("training-step", "--model=resnet20", "--rounds=40"),
        *(
            ("training-step", f"--model={name}", *sizes, "--rounds=12", *_LARGE)
            for name, *sizes in (
                ("resnet50", "--image_size=224", "--batch_size=256"),
                ("vit_b16", "--image_size=224", "--batch_size=128"),
                ("decoder", "--image_size=1024", "--batch_size=8"),
            )
        ),
    ),
    **{name: ON_CPU[name] for name in ON_CPU if "compact" in name or "once" in name},
    "bytes of an update by the number of parameters": (("growth",),),
}


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Prints the table of each section, and yields a row for each of its duration."""
    sections: Mapping[str, Any] = (
        ON_CPU if jax.default_backend() == "cpu" else ON_ACCELERATOR
    )
    found = {**context(), "sections": {}}
    for title, benchmarks in sections.items():
        if options.only not in title:
            continue
        begin = time.monotonic()
        print(f"{title} ...", file=sys.stderr, flush=True)
        rows = [row for name, *more in benchmarks for row in rows_of(name, *more)]
        print(f"{title}\n{as_table(rows)}\n", flush=True)
        found["sections"][title] = rows
        if options.out is not None:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(found, indent=2) + "\n")
        yield {"section": title, "minutes": (time.monotonic() - begin) / 60}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what this benchmark can be asked."""
    parser.add_argument("--only", default="", help="part of the titles to run")
    parser.add_argument("--out", type=Path, help="where to write all numbers")
