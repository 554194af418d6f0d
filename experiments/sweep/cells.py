"""Configs at several sizes, all seeds of each in one program; goes on if stopped.

Command:
    python -m experiments seeds --configs=mnist1d/ltp,mnist1d/ltp:mlp1d \
        --sparsities=0.9,0.95 --seeds=0,1,2,3,4 --workdir=runs/mnist1d --jobs=2

A config at one size is a cell. What `run_seeds` finds is written to
`workdir/config/size.cell.json` when the cell is finished, at once or not at all;
finished cells are left alone. Networks are evaluated on the validation split. With
`--test` the final ones are evaluated on the test split too: to be given when nothing is
left to be chosen.

Methods that prune channels take budgets, `--budgets=macs:0.5`. With `--crossed` the
numbers of channels that `mnist1d/dsa` found, and equal widths, are taken with every
ranking and every way to train the weights: see `plans.given`.
"""

import argparse
import concurrent.futures
import dataclasses
import functools
import importlib.metadata
import itertools
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments import configs, data
from experiments.logging.files import read_json, write_atomically
from experiments.logging.summary import CELL_SUFFIX
from experiments.plans.given import CROSSED
from experiments.run.workdir import config_as_json
from experiments.sweep.seeds import run_seeds
from experiments.sweep.sweep_plan import fields, make_parser, plan_runs

_DSA, _GIVEN = "mnist1d/dsa", "mnist1d/given"
_NUMBERS = {"uniform": "Equal widths", "dsa": "Numbers of DSA"}
_RANKINGS = {"filter_norm": "filter norms", "norm_scale": "norm scales"}
_ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
_PACKAGES = ("jaxprune", "jax", "flax", "optax", "mnist1d", "numpy")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """A config at one size."""

    name: str  # what its folder is called, such as `mnist1d/ltp:mlp1d`
    size: str  # the sparsity or the budget as its file is called
    config: str  # the name of the config
    overrides: tuple[str, ...]  # what is changed in it, `--config.field=value`
    file: Path  # where its results go

    def fields(self) -> Any:
        """The config of the cell."""
        return fields(self.config, self.overrides)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cells from the command line; the exit status is 1 if one failed."""
    parser = make_parser(
        "seeds", "Run configs at several sizes, all seeds of each in one program."
    )
    parser.add_argument("--crossed", action="store_true", help="see above")
    parser.add_argument("--test", action="store_true", help="read the test split")
    parsed, others = parser.parse_known_args(arguments)
    try:
        cells = plan_cells(parsed, others)
    except ValueError as error:
        parser.error(str(error))
    begin = time.monotonic()
    failed = _run_all(cells, parsed)
    minutes = (time.monotonic() - begin) / 60
    done = len(cells) - len(failed)
    print(f"{done} of {len(cells)} cells are finished; {minutes:.1f} min.")
    for cell, error in failed.items():
        print(f"{cell.name} {cell.size}: {error}", file=sys.stderr)
    return 1 if failed else 0


def plan_cells(parsed: argparse.Namespace, overrides: Sequence[str]) -> list[Cell]:
    """List the cells, in order: those that others take numbers from come first."""
    workdir = Path(parsed.workdir)
    runs = plan_runs(
        parsed.configs, parsed.sparsities, [0], workdir, overrides, parsed.budgets
    )
    cells = [
        Cell(
            name=configs.name_of(run.config),
            size=run.point,
            config=run.config,
            overrides=run.changes,
            file=run.workdir.parent.with_name(f"{run.point}{CELL_SUFFIX}"),
        )
        for run in runs
    ]
    if parsed.crossed:
        found = [cell for cell in cells if cell.config == _DSA]
        if not found:
            raise ValueError(
                f"`--crossed` needs {_DSA} among `--configs`, and budgets."
            )
        cells += itertools.chain.from_iterable(map(_crossed, found))
    return cells


def _crossed(dsa: Cell) -> Iterator[Cell]:
    """The cells that take numbers of channels, rankings and trainings apart."""
    for numbers, ranking, training in CROSSED:
        name = f"{_GIVEN}, {numbers}, {ranking}, {training}"
        changed = [
            f"--config.title={_NUMBERS[numbers]}, {_RANKINGS[ranking]}, {training}",
            f"--config.method.importance={ranking}",
            f"--config.method.gated={str(training == 'gated').lower()}",
            f"--config.method.allocation={dsa.file}" if numbers == "dsa" else "",
        ]
        yield Cell(
            name=name,
            size=dsa.size,
            config=_GIVEN,
            overrides=(*dsa.overrides, *filter(None, changed)),
            file=dsa.file.parents[2] / name / dsa.file.name,
        )


def _run_all(cells: Sequence[Cell], parsed: argparse.Namespace) -> dict[Cell, str]:
    """Run what is not finished; returns the cells that failed, and why."""
    waiting = [c for c in cells if not _finished(c, parsed.seeds, parsed.test)]
    if len(waiting) < len(cells):
        print(f"{len(cells) - len(waiting)} of {len(cells)} are finished already.")
    failed = {}
    # Cells that take numbers from others wait for them.
    for taking in (False, True):
        wave = [c for c in waiting if (c.config == _GIVEN) == taking]
        for cell, outcome in _outcomes(wave, parsed):
            if isinstance(outcome, Exception):
                failed[cell] = f"{type(outcome).__name__}: {outcome}"
            text = failed.get(cell) or outcome
            print(f"{cell.name} {cell.size}: {text}", flush=True)
    return failed


def _outcomes(
    cells: Sequence[Cell], parsed: argparse.Namespace
) -> Iterator[tuple[Cell, Any]]:
    """Each cell as it ends, with a line that says how, or the exception."""
    run = functools.partial(run_cell, seeds=tuple(parsed.seeds), test=parsed.test)
    if parsed.jobs == 1:
        for cell in cells:
            try:
                yield cell, run(cell)
            except (ArithmeticError, OSError, ValueError) as error:
                yield cell, error
        return
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} {_ONE_THREAD}"  # of the processes below
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(parsed.jobs, context) as pool:
        futures = {pool.submit(run, cell): cell for cell in cells}
        for future in concurrent.futures.as_completed(futures):
            yield futures[future], future.exception() or future.result()


def run_cell(cell: Cell, *, seeds: Sequence[int], test: bool) -> str:
    """Run a cell, write its file, and return a line for the terminal."""
    config = cell.fields()
    dataset = _dataset(config.data.name, config.data.dir)
    result = run_seeds(config, seeds, dataset, test=test)
    content = {
        "name": cell.name,
        "title": config.title or config.plan.title,
        "size": cell.size,
        "config": config_as_json(config),
        "seeds": list(seeds),
        "test": test,
        "rows": result.rows,
        "seconds": result.seconds,
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }
    cell.file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(cell.file, json.dumps(content, indent=1) + "\n")
    mean = statistics.fmean(row["validation"] for row in result.rows)
    return f"{100 * mean:.2f} % of the validation split, {result.seconds:.0f} s"


_dataset = functools.cache(lambda name, data_dir: data.load(name, data_dir=data_dir))


def _finished(cell: Cell, seeds: Sequence[int], test: bool) -> bool:
    """Whether the file of a cell holds what would be computed."""
    try:
        content = read_json(cell.file)
    except (FileNotFoundError, ValueError):
        return False
    same = content["config"] == config_as_json(cell.fields())
    return same and content["seeds"] == list(seeds) and content["test"] >= test
