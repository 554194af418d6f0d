"""Files that readers see whole or not at all, with errors that name them."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def write_atomically(path: str | os.PathLike[str], data: str | bytes) -> None:
    """Write or replace a file that readers see whole or not at all.

    Raises:
      OSError: Naming the file, if it cannot be written; an older one then stays.
    """
    path = Path(path)
    content = data.encode() if isinstance(data, str) else data
    # In the same folder, because a rename is atomic only inside one file system.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with naming(path):
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
      FileNotFoundError: If there is none.
      ValueError: Naming the file, if it holds something else.
    """
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(
            f"{str(path)!r} must hold JSON: {error}. It was cut off or changed. "
            "Restore it, or remove it."
        ) from error
    if not isinstance(found, dict):
        raise ValueError(
            f"{str(path)!r} must hold a JSON object, got a {type(found).__name__}. "
            "Restore it, or remove it."
        )
    return found


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Make an `OSError` name the file, which failed writes do not do themselves."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
