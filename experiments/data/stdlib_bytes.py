"""Bytes of Python's own standard library, for language models: no download.

The source of the folder `Lib` of the Python that runs, without tests, IDLE and what the
build of that Python made. Every Python version has other files, and distributions patch
some: numbers are comparable only within one version, which is that of the data set. Its
folder is `stdlib_bytes/VERSION`, its info says the same, and Pythons never share data.

A file goes to `test`, `validation` or `train` by a hash of its path, so that no file is
in two splits: about 1/20, 1/20 and the rest. An example is a window of bytes of a file,
and as its label the byte after each of them. Windows do not overlap and have one
length: what is left over at the end of a file is not used.
"""

import hashlib
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

VERSION = ".".join(map(str, sys.version_info[:3]))

_LEFT_OUT = {"test", "tests", "idlelib", "site-packages", "__pycache__"}
_GENERATED = ("_sysconfigdata", "config-")
_PARTS = 20


def splits(folder: Path | None = None) -> dict[str, tuple[Any, ...]]:
    """Returns numbers and contents of the files of each split.

    Args:
        folder: Where the files are; `None` for the standard library.
    """
    folder = folder or Path(sysconfig.get_path("stdlib"))
    found = {"train": [], "validation": [], "test": []}
    for path in _paths(folder):
        found[split_of(path)].append((folder / path).read_bytes())
    return {name: (range(len(texts)), texts) for name, texts in found.items()}


def windows(texts: Iterable[bytes], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts texts into windows.

    Args:
        texts: Contents of files.
        length: Bytes in a window, T.

    Returns:
        Windows, and the byte after each of their bytes, uint8, shape (N, T).
    """
    parts = []
    for text in texts:
        found = np.frombuffer(text, np.uint8)
        used = max(len(found) - 1, 0) // length * length
        parts.append(np.stack([found[:used], found[1 : used + 1]]))
    image, label = np.concatenate(parts, axis=1).reshape(2, -1, length)
    return image, label


def split_of(path: str) -> str:
    """Returns the split of a file, by its path in the folder."""
    part = hashlib.sha256(path.encode()).digest()[0] % _PARTS
    return {0: "test", 1: "validation"}.get(part, "train")


def _paths(folder: Path) -> list[str]:
    """The paths of the source files in a folder, in order."""
    found = (path.relative_to(folder) for path in folder.rglob("*.py"))
    return sorted(
        path.as_posix()
        for path in found
        if not (path.parts[0].startswith(_GENERATED) or _LEFT_OUT & {*path.parts})
    )
