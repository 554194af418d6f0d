"""Writing files that readers see whole or not at all, with errors that name them."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


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


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Make an `OSError` name the file, which failed writes do not do themselves."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
