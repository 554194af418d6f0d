"""The wheel works alone, away from the repository and without a network."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _run(*command, cwd, **environment):
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    _run("-m", "hatchling", "build", "--target", "wheel", "-d", str(folder), cwd=ROOT)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_the_library_and_nothing_else(wheel):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    inside = {name for name in names if name.startswith("jaxprune/")}
    source = (ROOT / "jaxprune").rglob("*.py")
    assert inside == {
        "jaxprune/py.typed",
        *(path.relative_to(ROOT).as_posix() for path in source),
    }
    metadata = f"jaxprune-{version}.dist-info"
    assert names - inside == {
        f"{metadata}/{name}"
        for name in ("METADATA", "RECORD", "WHEEL", "licenses/LICENSE")
    }


def test_the_library_runs_from_its_wheel(wheel, tmp_path):
    installed, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    code = (
        "import doctest, importlib, jaxprune\n"
        "print(jaxprune.__file__)\n"
        "module = importlib.import_module('jaxprune.masks._from_scores')\n"
        "print(doctest.testmod(module).failed)"
    )
    # The folder alone: neither the repository nor what it installed as editable.
    out = _run("-W", "error", "-c", code, cwd=elsewhere, PYTHONPATH=str(installed))
    assert out.splitlines() == [str(installed / "jaxprune/__init__.py"), "0"]


def test_the_source_distribution_holds_all_that_the_readme_names(tmp_path):
    _run("-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path), cwd=ROOT)
    (path,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    readme = (ROOT / "README.md").read_text()
    linked = set(re.findall(r"\]\(([^)#:\s]+)\)", readme))
    folders = "docs|examples|experiments"
    quoted = set(re.findall(rf"`((?:{folders})/[\w./]+)`", readme))
    found = {name.rstrip("/") for name in linked | quoted}
    assert "CONTRIBUTING.md" in found
    assert "examples" in {name.partition("/")[0] for name in found}
    assert all(any(n == f or n.startswith(f"{f}/") for n in names) for f in found)
    for name in ("tests/wheel_test.py", "mkdocs.yml", "Makefile", "CITATION.cff"):
        assert name in names
