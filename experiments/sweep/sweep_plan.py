"""Which runs a sweep has, where they go, and which of them have finished."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from experiments import configs
from experiments.configs import OVERRIDE
from experiments.logging.summary import SUMMARY_FILE
from experiments.plans.method import LIMITS, prunes_channels
from experiments.run import config_check

DENSE = "dense"
"""Stands in the place of the sparsity in the folder of a run that does not prune."""

_QUIET = "--config.run.progress=false"
_SWEPT = {
    "seed": "seeds",
    "budget.sparsity": "sparsities",
    **{f"budget.{name}": "budgets" for name in LIMITS},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a sweep.

    Attributes:
      config: its name, such as `digits/ltp`, or the path of its file.
      sparsity: the target fraction of zeros; None for a config that does not prune
        weights.
      budget: the limits, such as `macs:0.5`; None for a config that does not
        prune channels.
      seed: what everything random comes from.
      workdir: the folder of the run.
      overrides: further arguments, `--config.field=value`.
    """

    config: str
    sparsity: float | None
    seed: int
    workdir: Path
    budget: str | None = None
    overrides: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The name of the run in what the sweep prints."""
        return f"{configs.name_of(self.config)} {self.point} seed {self.seed}"

    @property
    def point(self) -> str:
        """The sparsity or budget as its folder is called."""
        return _folder(self.sparsity, self.budget)

    @property
    def flags(self) -> list[str]:
        """The arguments of `python -m experiments train` that say what is computed."""
        size = _limits(self.budget)
        if self.sparsity is not None:
            size = [f"--config.budget.sparsity={self.sparsity}"]
        return [
            f"--config={self.config}",
            *size,
            f"--config.seed={self.seed}",
            *self.overrides,
        ]

    @property
    def arguments(self) -> list[str]:
        """All arguments of `python -m experiments train`."""
        return [*self.flags, f"--workdir={self.workdir}", _QUIET]


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
    for sparsity in sparsities:
        if not 0 < sparsity < 1:
            raise ValueError(
                "`--sparsities` must be fractions of zeros between 0 and 1; got "
                f"{sparsity}. A config that does not prune, such as digits/dense, "
                "needs none."
            )
    for override in overrides:
        field = override.removeprefix(OVERRIDE).partition("=")[0]
        option = _SWEPT.get(field)
        if option:
            raise ValueError(f"`{override}` is what `--{option}` says for a sweep.")
    for budget in budgets:
        _limits(budget)
    points = {
        config: _points(config, _fields(config, overrides), sparsities, budgets)
        for config in dict.fromkeys(map(_known, configs_given))
    }
    _check_swept("sparsities", sparsities, [s for p in points.values() for s, _ in p])
    _check_swept("budgets", budgets, [b for p in points.values() for _, b in p])
    runs = [
        Run(
            config=config,
            sparsity=sparsity,
            seed=seed,
            workdir=Path(workdir)
            / configs.name_of(config)
            / _folder(sparsity, budget)
            / str(seed),
            budget=budget,
            overrides=tuple(overrides),
        )
        for seed in dict.fromkeys(seeds)
        for config in points
        for sparsity, budget in points[config]
    ]
    for run in runs:
        if run.seed == runs[0].seed:
            check_run(run)
    return runs


def check_run(run: Run) -> None:
    """Refuse a run whose config, with its overrides, is not valid.

    Args:
      run: the run.

    Raises:
      ValueError: naming the run and the field.
    """
    try:
        config_check.check(_fields(run.config, run.flags[1:]))
    except ValueError as error:
        raise ValueError(f"The run {run} cannot start. {error}") from error


def summary_of(run: Run) -> dict[str, Any] | None:
    """Read the `summary.json` of a run that has finished with these arguments.

    Args:
      run: the run.

    Returns:
      The summary; None if there is none, the run did not finish, or another command
      made it. Training decides about the last: it goes on, or says which field
      differs.
    """
    try:
        summary = json.loads((run.workdir / SUMMARY_FILE).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    same = _computed(summary.get("command", ())) == _computed(run.flags)
    return summary if same and summary.get("status") == "finished" else None


def _folder(sparsity: float | None, budget: str | None) -> str:
    """What the folder of a point is called."""
    if budget is not None:
        return budget
    return DENSE if sparsity is None else repr(sparsity)


def _limits(budget: str | None) -> list[str]:
    """The arguments that set a budget; a config's own limit on MACs is lifted."""
    if budget is None:
        return []
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
    return [f"--config.budget.{name}={limit}" for name, limit in limits.items()]


def _check_swept(option: str, given: Sequence[Any], used: Sequence[Any]) -> None:
    """Refuse sizes that no config of the sweep takes."""
    if given and not any(value is not None for value in used):
        kind = "single weights" if option == "sparsities" else "channels"
        raise ValueError(
            f"`--{option}`: no config of the sweep prunes {kind}. Leave it out."
        )


def _known(config: str) -> str:
    """The name of a config that is in `experiments/configs`, or else its path."""
    name = configs.name_of(config)
    return name if name in configs.names() else config


def _fields(config: str, overrides: Iterable[str]) -> Any:
    """The fields of a config, changed by arguments."""
    fields = configs.load(config)
    for override in overrides:
        configs.override(fields, override)
    return fields


def _points(
    config: str,
    fields: Any,
    sparsities: Sequence[float],
    budgets: Sequence[str],
) -> list[tuple[float | None, str | None]]:
    """The sparsities or budgets at which a config runs, each once."""
    if fields.method.get("penalty_weight") is not None:
        raise ValueError(
            f"`--configs={config}`: `config.method.penalty_weight` decides its "
            "size, so it cannot be swept over sparsities."
        )
    if not fields.phases.prune:
        return [(None, None)]
    if prunes_channels(fields.plan):
        points: list[Any] = [(None, budget) for budget in dict.fromkeys(budgets)]
    else:
        points = [(sparsity, None) for sparsity in dict.fromkeys(sparsities)]
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
