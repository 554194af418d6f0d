"""Runs the examples of docstrings, and finds the modules of a package."""

import ast
import doctest
import importlib
import pkgutil
from pathlib import Path

import jax


def modules(package):
    """Names of a package and of all modules below it."""
    prefix = f"{package.__name__}."
    below = pkgutil.walk_packages(package.__path__, prefix)
    return [package.__name__, *(module.name for module in below)]


def run(name):
    """Runs the examples of a module; returns how many failed, ran and are written."""
    module = importlib.import_module(name)
    # Examples are a user's code, which may add a bias of one axis to rows of two.
    with jax.numpy_rank_promotion("allow"):
        results = doctest.testmod(module, report=True)
    tree = ast.parse(Path(module.__file__).read_text())
    written = sum(
        len(doctest.DocTestParser().get_examples(ast.get_docstring(node) or ""))
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
    )
    return results.failed, results.attempted, written
