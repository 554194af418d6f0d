"""What DSA gains by its numbers of channels, by its ranking and by its training.

Command:
    python -m experiments allocation-control --workdir=runs/resnet20_control \
        --seeds=0,1,2 --macs=0.5
    python -m experiments table --workdir=runs/resnet20_control \
        --name=resnet20_control

For each seed DSA is run, and then all eight ways to take its numbers or equal widths,
rank by the norm of filters or by the scale of their normalisation, and train the
weights under gates or without, for as many epochs as DSA: see `plans.given`. A
run that is finished is not run again.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments import train
from experiments.configs import default
from experiments.configs.digits import dsa_resnet20
from experiments.plans.given import CROSSED, GIVEN


def cells(workdir: Path, macs: float, seed: int) -> Iterator[tuple[Path, Any]]:
    """Yields the folder and the config of each run of a seed, that of DSA first."""

    def folder(name: str) -> Path:
        return workdir / name / f"macs:{macs!r}" / str(seed)

    def config() -> Any:
        config = dsa_resnet20.get_config()
        config.budget.macs = macs
        config.seed = seed
        config.run.progress = False
        return config

    yield folder("digits/dsa_resnet20"), config()
    for numbers, ranking, training in CROSSED:
        changed = default.with_method(config(), GIVEN)
        if numbers == "dsa":
            changed.method.allocation = str(folder("digits/dsa_resnet20"))
        changed.method.importance = ranking
        changed.method.gated = training == "gated"
        yield folder(f"{numbers}, {ranking}, {training}"), changed


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what is not finished."""
    parser = argparse.ArgumentParser(prog="python -m experiments allocation-control")
    parser.add_argument("--workdir", required=True, type=Path)
    parser.add_argument("--macs", type=float, default=0.5)
    parser.add_argument("--seeds", default="0", help="whole numbers, with commas")
    parsed = parser.parse_args(arguments)
    for seed in map(int, parsed.seeds.split(",")):
        for folder, config in cells(parsed.workdir, parsed.macs, seed):
            accuracy = train.train_and_evaluate(config, folder)["final"]["accuracy"]
            print(f"{folder}: {100 * accuracy:.2f} %", flush=True)
