"""Configs say how they are run, and what to expect."""

import ast
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "experiments/configs"
CONFIGS = {
    path.stem: ast.get_docstring(ast.parse(path.read_text()))
    for path in sorted(FOLDER.glob("*.py"))
    if path.stem not in ("__init__", "default")
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_gives_its_command_and_what_to_expect(name):
    text = " ".join(CONFIGS[name].split())
    command, expected = re.fullmatch(
        r".*\bCommand\b[^:]*: (.*) Expected: (.*)", text
    ).groups()
    assert command.startswith("python -m experiments.main ")
    assert f"--config=experiments/configs/{name}.py" in command
    assert f"--workdir=runs/{name}" in command
    assert re.search(r"\d %|table .* in README", expected)
    assert not re.search(r"\b(EXPECTED|TODO|TBD|XXX)\b", text)
