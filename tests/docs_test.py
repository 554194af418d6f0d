"""The pages of `docs/`: their code runs, and everything public has an entry."""

import importlib
import inspect
import re
from pathlib import Path

import jax
import pytest

import jaxprune
from tests.support import blocks
from tests.support.rows import rows

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
PAGES = {str(path.relative_to(DOCS)): path for path in sorted(DOCS.rglob("*.md"))}
WITH_CODE = [name for name, path in PAGES.items() if blocks.blocks(path)]
# Pages that compile whole training steps, one after the other; `make test-slow` runs
# them, and `scripts_test` the scripts that two of them are about.
DEAR = {
    *("extending/index.md", "guides/equinox.md", "guides/haiku.md", "guides/nnx.md"),
    *("guides/train_state.md", "guides/mixed_precision.md", "guides/selections.md"),
    *("coming_from/torchao.md", "coming_from/jaxpruner.md"),
}
MODULES = [
    name
    for name in [*jaxprune.__all__, "io", "testing"]
    if inspect.ismodule(getattr(jaxprune, name, None)) or name == "testing"
]


def _entries(name):
    text = (REFERENCE / f"{name}.md").read_text()
    return re.findall(r"^::: (\S+)$", text, re.M)


def _public(name):
    """What a module or a folder of the library exports."""
    module = importlib.import_module(f"jaxprune.{name}")
    names = getattr(module, "__all__", None) or [
        key
        for key, value in vars(module).items()
        if key[0] != "_" and getattr(value, "__module__", "") == module.__name__
    ]
    return [f"jaxprune.{name}.{key}" for key in names]


@pytest.mark.parametrize("name", MODULES)
def test_everything_public_has_an_entry_in_the_reference(name):
    first, *entries = _entries(name)
    assert first == f"jaxprune.{name}"
    assert sorted(entries) == sorted(_public(name))


def test_the_names_of_the_package_lead_to_their_entries():
    text = (REFERENCE / "index.md").read_text()
    links = dict(re.findall(r"\| \[`(\w+)`\]\[jaxprune\.([\w.]+)\] \|", text))
    names = [x for x in jaxprune.__all__ if not inspect.ismodule(getattr(jaxprune, x))]
    assert sorted(links) == sorted(names)
    for name, target in links.items():
        folder, _, key = target.partition(".")
        assert f"jaxprune.{target}" in _entries(folder)
        value = getattr(importlib.import_module(f"jaxprune.{folder}"), key)
        assert value is getattr(jaxprune, name)
    folders = re.findall(r"\| \[`jaxprune\.(\w+)`\]\((\w+)\.md\) \|", text)
    assert {name for name, _ in folders} == set(MODULES)


def test_every_page_is_in_the_contents():
    contents = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    assert set(re.findall(r"(\S+\.md)$", contents, re.M)) == set(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_to_files(name):
    path = PAGES[name]
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        assert (path.parent / target).exists(), target


@pytest.mark.parametrize("name", rows(WITH_CODE, {*WITH_CODE} - DEAR))
def test_the_code_of_a_page_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "page"}
    code = blocks.blocks(PAGES[name])
    asserts = r"^(\s*assert |with pytest\.)"
    assert any(re.search(asserts, text, re.M) for text in code.values())
    # A reader's code may add a bias of one axis to rows of two.
    with jax.numpy_rank_promotion("allow"):
        for line, source in code.items():
            blocks.run(PAGES[name], line, source, names)
