"""How far a run is, for the eye: a live bar in a terminal, plain lines in a log."""

import math
import sys
import time

from tqdm import tqdm

# Seconds between two looks at a live number. Converting an array of an accelerator
# waits for the device, so a fast loop must not do it in every step.
_REFRESH_SECONDS = 0.25


class Bar:
    """A live bar for a terminal."""

    def __init__(self, total_steps: int, resume_step: int):
        self._bar = tqdm(
            total=total_steps,
            initial=resume_step,
            file=sys.stderr,
            dynamic_ncols=True,
            unit="step",
            bar_format=(
                "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}"
                " [{elapsed}<{remaining}{postfix}]"
            ),
        )
        self._shown = -math.inf

    def due(self, step: int) -> bool:
        """Whether it is time to show something again."""
        last = step >= (self._bar.total or 0) > self._bar.n
        return last or time.monotonic() - self._shown >= _REFRESH_SECONDS

    def show(self, step: int, text: str) -> None:
        """Show the step, and numbers as a text."""
        self._shown = time.monotonic()
        self._bar.n = step
        self._bar.set_postfix_str(text)

    def close(self) -> None:
        """Show nothing more."""
        self._bar.close()


class Lines:
    """A plain line per tenth of the run, for log files."""

    def __init__(self, total_steps: int, resume_step: int):
        self._total_steps = max(total_steps, 1)
        self._resume_step = resume_step
        self._tenth = self._tenths(resume_step)
        self._started = time.monotonic()

    def due(self, step: int) -> bool:
        """Whether it is time to show something again."""
        return self._tenths(step) > self._tenth

    def show(self, step: int, text: str) -> None:
        """Show the step, and numbers as a text."""
        self._tenth = self._tenths(step)
        pace = (time.monotonic() - self._started) / (step - self._resume_step)
        left = tqdm.format_interval(round(pace * max(self._total_steps - step, 0)))
        done = f"step {step}/{self._total_steps} ({step / self._total_steps:.0%})"
        parts = [done, text, f"{left} left"]
        print(", ".join(filter(None, parts)), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Show nothing more."""

    def _tenths(self, step: int) -> int:
        return 10 * step // self._total_steps
