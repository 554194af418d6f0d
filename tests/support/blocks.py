"""The Python code in pages of Markdown, and how it runs."""

import ast
import importlib.util
import re

import pytest

# Libraries that a page shows and the tests do not require.
OPTIONAL = ("equinox", "haiku")


def blocks(path):
    """The Python code of a page: first line to text."""
    text = path.read_text()
    found = re.finditer(r"^```python[^\n]*\n(.*?)^```", text, re.M | re.S)
    return {text.count("\n", 0, match.start(1)) + 1: match[1] for match in found}


def run(path, line, source, names):
    """Runs one block, which asserts what it shows."""
    for library in OPTIONAL:
        imported = re.search(rf"^(import|from) {library}\b", source, re.M)
        if imported and importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
    # Blank lines before it: an error then names the line of the page.
    code = ast.parse("\n" * (line - 1) + source)
    exec(compile(code, str(path), "exec"), names)
