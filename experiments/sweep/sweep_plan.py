"""Which runs a sweep has, where they go, and which of them have finished."""

import argparse
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from experiments import configs
from experiments.configs import OVERRIDE
from experiments.logging.files import read_json
from experiments.logging.summary import SUMMARY_FILE
from experiments.plans.method import LIMITS, prunes_channels
from experiments.run import config_check

DENSE = "dense"
"""Stands in the place of the sparsity in the folder of a run that does not prune."""

_Sizes = dict[str, tuple[str, ...]]
"""By the name of the folder of a point, the arguments that ask for its size."""

_QUIET = "--config.run.progress=false"
_SWEPT = {
    "seed": "seeds",
    "budget.sparsity": "sparsities",
    **{f"budget.{name}": "budgets" for name in LIMITS},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a sweep."""

    config: str  # its name, such as `digits/ltp`, or the path of its file
    point: str  # the sparsity or the budget, as its folder is called: `0.9`, `macs:0.5`
    size: tuple[str, ...]  # the arguments that ask for it
    seed: int  # what everything random comes from
    workdir: Path  # the folder of the run
    overrides: tuple[str, ...]  # further arguments, `--config.field=value`

    def __str__(self) -> str:
        """The name of the run in what the sweep prints."""
        return f"{configs.name_of(self.config)} {self.point} seed {self.seed}"

    @property
    def changes(self) -> tuple[str, ...]:
        """The arguments that change fields of the config."""
        return (*self.size, f"--config.seed={self.seed}", *self.overrides)

    @property
    def arguments(self) -> list[str]:
        """All arguments of `python -m experiments train`."""
        given = [f"--config={self.config}", *self.changes]
        return [*given, f"--workdir={self.workdir}", _QUIET]


def make_parser(command: str, description: str) -> argparse.ArgumentParser:
    """Return the parser of a command that runs configs at several sizes and seeds."""
    parser = argparse.ArgumentParser(
        prog=f"python -m experiments {command}",
        description=description,
        epilog="Arguments --config.field=value are given to every run.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--configs",
        required=True,
        type=_list_of(str),
        help="names or paths of files, such as digits/ltp",
    )
    add("--sparsities", default=[], type=_list_of(float), help="such as 0.9,0.95")
    add(
        "--budgets",
        default=[],
        type=_list_of(str),
        help="such as macs:0.5,parameters:0.5,macs:0.5+parameters:0.5",
    )
    add("--seeds", default=[0], type=_list_of(int), help="such as 0,1,2; else 0")
    add("--workdir", required=True, help="the folder of the sweep")
    add("--jobs", default=1, type=_positive, help="how many at a time; else 1")
    return parser


def plan_runs(
    configs_given: Sequence[str],
    sparsities: Sequence[float],
    seeds: Sequence[int],
    workdir: str | Path,
    overrides: Sequence[str] = (),
    budgets: Sequence[str] = (),
) -> list[Run]:
    """List the runs of a sweep.

    Args:
      configs_given: names, such as `digits/ltp`, or paths of files.
      sparsities: fractions of zeros, in (0, 1).
      seeds: whole numbers.
      workdir: the folder of the sweep.
      overrides: `--config.field=value`, for every run.
      budgets: limits, for configs that prune channels.

    Returns:
      The runs, seed by seed: a sweep that is stopped early has few seeds of everything
      rather than everything of few methods.

    Raises:
      ValueError: if there is no such config, a config has a fixed penalty weight, which
        takes no sparsity, or a sparsity is not in (0, 1).
    """
    for override in configs.split_overrides(overrides):
        field = override.removeprefix(OVERRIDE).partition("=")[0]
        if field in _SWEPT:
            raise ValueError(
                f"`{override}` is what `--{_SWEPT[field]}` says for a sweep."
            )
    weights = {repr(sparsity): _sparsity(sparsity) for sparsity in sparsities}
    channels = {budget: _limits(budget) for budget in budgets}
    points = {
        config: _points(config, fields(config, overrides), weights, channels)
        for config in dict.fromkeys(map(_known, configs_given))
    }
    for option, pruned, sizes in (
        ("sparsities", "single weights", weights),
        ("budgets", "channels", channels),
    ):
        if sizes and sizes not in points.values():
            raise ValueError(
                f"`--{option}`: no config of the sweep prunes {pruned}. Leave it out."
            )
    runs = [
        Run(
            config=config,
            point=point,
            size=size,
            seed=seed,
            workdir=Path(workdir, configs.name_of(config), point, str(seed)),
            overrides=tuple(overrides),
        )
        for seed in dict.fromkeys(seeds)
        for config, sizes in points.items()
        for point, size in sizes.items()
    ]
    for run in runs:
        if run.seed == runs[0].seed:
            check_run(run)
    return runs


def fields(config: str, overrides: Iterable[str]) -> Any:
    """Return the fields of a config, changed by arguments."""
    found = configs.load(config)
    for override in overrides:
        configs.override(found, override)
    return found


def check_run(run: Run) -> None:
    """Refuse a run whose config, with its overrides, is not valid.

    Raises:
      ValueError: naming the run and the field.
    """
    try:
        config_check.check(fields(run.config, run.changes))
    except ValueError as error:
        raise ValueError(f"The run {run} cannot start. {error}") from error


def summary_of(run: Run) -> dict[str, Any] | None:
    """Read the `summary.json` of a run that has finished with these arguments.

    None if there is none, the run did not finish, or another command made it. Training
    decides about the last: it goes on, or says which field differs.
    """
    try:
        summary = read_json(run.workdir / SUMMARY_FILE)
    except (FileNotFoundError, ValueError):
        return None
    same = _computed(summary.get("command", ())) == _computed(run.arguments)
    return summary if same and summary.get("status") == "finished" else None


def _list_of(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """Return a parser of values between commas."""

    def parse(text: str) -> list[Any]:
        return [kind(part) for part in text.split(",") if part]

    parse.__name__ = f"list of {kind.__name__}"  # argparse shows it
    return parse


def _positive(text: str) -> int:
    """Parse a number of jobs."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return int(text)


def _sparsity(sparsity: float) -> tuple[str, ...]:
    """The arguments that set a sparsity."""
    if not 0 < sparsity < 1:
        raise ValueError(
            "`--sparsities` must be fractions of zeros between 0 and 1; got "
            f"{sparsity}. A config that does not prune, such as digits/dense, "
            "needs none."
        )
    return (f"--config.budget.sparsity={sparsity}",)


def _limits(budget: str) -> tuple[str, ...]:
    """The arguments that set a budget; a config's own limit on MACs is lifted."""
    limits = {"macs": "1.0"}
    for part in budget.split("+"):
        name, _, limit = part.partition(":")
        try:
            good = 0 < float(limit) <= 1
        except ValueError:
            good = False
        if not good:
            raise ValueError(
                f"`--budgets={budget}` requires limits such as macs:0.5, fractions of "
                f"the dense cost between 0 and 1; got {part!r}."
            )
        limits[name] = limit
    return tuple(f"--config.budget.{name}={limit}" for name, limit in limits.items())


def _known(config: str) -> str:
    """The name of a config that is in `experiments/configs`, or else its path."""
    name = configs.name_of(config)
    return name if name in configs.names() else config


def _points(config: str, found: Any, weights: _Sizes, channels: _Sizes) -> _Sizes:
    """The points at which a config runs, those of its kind."""
    if found.method.get("penalty_weight") is not None:
        raise ValueError(
            f"`--configs={config}`: `config.method.penalty_weight` decides its "
            "size, so it cannot be swept over sparsities."
        )
    if not found.phases.prune:
        return {DENSE: ()}
    points = channels if prunes_channels(found.plan) else weights
    if not points:
        raise ValueError(
            f"`--configs={config}` prunes; say to what size, with `--sparsities`, or "
            "with `--budgets` if it prunes channels."
        )
    return points


def _computed(arguments: Iterable[str]) -> set[str]:
    """The arguments that say what is computed; a config by its name, not its path."""
    named = (
        f"--config={configs.name_of(argument.removeprefix('--config='))}"
        if argument.startswith("--config=")
        else argument
        for argument in arguments
    )
    return {name for name in named if name.startswith("--config")} - {_QUIET}
