"""How far a run is, for the eye: a live bar in a terminal, plain lines in a log."""

import math
import sys
import time
from collections.abc import Callable
from datetime import timedelta

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column

# Seconds between two looks at a live number. Converting an array of an accelerator
# waits for the device, so a fast loop must not do it in every step.
_REFRESH_SECONDS = 0.25


class Bar:
    """A live bar for a terminal; what is printed meanwhile stands above it."""

    def __init__(self, total_steps: int, resume_step: int):
        self._total_steps = total_steps
        self._shown_step, self._shown = resume_step, -math.inf
        # The text has what the other columns leave, and is cut off there.
        rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")
        self._progress = Progress(
            TaskProgressColumn(),
            BarColumn(bar_width=10),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.description}", markup=False, table_column=rest),
            console=Console(file=sys.stderr),
            expand=True,
        )
        self._task = self._progress.add_task(
            "", total=total_steps, completed=resume_step
        )
        self._progress.start()

    def update(self, step: int, text: Callable[[], str]) -> None:
        """Show the step and a text, if it is time to."""
        last = step >= self._total_steps > self._shown_step
        if last or time.monotonic() - self._shown >= _REFRESH_SECONDS:
            self._shown_step, self._shown = step, time.monotonic()
            self._progress.update(self._task, completed=step, description=text())

    def close(self) -> None:
        """Show nothing more."""
        self._progress.stop()


class Lines:
    """A plain line per tenth of the run, for log files."""

    def __init__(self, total_steps: int, resume_step: int):
        self._total_steps = max(total_steps, 1)
        self._resume_step = resume_step
        self._tenth = self._tenths(resume_step)
        self._started = time.monotonic()

    def update(self, step: int, text: Callable[[], str]) -> None:
        """Show the step and a text, if it is time to."""
        if self._tenths(step) == self._tenth:
            return
        self._tenth = self._tenths(step)
        pace = (time.monotonic() - self._started) / (step - self._resume_step)
        left = timedelta(seconds=round(pace * max(self._total_steps - step, 0)))
        done = f"step {step}/{self._total_steps} ({step / self._total_steps:.0%})"
        parts = [done, text(), f"{left} left"]
        print(", ".join(filter(None, parts)), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Show nothing more."""

    def _tenths(self, step: int) -> int:
        return 10 * step // self._total_steps


def display(total_steps: int, resume_step: int) -> Bar | Lines:
    """Return what shows progress on standard error."""
    # Not whether rich takes it for a terminal: continuous integration asks for colours
    # in its logs by variables that rich reads as one.
    live = sys.stderr.isatty() and not Console(file=sys.stderr).is_dumb_terminal
    return (Bar if live else Lines)(total_steps, resume_step)
