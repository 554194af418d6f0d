"""Every example that is shown runs: doctests, and the code of the README."""

import ast
import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import jax
import pytest

import experiments
import jaxprune

ROOT = Path(__file__).resolve().parent.parent


def _modules():
    for package in (jaxprune, experiments):
        yield package.__name__
        prefix = f"{package.__name__}."
        for module in pkgutil.walk_packages(package.__path__, prefix):
            yield module.name


MODULES = list(_modules())


def _blocks():
    """The Python code of the README: first line, and text."""
    text = (ROOT / "README.md").read_text()
    for match in re.finditer(r"^```python[^\n]*\n(.*?)^```", text, re.M | re.S):
        yield text.count("\n", 0, match.start(1)) + 1, match[1]


BLOCKS = dict(_blocks())


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_run(name):
    module = importlib.import_module(name)
    # Examples are a user's code, which may add a bias of one axis to rows of two.
    with jax.numpy_rank_promotion("allow"):
        results = doctest.testmod(module, report=True)
    assert results.failed == 0
    # Every example of the source is one that was attempted.
    tree = ast.parse(Path(module.__file__).read_text())
    shown = sum(
        len(doctest.DocTestParser().get_examples(ast.get_docstring(node) or ""))
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
    )
    assert results.attempted == shown


def test_there_are_examples_in_docstrings():
    finder, parser = doctest.DocTestFinder(), doctest.DocTestParser()
    found = {
        name: sum(
            len(parser.get_examples(test.docstring or ""))
            for test in finder.find(importlib.import_module(name))
        )
        for name in MODULES
    }
    assert sum(found.values()) > 40
    assert found["jaxprune.masks"] > 0
    assert found["jaxprune.methods"] > 0


def test_the_readme_has_python_code():
    assert BLOCKS, "README.md has no ```python block"


@pytest.mark.parametrize("line", BLOCKS)
def test_the_code_of_the_readme_runs(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Blank lines before it: an error then names the line of the README.
    source = "\n" * (line - 1) + BLOCKS[line]
    names: dict[str, object] = {"__name__": "readme"}
    exec(compile(source, "README.md", "exec"), names)  # which asserts what it shows
    assert names.keys() - {"__name__", "__builtins__"}
