"""The training scripts of `examples/`: the lines that pruning changes; they run."""

import difflib
import importlib.util
import warnings
from pathlib import Path

import pytest

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
        ("train_state/dsa.py", []),
        ("nnx/ltp.py", []),
        ("nnx/one_shot.py", []),
        pytest.param("nnx/dsa.py", [], marks=pytest.mark.slow),
    ],
)
def test_a_script_runs(name, arguments, capsys):
    spec = importlib.util.spec_from_file_location("script", EXAMPLES / name)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    with warnings.catch_warnings():
        # Three steps do not reach the target, and `finalize` says so.
        warnings.simplefilter("ignore")
        _, accuracy = script.main(
            script.parse_args(["--steps=3", "--batch-size=16", *arguments])
        )
    assert 0 <= accuracy <= 1
    assert "accuracy" in capsys.readouterr().out
