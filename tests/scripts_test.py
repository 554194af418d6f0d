"""The training scripts of `examples/`: the lines that pruning changes; they run."""

import difflib
import importlib.util
import warnings
from pathlib import Path

import jax
import pytest

import jaxprune

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

# Lines that differ from `dense.py`, imports not counted, at most.
LINES = {
    "train_state/ltp.py": 6,
    "train_state/lats.py": 6,  # 1, and 5 of fine-tuning
    "train_state/one_shot.py": 2,
    "train_state/dsa.py": 15,
    "nnx/ltp.py": 6,
    "nnx/lats.py": 6,
    "nnx/one_shot.py": 2,
    "nnx/dsa.py": 15,
}


def _load(path):
    spec = importlib.util.spec_from_file_location("script", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def _code(path):
    """The lines of a script behind its docstring, imports left out."""
    text = path.read_text()
    text = text[text.index('"""', 3) + 3 :]
    return [x for x in text.splitlines() if not x.startswith(("import ", "from "))]


def _changed(name):
    path = EXAMPLES / name
    lines = difflib.ndiff(_code(path.parent / "dense.py"), _code(path))
    return [x[2:] for x in lines if x.startswith("+ ") and x[2:].strip()]


def test_every_script_is_counted():
    scripts = {str(path.relative_to(EXAMPLES)) for path in EXAMPLES.glob("*/*.py")}
    assert scripts == {*LINES, "train_state/dense.py", "nnx/dense.py"}


@pytest.mark.parametrize("name", LINES)
def test_pruning_changes_few_lines(name):
    assert len(_changed(name)) <= LINES[name], _changed(name)


def test_lats_needs_one_line_while_training():
    for folder in ("train_state", "nnx"):
        pruning = [x for x in _changed(f"{folder}/lats.py") if "lats(" in x]
        assert len(pruning) == 1


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        pytest.param(
            *("train_state/ltp.py", ["--parallel=pmap"]), marks=pytest.mark.slow
        ),
        ("train_state/lats.py", []),
        pytest.param("train_state/dsa.py", [], marks=pytest.mark.slow),
        pytest.param("nnx/ltp.py", [], marks=pytest.mark.slow),
        ("nnx/one_shot.py", []),
        pytest.param("nnx/dsa.py", [], marks=pytest.mark.slow),
    ],
)
def test_a_script_runs(name, arguments, capsys):
    script = _load(EXAMPLES / name)
    with warnings.catch_warnings():
        # Three steps do not reach the target, and `finalize` says so.
        warnings.simplefilter("ignore")
        _, accuracy = script.main(
            script.parse_args(["--steps=3", "--batch-size=16", *arguments])
        )
    assert 0 <= accuracy <= 1
    assert "accuracy" in capsys.readouterr().out


# The numbered examples: a call of `main`, and what must hold of what it returns.
NUMBERED = {
    "01_one_shot.py": ({}, lambda pruned, masks: masks["in"]["bias"].shape == ()),
    "02_lats_in_a_chain.py": (
        {},
        lambda loss, report: loss < 0.01 and report.kept == 8,
    ),
    "03_channels.py": ({}, lambda macs, error: macs <= 0.5 and error < 1e-5),
    "04_nnx.py": ({"steps": 20}, lambda model, report: report.kept == 108),
    "05_decoder_to_half.py": ({}, lambda left, error: left <= 0.5 and error < 1e-5),
}


def test_every_numbered_example_is_short_and_is_run():
    paths = sorted(EXAMPLES.glob("*.py"))
    assert [path.name for path in paths] == sorted(NUMBERED)
    assert all(len(path.read_text().splitlines()) < 60 for path in paths)


@pytest.mark.parametrize("name", NUMBERED)
def test_a_numbered_example_runs(name, capsys):
    arguments, holds = NUMBERED[name]
    with warnings.catch_warnings(), jax.numpy_rank_promotion("allow"):
        # Few steps do not reach the target, and `finalize` says so.
        warnings.simplefilter("ignore", jaxprune.base.PruningWarning)
        result = _load(EXAMPLES / name).main(**arguments)
    assert holds(*result), result
    assert capsys.readouterr().out
