"""What the docstrings of public functions say, counted.

`python -m tests.support.docstrings` (`make docs-check`) prints the share of the
functions that say each thing, and those that do not; `docstrings_test` holds the shares
to a minimum. A criterion counts only where it applies: shapes where an argument is an
array, `Raises` where the function or what it calls in the library raises.
"""

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jaxprune

MINIMUM = 0.95

_FOLDERS = ("masks", "schedules", "prox", "transforms", "channels", "costs", "budgets")
_FOLDERS += ("calibration", "methods", "training", "io", "tree", "report", "base")
_FOLDERS += ("testing",)
# Where a function computes something, rather than read, write or list.
_COMPUTE = {"masks", "schedules", "prox", "transforms", "channels", "costs", "budgets"}
_COMPUTE |= {"methods", "calibration"}
# There, what checks, collects or times rather than computes.
_NO_RULE = {
    *("validate", "fill", "channel_masks", "trace_channels", "plan_gates"),
    *("measure", "interleaved", "identity", "global_", "random_keep_ratios"),
}
# Where methods of papers are.
_SOURCED = {"methods", "prox", "transforms"}
# Older than any paper that could be named, or our own.
_NO_SOURCE = {
    *("identity", "freeze_pruned", "check", "pruned_in_place", "box", "non_negative"),
    *("magnitude", "global_magnitude"),
}
_SECTIONS = r"^(Args|Returns|Yields|Raises|Examples?|References|Notes?|Attributes):"
_OPERATOR = r"[=<>≤≥∈^∘]| [*+/-] |\|[^|]+\||->|sum_|min_|max_|argmin"


class Function(NamedTuple):
    """A public function: its folder, its name, itself, and its docstring."""

    folder: str
    name: str
    value: Callable[..., Any]
    text: str


def functions() -> Iterator[Function]:
    """Every function that a folder of the library exports."""
    for folder in _FOLDERS:
        try:
            module = importlib.import_module(f"jaxprune.{folder}")
        except ModuleNotFoundError:
            continue
        names = getattr(module, "__all__", None) or [
            name
            for name, value in vars(module).items()
            if getattr(value, "__module__", "") == module.__name__ and name[0] != "_"
        ]
        for name in names:
            value = getattr(module, name)
            if inspect.isfunction(value):
                yield Function(folder, name, value, inspect.getdoc(value) or "")


def description(text: str) -> str:
    """What stands before the first section."""
    return re.split(_SECTIONS, text, maxsplit=1, flags=re.M)[0]


def section(text: str, name: str) -> str:
    """The text of a section, or nothing."""
    found = re.search(rf"^{name}:\n((?:[ \t]+.*\n?|\n)*)", text + "\n", re.M)
    return found[1] if found else ""


def _states_a_rule(function: Function) -> bool:
    """An indented formula, a table, or a formula in backticks."""
    lines = description(function.text).splitlines()
    indented = any(x[:2] == "  " and re.search(_OPERATOR, x) for x in lines)
    inline = re.findall(r"`([^`]+)`", description(function.text))
    rule = re.search(r"\bRule: ", function.text)
    return bool(indented or rule or any(re.search(_OPERATOR, x) for x in inline))


def _names_its_arguments(function: Function) -> bool:
    arguments = section(function.text, "Args")
    return all(
        re.search(rf"^\s+\*{{0,2}}{name}: ", arguments, re.M)
        for name in inspect.signature(function.value).parameters
    )


def _takes_arrays(function: Function) -> bool:
    # A number that may be traced is a scalar; functions and random keys have no shape.
    number = r"(float|int) \| [\w.]*Array|[\w.]*Array \| (float|int)"
    annotations = (
        re.sub(number, "", str(parameter.annotation))
        for name, parameter in inspect.signature(function.value).parameters.items()
        if name != "key"
    )
    return any("Array" in a and "Callable" not in a for a in annotations)


def _gives_shapes(function: Function) -> bool:
    arguments = section(function.text, "Args")
    return bool(re.search(r"shape|scalar|\(\)|\([A-Z0-9][\w, ]*,?\)", arguments))


def _returns_something(function: Function) -> bool:
    return inspect.signature(function.value).return_annotation not in (None, "None")


def _raises(value: Callable[..., Any], depth: int = 3) -> bool:
    """Whether a function of the library, or one that it calls there, raises."""
    if not depth or not getattr(value, "__module__", "").startswith("jaxprune"):
        return False
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(value)))
    except (OSError, TypeError, SyntaxError):
        return False
    if any(isinstance(node, ast.Raise) for node in ast.walk(tree)):
        return True
    names = vars(inspect.getmodule(value))
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Name):
            target = names.get(called.id)
        elif isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
            target = getattr(names.get(called.value.id), called.attr, None)
        else:
            continue
        if inspect.isfunction(target) and _raises(target, depth - 1):
            return True
    return False


class Criterion(NamedTuple):
    """What a docstring should say, and where."""

    applies: Callable[[Function], bool]
    holds: Callable[[Function], bool]


CRITERIA = {
    "formula or rule": Criterion(
        lambda f: f.folder in _COMPUTE and f.name not in _NO_RULE, _states_a_rule
    ),
    "Args": Criterion(
        lambda f: bool(inspect.signature(f.value).parameters), _names_its_arguments
    ),
    "shapes": Criterion(_takes_arrays, _gives_shapes),
    "Returns": Criterion(
        _returns_something,
        lambda f: bool(section(f.text, "Returns") or section(f.text, "Yields")),
    ),
    "Raises": Criterion(
        lambda f: _raises(f.value), lambda f: bool(section(f.text, "Raises"))
    ),
    "source": Criterion(
        lambda f: f.folder in _SOURCED and f.name not in _NO_SOURCE,
        lambda f: bool(section(f.text, "References") or re.search(r"\[\w+\]", f.text)),
    ),
    "example": Criterion(lambda f: True, lambda f: ">>> " in f.text),
}


def coverage() -> dict[str, tuple[float, list[str]]]:
    """For each criterion the share of functions that meet it, and those that do not."""
    result = {}
    everything = list(functions())
    for name, criterion in CRITERIA.items():
        where = [f for f in everything if criterion.applies(f)]
        missing = [f"{f.folder}.{f.name}" for f in where if not criterion.holds(f)]
        share = 1 - len(missing) / len(where) if where else 1.0
        result[name] = share, missing
    return result


def table() -> str:
    """The shares and what is missing, as text."""
    lines = []
    for name, (share, missing) in coverage().items():
        lines.append(f"{name:16}{share:7.1%}")
        lines += textwrap.wrap(
            ", ".join(missing), 88, initial_indent="    ", subsequent_indent="    "
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(f"jaxprune {jaxprune.__version__}: {len(list(functions()))} public functions")
    print(table())
