"""Runs the tests of every core module against faults that are planted in it."""

import argparse
import concurrent.futures
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.mutation import faults

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 900

# Module (below `jaxprune`) to the tests (below `tests`) that should see its faults.
MODULES = {
    "masks/_apply": ["masks"],
    "masks/_counts": ["masks"],
    "masks/_distributions": ["masks"],
    "masks/_k_largest": ["masks"],
    "masks/_packing": ["masks"],
    "masks/_from_scores": ["masks/from_scores*", "methods/selection*"],
    "tree/_selection": ["tree*"],
    "prox/_operators": ["prox"],
    "prox/_top_k": ["prox"],
    "schedules/_from_rate": ["schedules"],
    "schedules/_ramps": ["schedules"],
    "costs/_relative_entropy": ["costs/relative_entropy*"],
    "transforms/_accelerated": ["transforms"],
    "transforms/_check": ["transforms"],
    "transforms/_freeze": ["transforms", "*contract_test.py"],
    "transforms/_latent": ["transforms", "methods/soft_thresholding_test.py"],
    "transforms/_preconditioned": ["transforms"],
    "transforms/_proximal": ["transforms"],
    "transforms/_size": ["transforms"],
    "transforms/_thresholds": ["transforms"],
    "channels/_allocation": ["channels/counts_test.py", "methods/dsa*"],
    "channels/_counts": ["channels/counts_test.py", "methods/dsa*"],
    "channels/_importance": ["methods/dsa*"],
    "budgets/_admm": ["budgets"],
    "budgets/_admm_as_published": ["budgets"],
    "budgets/_dual_ascent": ["budgets"],
    "budgets/_limits": ["budgets"],
    "budgets/_projection": ["budgets"],
    "methods/_channel_garrote": ["methods/channel_garrote*"],
    "methods/_dsa": ["methods/dsa*", "methods/keep_prob*", "*contract_test.py"],
    "methods/_garrote": ["methods/garrote*"],
    "methods/_gates": ["methods/gates*", "methods/ltp*"],
    "methods/_grasp": ["methods/one_shot*"],
    "methods/_keep_probabilities": ["methods/keep_prob*", "methods/dsa*"],
    "methods/_ltp": ["methods/ltp*", "*contract_test.py"],
    "methods/_magnitude": ["methods/magnitude*", "training/finalize*"],
    "methods/_snip": ["methods/one_shot*"],
    "methods/_soft_threshold_base": ["methods/soft*", "methods/str*"],
    "methods/_soft_thresholding": ["methods/soft*", "*contract_test.py"],
    "methods/_str": ["methods/str*"],
    "methods/_weights": ["methods/ltp*", "methods/str*", "methods/selection*"],
    "training/_pruning": ["training"],
    "training/_finalize": ["training"],
}


class Mutant(NamedTuple):
    """A module with one fault in it: the text of the module, and what was done."""

    module: str
    source: str
    what: str


def mutants(module: str, number: int) -> Iterator[Mutant]:
    """The mutants of a module; patterns that no longer match are printed."""
    source = (ROOT / "jaxprune" / f"{module}.py").read_text()
    for where, old, new in faults.BY_HAND:
        if where == module and old not in source:
            print(f"PATTERN  {module}: `{old}` is no longer there", flush=True)
        elif where == module:
            what = f"`{old}` -> `{new}`"
            yield Mutant(module, source.replace(old, new, 1), what)
    for fault in faults.spread(faults.of(source), number):
        changed = source[: fault.start] + fault.new + source[fault.stop :]
        old = " ".join(source[fault.start : fault.stop].split())
        line = source.splitlines()[fault.line - 1].strip()
        what = f"line {fault.line}, {fault.kind}: `{old}` -> `{fault.new}` in `{line}`"
        yield Mutant(module, changed, what)


def related_files(module: str, root: Path) -> list[str]:
    """The test files of a module."""
    found = set()
    for pattern in MODULES[module]:
        for path in (root / "tests").glob(pattern):
            found |= set(path.rglob("*_test.py")) if path.is_dir() else {path}
    return sorted(str(path.relative_to(root)) for path in found)


def run(root: Path, files: list[str]) -> str:
    """Runs tests to their first failure: `passed`, `failed`, or what else happened."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", *files]
    try:
        done = subprocess.run(
            [*command, "-p", "no:cacheprovider"],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root), **_compiled(root)},
            capture_output=True,
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        return "timeout"
    return {0: "passed", 1: "failed"}.get(done.returncode, "not collected")


def _compiled(root: Path) -> dict[str, str]:
    """Where the tests keep what they compile: most of it no fault changes."""
    folder = root.parent / "compiled"
    folder.mkdir(exist_ok=True)
    return {"JAXPRUNE_TESTS_COMPILED": str(folder)}


def try_out(root: Path, mutant: Mutant) -> str:
    """Plants a fault in a copy, and runs the tests that should see it."""
    path = root / "jaxprune" / f"{mutant.module}.py"
    original = path.read_text()
    path.write_text(mutant.source)
    try:
        return run(root, related_files(mutant.module, root))
    finally:
        path.write_text(original)


def _module(module: str, number: int) -> list[str]:
    """Tries all mutants of a module in a copy of the repository; the survivors."""
    survivors = []
    with tempfile.TemporaryDirectory(prefix="jaxprune-mutants-") as folder:
        root = Path(folder) / "repository"
        ignored = shutil.ignore_patterns(".*", "runs", "data", "results", "__pycache__")
        shutil.copytree(ROOT, root, ignore=ignored)
        if run(root, related_files(module, root)) != "passed":
            print(f"BROKEN   {module}: its tests fail without a fault", flush=True)
            return []
        for mutant in mutants(module, number):
            result = try_out(root, mutant)
            word = "SURVIVED" if result == "passed" else result
            print(f"{word:8} {module}: {mutant.what}", flush=True)
            survivors += [f"{module}: {mutant.what}"] * (result == "passed")
    return survivors


def main() -> int:
    """Lists the survivors; the exit status is 1 if there are any."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation")
    parser.add_argument("--modules", default=",".join(MODULES))
    parser.add_argument("--number", type=int, default=15, help="faults of each module")
    parser.add_argument("--jobs", type=int, default=1, help="modules at a time")
    parser.add_argument("--list", action="store_true", help="run nothing")
    options = parser.parse_args()
    modules = options.modules.split(",")
    gone = [m for m in modules if not (ROOT / "jaxprune" / f"{m}.py").exists()]
    for module in gone:
        print(f"MODULE   {module}: is no longer there")
    modules = [module for module in modules if module not in gone]
    if options.list:
        for module in modules:
            for mutant in mutants(module, options.number):
                print(f"{module}: {mutant.what}")
        return 0
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        found = pool.map(_module, modules, [options.number] * len(modules))
        survivors = [what for some in found for what in some]
    print(f"{len(survivors)} survived.", *survivors, sep="\n  ")
    return bool(survivors)


if __name__ == "__main__":
    sys.exit(main())
