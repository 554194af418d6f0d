"""The examples of the library run: those of docstrings, and the code of the README."""

import ast
from pathlib import Path

import pytest

import jaxprune
from tests.support import blocks, doctests

ROOT = Path(__file__).resolve().parent.parent
MODULES = doctests.modules(jaxprune)


BLOCKS = blocks.blocks(ROOT / "README.md")


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_run(name):
    failed, attempted, written = doctests.run(name)
    assert failed == 0
    assert attempted == written  # None of the source was overlooked.


def test_there_are_examples_in_docstrings():
    sources = [path.read_text() for path in (ROOT / "jaxprune").rglob("*.py")]
    docstrings = [
        ast.get_docstring(node) or ""
        for source in sources
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    ]
    assert sum(">>> " in text for text in docstrings) > 40


def test_the_readme_has_python_code():
    assert BLOCKS, "README.md has no ```python block"


@pytest.mark.parametrize("line", BLOCKS)
def test_the_code_of_the_readme_runs(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "readme"}
    blocks.run(ROOT / "README.md", line, BLOCKS[line], names)
    assert names.keys() - {"__name__", "__builtins__"}
