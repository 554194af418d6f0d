"""The layout: the order of folders, public names, documentation, sizes."""

import ast
import builtins
import functools
import importlib
import inspect
import pydoc
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import jaxprune

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "jaxprune"

# A folder (or a module of the root) imports from itself and from those before it.
ORDER = (
    "base",
    "tree",
    "masks",
    "schedules",
    "prox",
    "transforms",
    "channels",
    "calibration",
    "costs",
    "budgets",
    "methods",
    "training",
    "io",
    "report",
    "testing",
)
PACKAGES = tuple(name for name in ORDER if (PACKAGE / name).is_dir())
LONG = 40  # lines of code of a function, its docstring not counted


def _modules():
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(p for p in parts if p != "__init__")] = path
    return found


MODULES = _modules()


@functools.cache
def _tree(name):
    return ast.parse(MODULES[name].read_text())


def _imports(name):
    """Modules of the library that a module imports, anywhere in its source."""
    targets = set()
    for node in ast.walk(_tree(name)):
        if isinstance(node, ast.Import):
            targets |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            targets |= {f"{node.module}.{alias.name}" for alias in node.names}
    ours = set()
    for target in targets:
        if target.partition(".")[0] == "jaxprune":
            place = target.removeprefix("jaxprune").removeprefix(".")
            while place and place not in MODULES:  # a name in a module: the module
                place = place.rpartition(".")[0]
            ours.add(place)
    return ours


def _public():
    """Every name that the package or one of its folders exports, by full name."""
    for place in ("jaxprune", *(f"jaxprune.{name}" for name in PACKAGES)):
        module = importlib.import_module(place)
        for name in module.__all__:
            yield f"{place}.{name}", getattr(module, name)
    for place in ("jaxprune.tree", "jaxprune.report", "jaxprune.testing"):
        module = importlib.import_module(place)
        for name, value in vars(module).items():
            own = getattr(value, "__module__", "") == place
            if own and not name.startswith("_"):
                yield f"{place}.{name}", value


PUBLIC = dict(_public())
FUNCTIONS = {
    name: value
    for name, value in PUBLIC.items()
    if inspect.isfunction(value) and name.count(".") == 2
}


def _run(code):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout


def test_the_root_holds_few_entries_and_all_of_them_are_ordered():
    entries = {
        path.stem
        for path in PACKAGE.iterdir()
        if path.name not in ("__pycache__", "__init__.py", "py.typed")
    }
    assert entries == set(ORDER)
    assert len(entries) <= 15


@pytest.mark.parametrize("name", MODULES)
def test_imports_follow_the_order_of_folders(name):
    if not name:
        return
    here = ORDER.index(name.partition(".")[0])
    for target in _imports(name):
        assert ORDER.index(target.partition(".")[0]) <= here, target


def test_this_test_sees_imports():
    assert "base._protocols" in _imports("tree._selection")
    assert "tree" in {name.partition(".")[0] for name in _imports("methods._ltp")}


def test_methods_do_not_know_each_other():
    helpers = {"methods._gates", "methods._keep_probabilities", "methods._one_shot"}
    helpers |= {"methods._soft_threshold_base", "methods._weights"}
    helpers |= {"methods._channel_rows", "methods._observed"}
    for name in MODULES:
        if name.startswith("methods."):
            others = {t for t in _imports(name) if t.startswith("methods")}
            assert others <= helpers


@pytest.mark.parametrize("name", ["", *PACKAGES])
def test_a_package_re_exports_and_holds_no_logic(name):
    exported = set()
    for node in ast.parse((PACKAGE / name / "__init__.py").read_text()).body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        dunder = isinstance(node, ast.Assign) and node.targets[0].id.startswith("__")
        assert isinstance(node, ast.ImportFrom) or docstring or dunder
        for alias in getattr(node, "names", ()):
            assert alias.asname in (alias.name, "_version")
            exported.add(alias.asname)
    module = importlib.import_module(f"jaxprune.{name}".rstrip("."))
    hiding = {"_version", *sys.stdlib_module_names} if not name else {"_version"}
    assert set(module.__all__) == exported - hiding
    assert list(module.__all__) == sorted(module.__all__)


def test_a_star_import_hides_no_module_of_the_standard_library_and_no_builtin():
    names: dict[str, object] = {}
    exec("import io, select\nfrom jaxprune import *", names)
    assert names["io"] is sys.modules["io"]
    assert names["select"] is sys.modules["select"]
    taken = sys.stdlib_module_names | set(dir(builtins))
    assert not taken.intersection(jaxprune.__all__)
    for folder in PACKAGES:
        module = importlib.import_module(f"jaxprune.{folder}")
        assert not set(dir(builtins)).intersection(module.__all__)


@pytest.mark.parametrize("name", ["", *PACKAGES])
def test_help_lists_what_is_exported(name):
    module = importlib.import_module(f"jaxprune.{name}".rstrip("."))
    text = pydoc.plain(pydoc.render_doc(module))
    for exported in module.__all__:
        value = getattr(module, exported)
        if inspect.isfunction(value) or inspect.isclass(value):
            assert re.search(rf"\b{exported}\b", text), exported


def test_no_module_hides_behind_a_function():
    for name, path in MODULES.items():
        if name.count(".") == 1 and path.name != "__init__.py":
            assert inspect.ismodule(
                getattr(
                    importlib.import_module(f"jaxprune.{name.split('.')[0]}"),
                    name.split(".")[1],
                )
            )


def _mentioned():
    """Dotted names of the library in the README, the changelog and docstrings."""
    for path in [ROOT / "README.md", ROOT / "CHANGELOG.md", *MODULES.values()]:
        if path.exists():
            for match in re.finditer(
                r"\bjaxprune(?:\.[A-Za-z_]\w*)+", path.read_text()
            ):
                yield path.name, match[0]


def test_every_name_that_is_mentioned_resolves():
    missing = set()
    for where, name in set(_mentioned()):
        value = jaxprune
        for part in name.split(".")[1:]:
            if not hasattr(value, part):
                missing.add((where, name))
                break
            value = getattr(value, part)
    assert not missing


def test_importing_the_library_loads_no_framework():
    heavy = {"flax", "orbax", "chex", "tensorflow", "sklearn", "grain", "tensorstore"}
    heavy |= {"matplotlib"}
    loaded = _run("import sys, jaxprune; print(*sorted(sys.modules))").split()
    assert "jaxprune.io" in loaded
    assert not heavy & {module.partition(".")[0] for module in loaded}


def test_importing_the_library_loads_nothing_else_and_starts_no_device():
    code = (
        "import sys, jax, optax; before = set(sys.modules); import jaxprune\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized()\n"
        "print(*{m.partition('.')[0] for m in set(sys.modules) - before})"
    )
    allowed = {"jaxprune", "jax", "optax", "numpy"} | sys.stdlib_module_names
    assert set(_run(code).split()) <= allowed


@pytest.mark.parametrize("name", PUBLIC)
def test_everything_public_is_documented(name):
    value = PUBLIC[name]
    text = inspect.getdoc(value) or ""
    if not (inspect.isfunction(value) or inspect.isclass(value)):
        return
    # NamedTuples and dataclasses get a docstring that is only their signature.
    assert text
    assert not text.startswith(f"{value.__name__}(")
    if inspect.isclass(value):
        fields = [f for f in getattr(value, "_fields", ()) if not f.startswith("_")]
        fields = fields or [
            f for f in getattr(value, "__dataclass_fields__", ()) if f[0] != "_"
        ]
        assert all(re.search(rf"^\s+{f}: ", text, re.M) for f in fields)
        for key, member in vars(value).items():
            if not key.startswith("_") and isinstance(member, property):
                assert inspect.getdoc(member)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_argument_is_documented(name):
    parameters = inspect.signature(FUNCTIONS[name]).parameters
    if parameters:
        text = inspect.getdoc(FUNCTIONS[name])
        section = text.partition("Args:")[2]
        for argument in parameters:
            assert re.search(rf"^\s+\*?{argument}: ", section, re.M), argument


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is_for(name):
    first_line = ast.get_docstring(_tree(name)).partition("\n")[0]
    assert first_line.endswith(".")


def _lines_of_code(function):
    body = function.body
    if ast.get_docstring(function) is not None:
        body = body[1:]
    inner = sum(
        _lines_of_code(node) + 1
        for node in ast.walk(ast.Module(body, []))
        if isinstance(node, ast.FunctionDef) and node in _direct(function)
    )
    return (body[-1].end_lineno - body[0].lineno + 1 if body else 0) - inner


def _direct(function):
    """The functions defined in a function, those inside of them not counted."""
    found, stack = [], list(ast.iter_child_nodes(function))
    while stack:
        node = stack.pop()
        if isinstance(node, ast.FunctionDef):
            found.append(node)
        else:
            stack += ast.iter_child_nodes(node)
    return found


@pytest.mark.parametrize("name", MODULES)
def test_no_function_is_long(name):
    for node in ast.walk(_tree(name)):
        if isinstance(node, ast.FunctionDef):
            assert _lines_of_code(node) <= LONG, node.name


@pytest.mark.parametrize("name", MODULES)
def test_the_library_neither_prints_nor_logs(name):
    tree = _tree(name)
    called = {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & {"print", "input", "breakpoint"}
    imported = {
        alias.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    } | {
        (node.module or "").partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
    }
    assert not imported & {"logging", "absl"}


@pytest.mark.parametrize("name", MODULES)
def test_only_io_knows_the_disk_and_no_module_knows_a_framework(name):
    text = MODULES[name].read_text()
    touches = re.search(
        r"^\s*(?:from|import) (pathlib|shutil|os|io|orbax)\b", text, re.M
    )
    assert not touches or name.startswith("io.")
    assert "import orbax" not in text.replace("from orbax", "import orbax") or name == (
        "io._checkpoint"
    )
    # Flax where a user of NNX asks for it, inside a function; chex for assertions.
    indent = r"\s*" if name not in ("training._nnx", "testing") else ""
    assert not re.search(rf"^{indent}(?:from|import) (flax|chex)\b", text, re.M)


def test_the_version_is_that_of_the_build_file():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert jaxprune.__version__ == project["version"]


def test_constraints_pin_versions_and_name_no_address():
    path = ROOT / "constraints.txt"
    if not path.exists():
        pytest.skip("no constraints.txt in this checkout")
    lines = [x for x in path.read_text().splitlines() if x and not x.startswith("#")]
    assert lines
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[^\s/@]+(\s*;.*)?", line), line


def test_tests_mirror_the_library():
    tests = ROOT / "tests"
    folders = {p.name for p in tests.iterdir() if p.is_dir()}
    assert folders <= {
        *PACKAGES,
        "experiments",
        "golden",
        "mutation",
        "support",
        "__pycache__",
    }


def test_tests_of_the_library_do_not_import_the_experiments():
    tests = ROOT / "tests"
    offenders = {
        str(path.relative_to(tests))
        for path in tests.rglob("*.py")
        if "experiments" not in path.relative_to(tests).parts
        and re.search(
            r"^\s*(from|import) (tests\.)?experiments", path.read_text(), re.M
        )
    }
    assert not offenders


# As `experiments/README.md` lists them.
EXPERIMENTS = (
    *("logging", "data", "models", "plans", "configs", "report", "run", "train"),
    *("sweep", "tables", "analyses", "benchmarks"),
)


def test_folders_of_the_experiments_import_from_those_before_them():
    folder = ROOT / "experiments"
    if not folder.is_dir():
        pytest.skip("no experiments in this checkout")
    upward = set()
    for path in folder.rglob("*.py"):
        name = path.relative_to(folder).with_suffix("").parts[0]
        if name in ("__init__", "__main__"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom) or not node.module:
                continue
            first, *rest = node.module.split(".")
            targets = rest[:1] or [alias.name for alias in node.names]
            if first == "experiments":
                upward |= {
                    (str(path.relative_to(folder)), target)
                    for target in targets
                    if EXPERIMENTS.index(target) > EXPERIMENTS.index(name)
                }
    assert not upward
