"""Ctrl-C and SIGTERM as a question that a loop asks, not as an exception."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def counted(*names: str, once: bool = False) -> Iterator[Callable[[], int]]:
    """Count signals instead of ending; yield the function that returns the count.

    Outside the main thread, which alone gets signals, the count stays 0.

    Args:
      *names: such as `SIGINT`; those that the platform has not are left out.
      once: whether the second signal acts as it would have.
    """
    count = 0
    old: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in old.items():
            signal.signal(number, handler)

    def on_signal(number: int, frame: object) -> None:
        nonlocal count
        del number, frame
        count += 1
        if once:
            restore()

    try:
        for name in names:
            if hasattr(signal, name):
                number = getattr(signal, name)
                old[number] = signal.signal(number, on_signal)
    except ValueError:
        pass
    try:
        yield lambda: count
    finally:
        restore()
