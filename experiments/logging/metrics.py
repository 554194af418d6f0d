"""What a training run writes while it runs: numbers to disk, progress to the eye.

`MetricsWriter` appends one JSON object per line to `metrics.jsonl` and the same
numbers to TensorBoard event files. A run that was killed and resumed from its
checkpoint leaves the file that an undisturbed run would have left: everything newer
than the checkpoint is dropped before the first new line is written.
"""

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, SupportsFloat

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2 as _event_pb2
from tensorboardX.proto import summary_pb2 as _summary_pb2

from experiments.logging.files import naming
from experiments.logging.formatting import cost_name, percent
from experiments.logging.metrics_file import METRICS_FILE, append, forget_after
from experiments.logging.progress import Bar, Lines, display

TENSORBOARD_FOLDER = "tensorboard"

# Protocol buffers make their classes at import, where no type checker sees them.
event_pb2: Any = _event_pb2
summary_pb2: Any = _summary_pb2

# Seconds between two synchronizations of the event file with the disk.
_SYNC_SECONDS = 2.0


class MetricsWriter:
    """Writes the numbers of a run to disk and shows its progress.

    A context manager; files are opened on entry and closed on exit.

    Args:
      workdir: The folder of the run; made if it is not there. Lines go to
        `metrics.jsonl`, events to `tensorboard/`.
      total_steps: Steps of the whole run, those before a resumption included.
      progress: Whether to show progress on standard error: a live bar in a
        terminal, a line per tenth of the run elsewhere.
      resume_step: The step of the checkpoint that the run goes on from. Whatever was
        written for later steps is dropped. At 0 the run starts afresh: all is.
      enabled: Whether this process writes at all. In a run of several processes only
        process 0 should; the others do nothing and touch no file.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        total_steps: int,
        *,
        progress: bool = True,
        resume_step: int = 0,
        enabled: bool = True,
    ):
        if not 0 <= resume_step <= total_steps:
            raise ValueError(
                "`MetricsWriter(...)` needs 0 <= resume_step <= total_steps; got"
                f" resume_step={resume_step} and total_steps={total_steps}."
            )
        self._workdir = Path(workdir)
        self._total_steps = total_steps
        self._resume_step = resume_step
        self._enabled = enabled
        self._shows = enabled and progress
        self._file: BinaryIO | None = None
        self._events: EventsWriter | None = None
        self._synced = 0.0
        self._display: Bar | Lines | None = None

    @property
    def path(self) -> Path:
        """The `metrics.jsonl` of the run."""
        return self._workdir / METRICS_FILE

    def __enter__(self) -> Self:
        if self._enabled:
            with naming(self._workdir):
                self._workdir.mkdir(parents=True, exist_ok=True)
            if self.path.exists():
                forget_after(self.path, self._resume_step)
            with naming(self.path):
                # Unbuffered: a line is on its way to the disk when `write` returns,
                # so that a killed process loses nothing.
                self._file = self.path.open("ab", buffering=0)
            self._open_events()
        if self._shows:
            self._display = display(self._total_steps, self._resume_step)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._display is not None:
            self._display.close()
        try:
            if self._events is not None:
                with naming(self._workdir / TENSORBOARD_FOLDER):
                    self._events.close()
        except OSError:
            # On a full disk `write` has already said so; that error must be seen.
            if error is None:
                raise
        finally:
            if self._file is not None:
                self._file.close()
            self._file = self._events = self._display = None

    def write(self, step: int, scalars: Mapping[str, SupportsFloat | str]) -> None:
        """Append the numbers of one step to `metrics.jsonl` and to TensorBoard.

        Numbers (anything that `float` takes) that are not finite become `null`, as JSON
        has no others; texts go to `metrics.jsonl` only.

        Raises:
          OSError: Naming the file, if it cannot be written. No half of the line stays.
        """
        if not self._enabled:
            return
        if self._file is None:
            raise RuntimeError(
                "`MetricsWriter.write(...)` works inside `with MetricsWriter(...) as"
                " metrics:` only."
            )
        if "step" in scalars:
            raise ValueError(
                "`MetricsWriter.write(step, scalars)` takes the step as its first"
                f" argument; got it in scalars too, as {scalars['step']!r}."
            )
        values = {k: v if isinstance(v, str) else float(v) for k, v in scalars.items()}
        record = {"step": int(step)} | {k: _finite(v) for k, v in values.items()}
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        with naming(self.path):
            append(self._file, line)
        numbers = [
            summary_pb2.Summary.Value(tag=name, simple_value=value)
            for name, value in values.items()
            if not isinstance(value, str)
        ]
        summary = summary_pb2.Summary(value=numbers)
        self._write_event(step=int(step), summary=summary)

    def progress(
        self,
        step: int,
        *,
        keep_ratio: SupportsFloat | None = None,
        costs: Mapping[str, SupportsFloat] | None = None,
        accuracy: SupportsFloat | None = None,
        loss: SupportsFloat | None = None,
    ) -> None:
        """Show how far the run is; cheap enough for every step.

        Arrays may be given as they are. They are read only when the display is due,
        a few times a second at most, so that the device need not be waited for.
        """
        if self._display is None:
            return

        def text() -> str:
            sizes = {cost_name(name): cost for name, cost in (costs or {}).items()}
            if keep_ratio is not None:
                sizes = {"weights kept": keep_ratio, **sizes}
            parts = [f"{name} {percent(size)}" for name, size in sizes.items()]
            if accuracy is not None:
                parts.append(f"batch accuracy {100 * float(accuracy):.2f}%")
            if loss is not None:
                parts.append(f"loss {float(loss):.4g}")
            return ", ".join(parts)

        self._display.update(step, text)

    def flush(self) -> None:
        """Bring everything written so far to the disk itself.

        Worth a call just before a checkpoint is written: then no checkpoint is newer
        than the numbers, even if the machine goes down.
        """
        if self._file is not None:
            with naming(self.path):
                os.fsync(self._file.fileno())
        if self._events is not None:
            with naming(self._workdir / TENSORBOARD_FOLDER):
                self._events.flush()

    def _open_events(self) -> None:
        folder = self._workdir / TENSORBOARD_FOLDER
        with naming(folder):
            folder.mkdir(exist_ok=True)
            older = any(folder.iterdir())
            # `EventsWriter` rather than `SummaryWriter`: the latter writes from a
            # thread, which dies silently on a full disk and then blocks the caller.
            # The suffix keeps two writers of the same second apart.
            suffix = f".{os.getpid()}.{self._resume_step}"
            self._events = EventsWriter(str(folder / "events"), suffix)
        if older:
            # TensorBoard hides all older events of this step and later ones. A
            # start afresh may write step 0 again, so that is hidden as well.
            purge = self._resume_step + 1 if self._resume_step else 0
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._write_event(step=purge, session_log=start)

    def _write_event(self, **content: Any) -> None:
        assert self._events is not None  # opened together with the file
        with naming(self._workdir / TENSORBOARD_FOLDER):
            self._events.write_event(event_pb2.Event(wall_time=time.time(), **content))
            if time.monotonic() - self._synced > _SYNC_SECONDS:
                self._events.flush()
                self._synced = time.monotonic()


def _finite(value: float | str) -> float | str | None:
    return value if isinstance(value, str) or math.isfinite(value) else None
