"""The file `metrics.jsonl` of a run, which a kill may cut off inside a line."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from experiments.logging.files import write_atomically

METRICS_FILE = "metrics.jsonl"


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read the lines of a `metrics.jsonl`, also of a run that is still going on.

    A half-written last line is left out; numbers that were not finite are None.

    Raises:
      ValueError: If a line before the last is not a JSON object.
    """
    return [record for _, record in _parse(Path(path))]


def append(file: BinaryIO, line: bytes) -> None:
    """Append a whole line or nothing."""
    start = os.fstat(file.fileno()).st_size
    rest = memoryview(line)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(file.fileno(), start)
        raise


def forget_after(path: Path, step: int) -> None:
    """Keep the lines up to a step, or none at step 0."""
    kept = [line for line, record in _parse(path) if record.get("step", 0) <= step]
    content = b"".join(line + b"\n" for line in kept) if step else b""
    if content != path.read_bytes():
        write_atomically(path, content)


def _parse(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Yield every whole line, without its end, and the object in it."""
    lines = path.read_bytes().split(b"\n")
    while lines and not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError("not an object")
        except ValueError as error:
            if number == len(lines):
                return  # cut off when its process was killed
            raise ValueError(
                "`read_metrics(...)` needs a JSON object in every line;"
                f" {path}:{number} holds {line[:60]!r}. Delete that line to go on"
                " without it."
            ) from error
        yield line, record
