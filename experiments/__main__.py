"""The one command: `python -m experiments COMMAND ...`; each has its own `--help`.

A module is imported only when its command is called, so that help is there at once.
"""

import importlib
import sys
from collections.abc import Mapping, Sequence

COMMANDS = {
    "train": ("train", "train one config: dense, pruned, fine-tuned, with a report"),
    "sweep": ("sweep.sweep", "run configs at several sizes and seeds"),
    "seeds": ("sweep.cells", "run configs at several sizes, all seeds at once"),
    "bisect": ("sweep.bisect", "find the penalty that leaves a budget of channels"),
    "table": ("tables.tables", "make the table, CSV file and page of a sweep"),
    "report": ("report.report", "make the report of a run again"),
    "compact": ("analyses.compact", "remove what a run left unused, and time it"),
    "sensitivity": ("analyses.sensitivity", "measure how much each group matters"),
    "allocation-control": ("analyses.allocation_control", "what gives DSA its gain"),
    "l1-coefficients": ("analyses.l1_coefficients", "draw what schedules stand for"),
    "bench": ("benchmarks", "measure speed and memory"),
}

_USAGE = "usage: python -m experiments COMMAND [--help] ..."


def main(arguments: Sequence[str] | None = None) -> int:
    """Call the command that the first argument names; return the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    commands = COMMANDS
    usage = _USAGE
    if given[:1] == ["bench"]:
        from experiments.benchmarks import COMMANDS as commands

        usage = _USAGE.replace("COMMAND", "bench BENCHMARK")
        given = given[1:]
    if not given or given[0] in ("-h", "--help"):
        print(f"{usage}\n\n{_listed(commands)}")
        return 0 if given else 2
    if given[0] not in commands:
        from experiments.configs import did_you_mean

        near = did_you_mean(given[0], list(commands))
        print(f"{usage}\n\nUnknown: {given[0]}.{near}", file=sys.stderr)
        print(_listed(commands), file=sys.stderr)
        return 2
    if commands is not COMMANDS:
        from experiments.benchmarks.common import run

        return run(given[0], given[1:]) or 0
    module, _ = commands[given[0]]
    return importlib.import_module(f"experiments.{module}").main(given[1:]) or 0


def _listed(commands: Mapping[str, tuple[str, str]]) -> str:
    return "\n".join(f"  {name:20}{about}" for name, (_, about) in commands.items())


if __name__ == "__main__":
    sys.exit(main())
