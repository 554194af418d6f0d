"""A data-parallel step on 1, 2, 4 and 8 CPU devices, with as much work for each.

    python -m experiments bench weak-scaling [--devices 1 2 4 8] [--batch_size=16]
        [--methods lats ltp ...] [--rounds=15]

Each number of devices runs in a process of its own. The devices share the cores of the
machine, so that a step of 8 takes at least 8 times as long on few cores: `time` is the
ratio to the dense step of the same number of devices, interleaved, and is what pruning
adds; it should not grow.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.analyses.timing import Quartiles
from experiments.benchmarks import training_step


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yields a row for each number of devices and method."""
    for count in options.devices:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows.json"
            command = [sys.executable, "-m", "experiments", "bench", "training-step"]
            command += [f"--model={options.model}", f"--json={path}"]
            command += [f"--batch_size={options.batch_size * count}"]
            command += [f"--rounds={options.rounds}", "--methods", *options.methods]
            flag = f"--xla_force_host_platform_device_count={count}"
            environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flag}
            subprocess.run(
                command, check=True, env=environment, stdout=subprocess.DEVNULL
            )
            for row in json.loads(path.read_text())["rows"]:
                yield {"devices": count, **row, "dense": Quartiles(*row["dense"])}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what this benchmark can be asked."""
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--devices", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--batch_size", type=int, default=16, help="of each device")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["lats", "ltp", "garrote", "channel_garrote"],
        choices=training_step.METHODS,
    )
