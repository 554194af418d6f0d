"""Which runs a sweep has, where they go, and which of them have finished."""

import ast
import dataclasses
import difflib
import importlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from experiments import config_check
from experiments.summary import SUMMARY_FILE

DENSE = "dense"
"""Stands in the place of the sparsity in the folder of a run that does not prune."""

OVERRIDE = "--config."
"""What an argument that changes a field of the config begins with."""

_CONFIGS = Path(__file__).parent / "configs"
_NO_CONFIGS = ("__init__", "default")
_QUIET = "--config.progress=false"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a sweep.

    Attributes:
      config: the name of a file in `experiments/configs`.
      sparsity: the fraction of zeros asked for; None for a config that does not prune
        weights.
      budget: the limits asked for, such as `macs:0.5`; None for a config that does not
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
        return f"{self.config} {self.point} seed {self.seed}"

    @property
    def point(self) -> str:
        """The sparsity or budget as its folder is called."""
        return _folder(self.sparsity, self.budget)

    @property
    def flags(self) -> list[str]:
        """The arguments of `experiments.main` that say what is computed."""
        asked = [] if self.sparsity is None else [f"--config.sparsity={self.sparsity}"]
        return [
            f"--config={os.path.relpath(_CONFIGS / self.config)}.py",
            *asked,
            *_limits(self.budget),
            f"--config.seed={self.seed}",
            *self.overrides,
        ]

    @property
    def arguments(self) -> list[str]:
        """All arguments of `experiments.main`."""
        return [*self.flags, f"--workdir={self.workdir}", _QUIET]


def plan_runs(
    configs: Sequence[str],
    sparsities: Sequence[float],
    seeds: Sequence[int],
    workdir: str | Path,
    overrides: Sequence[str] = (),
    budgets: Sequence[str] = (),
) -> list[Run]:
    """List the runs of a sweep.

    Args:
      configs: names of files in `experiments/configs`.
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
                f"{sparsity}. A config that does not prune, such as dense_digits, "
                "needs none."
            )
    for override in overrides:
        field = override.removeprefix(OVERRIDE).partition("=")[0]
        if field in ("sparsity", "seed"):
            plural = {"sparsity": "sparsities", "seed": "seeds"}[field]
            raise ValueError(f"`{override}` is what `--{plural}` says for a sweep.")
    for budget in budgets:
        _limits(budget)
    points = {}
    for config in configs:
        fields = _fields(config)
        for override in overrides:
            _check_override(override, config, fields)
        points[config] = _points(config, fields, sparsities, budgets)
    runs = [
        Run(
            config=config,
            sparsity=sparsity,
            seed=seed,
            workdir=Path(workdir) / config / _folder(sparsity, budget) / str(seed),
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
    """Refuse a run whose config, with its overrides, `experiments.main` would refuse.

    Args:
      run: the run.

    Raises:
      ValueError: naming the run and the field.
    """
    config = _fields(run.config)
    try:
        for argument in run.flags[1:]:
            _apply(config, *argument.removeprefix(OVERRIDE).split("=", 1))
        config_check.check(config)
    except (ValueError, SyntaxError) as error:
        raise ValueError(f"The run {run} cannot start. {error}") from error


def _apply(config: Any, name: str, text: str) -> None:
    """Set a field as an argument of the command line does."""
    *folders, last = name.split(".")
    for folder in folders:
        config = config[folder]
    kind = config.get_type(last)
    if kind is bool:
        config[last] = text.lower() in ("true", "1")
    elif kind in (int, float, str):
        config[last] = kind(text)
    else:
        config[last] = ast.literal_eval(text)


def summary_of(run: Run) -> dict[str, Any] | None:
    """Read the `summary.json` of a run that has finished as it is asked for.

    Args:
      run: the run.

    Returns:
      The summary; None if there is none, the run did not finish, or another command
      made it. `experiments.main` decides about the last: it goes on, or says which
      field differs.
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


def _fields(config: str) -> Any:
    """The fields of a config, by its name."""
    known = sorted({path.stem for path in _CONFIGS.glob("*.py")} - {*_NO_CONFIGS})
    if config not in known:
        raise ValueError(
            f"`--configs` requires names of {', '.join(known)}; got {config!r}."
            f"{_hint(config, known)}"
        )
    return importlib.import_module(f"experiments.configs.{config}").get_config()


def _hint(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _check_override(override: str, config: str, fields: Any) -> None:
    """Refuse what every run would refuse, before the first of them starts."""
    name, _, value = override.removeprefix(OVERRIDE).partition("=")
    if name.startswith("budget"):
        raise ValueError(f"`{override}` is what `--budgets` says for a sweep.")
    *folders, last = name.split(".")
    for folder in folders:
        fields = fields.get(folder) if hasattr(fields, "get") else None
    if not hasattr(fields, "get_type") or last not in fields:
        known = fields.keys() if hasattr(fields, "keys") else ()
        raise ValueError(
            f"`{override}`: the config {config!r} has no field {name!r}."
            f"{_hint(last, known)} The fields are in experiments/configs/default.py."
        )
    kind = fields.get_type(last)
    if kind in (int, float):
        try:
            kind(value)
        except ValueError:
            raise ValueError(
                f"`{override}`: the field {name!r} requires a value of type "
                f"{kind.__name__}, got {value!r}."
            ) from None


def _points(
    config: str,
    fields: Any,
    sparsities: Sequence[float],
    budgets: Sequence[str],
) -> list[tuple[float | None, str | None]]:
    """The sparsities or budgets at which a config runs, each once."""
    if fields.penalty_weight is not None:
        raise ValueError(
            f"`--configs={config}`: `config.penalty_weight` decides its "
            "size, so it cannot be swept over sparsities."
        )
    if not fields.prune_epochs:
        return [(None, None)]
    if any(limit is not None for limit in fields.budget.values()):
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
        f"--config={Path(argument).stem}"
        if argument.startswith("--config=")
        else argument
        for argument in arguments
    )
    return {name for name in named if name.startswith("--config")} - {_QUIET}
