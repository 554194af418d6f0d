"""Configs by name: one file for each reported run; `default` documents every field.

The name of a config is its path in this folder without `.py`, such as `digits/ltp`. A
path to any other file with a function `get_config` stands for that file; its name is
that of the file. What follows a colon is given to `get_config`: `mnist1d/ltp:mlp1d`.
Fields are changed by `field=value`, and only here.
"""

import ast
import difflib
import importlib
import importlib.util
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

OVERRIDE = "--config."
"""What an argument that changes a field of the config begins with."""

_FOLDER = Path(__file__).parent
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def names() -> list[str]:
    """Return the names of all configs in this folder, in order."""
    files = (path.relative_to(_FOLDER) for path in _FOLDER.glob("*/*.py"))
    found = (file.with_suffix("").as_posix() for file in files)
    return sorted(name for name in found if not name.endswith("__init__"))


def name_of(text: str) -> str:
    """Return the name of a config that is given by its name or by a path.

    >>> name_of("experiments/configs/digits/ltp.py"), name_of("digits/ltp.py")
    ('digits/ltp', 'digits/ltp')
    >>> name_of("/home/me/mine.py")
    'mine'
    >>> name_of("mnist1d/ltp.py:mlp1d")
    'mnist1d/ltp:mlp1d'
    """
    file, colon, argument = text.partition(":")
    name = file.removesuffix(".py").rpartition("configs/")[2]
    known = name if name in names() else Path(name).name
    return f"{known}{colon}{argument}"


def load(text: str) -> Any:
    """Return the config of a name or a path.

    Args:
      text: a name such as `digits/ltp`, with or without `.py`; or the path of a file;
        either with the argument of its `get_config` behind a colon.

    Raises:
      ValueError: if there is no such config; the message has names that are near.
    """
    text, _, argument = text.partition(":")
    given = (argument,) if argument else ()
    name = name_of(text)
    path = Path(text)
    if name in names() and (not path.is_file() or _FOLDER in path.resolve().parents):
        module = importlib.import_module(f"{__name__}.{name.replace('/', '.')}")
        return module.get_config(*given)
    if path.is_dir() or not path.exists():
        path = Path(f"{text}.py")
    if not path.is_file():
        files = {known.split("/")[1]: known for known in reversed(names())}
        near = did_you_mean(text, {**files, **{known: known for known in names()}})
        same = [repr(known) for known in names() if _is_meant(known, text)]
        if same:
            near = f" Did you mean {' or '.join(same)}?"
        raise ValueError(
            f"`config={text!r}`: there is no such config.{near} `python -m experiments "
            "train --help` lists them; any other is given by the path of its file."
        )
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise ValueError(
            f"`config={text!r}`: the file has no function `get_config`. Start from "
            "`experiments.configs.default.get_config()`."
        )
    return module.get_config(*given)


def override(config: Any, argument: str) -> None:
    """Set a field as an argument of the command line says.

    Args:
      config: the config; changed in place.
      argument: `--config.field=value`; the value is of the type of the field.

    Raises:
      ValueError: if there is no such field, or the value is of another type.
    """
    name, _, text = argument.removeprefix(OVERRIDE).partition("=")
    known = [field for field, _ in leaves(config)]
    check_name(name, known, config.plan.title)
    *folders, last = name.split(".")
    for folder in folders:
        config = config[folder]
    kind = config.get_type(last)
    try:
        config[last] = _value(kind, text)
    except (ValueError, TypeError, SyntaxError) as error:
        wanted = getattr(kind, "__name__", str(kind))
        raise ValueError(
            f"`{argument}`: the field {name!r} must be of type {wanted}; got {text!r}."
        ) from error


def split_overrides(arguments: Iterable[str]) -> list[str]:
    """Return the arguments if all are `--config.field=value`.

    Raises:
      ValueError: naming the first that is not.
    """
    arguments = list(arguments)
    for argument in arguments:
        if not argument.startswith(OVERRIDE) or "=" not in argument:
            raise ValueError(
                f"unknown argument {argument}; a field is --config.field=value"
            )
    return arguments


def check_name(name: str, known: Iterable[str], method: str) -> None:
    """Refuse a name, such as `budget.macs`, that no field has.

    Args:
      name: of a field, with those of its sections.
      known: the names of all fields.
      method: the title of the method, whose fields are among them.

    Raises:
      ValueError: with the names that are near.
    """
    known = list(known)
    if name in known:
        return
    files = {field.rpartition(".")[2]: field for field in known}
    near = did_you_mean(name, {**files, **{field: field for field in known}})
    raise ValueError(
        f"`config.{name}`: there is no such field for {method}.{near} `python -m "
        "experiments train --help --config=...` lists the fields of a config."
    )


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and the value of every field that is not a section."""
    for name, value in config.items():
        if isinstance(value, type(config)):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _is_meant(name: str, text: str) -> bool:
    """Whether a text is a name without its folder, or its words in another order."""
    words, given = (sorted(re.split("[/_]", one)) for one in (name, text))
    return name.split("/")[1] == text or words == given


def did_you_mean(name: str, known: Iterable[str] | Mapping[str, str]) -> str:
    """Return a sentence with names that are near; empty if none is.

    Args:
      name: what was given.
      known: what there is; of a mapping, its values stand in the sentence.
    """
    known = known if isinstance(known, Mapping) else {n: n for n in known}
    found = difflib.get_close_matches(name, known, n=3, cutoff=0.55)
    near = dict.fromkeys(repr(known[key]) for key in found)
    return f" Did you mean {' or '.join(near)}?" if near else ""


def _value(kind: type, text: str) -> Any:
    """The value that a text stands for, as the type of its field says."""
    if kind is bool:
        if text.lower() not in _BOOLEANS:
            raise ValueError(text)
        return _BOOLEANS[text.lower()]
    if text.lower() == "none" and kind is not str:
        return None
    if kind in (int, float, str):
        return kind(text)
    found = ast.literal_eval(text)
    return (found,) if kind is tuple and not isinstance(found, tuple) else found
