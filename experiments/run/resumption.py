"""Where a run goes on: its last checkpoint whose files are as they were written."""

import functools
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from experiments.run import hosts, phases, trail
from experiments.run.hooks import CHECKPOINTS
from experiments.run.network import Network
from experiments.run.phases import Phase
from experiments.run.setting import Setting
from experiments.run.steps import TrainState
from jaxprune import io


def find(
    setting: Setting, parts: Sequence[Phase]
) -> tuple[int, trail.Record, tuple[Network, TrainState] | None]:
    """Load the last whole checkpoint: its step, record, and network with state.

    What came after it is removed; newer ones that are broken are put aside. Without a
    checkpoint the step is 0, the record is empty, and there is no network.

    Raises:
      BrokenCheckpointError: if there are checkpoints, and none is whole.
      FileNotFoundError: if this process does not see the checkpoint of process 0.
    """
    folder = setting.workdir / CHECKPOINTS
    step, record, resumed, broken = 0, trail.Record(), None, None
    while resumed is None:
        step = hosts.from_first(functools.partial(_newest, folder))
        if step < 0:
            step = 0
            break
        try:
            record, resumed = _load(setting, parts, step)
        except io.BrokenCheckpointError as error:
            broken = error
            hosts.wait()  # until the others have found it broken too
            hosts.from_first(functools.partial(_put_aside, error))
    if broken is not None and resumed is None:
        raise broken
    if resumed is not None:
        for name, stream in setting.streams.items():
            stream.set_state(record.data_state[name])
    if jax.process_index() == 0:
        # What a killed run did after its last checkpoint is done again.
        io.tidy(folder)
        io.tidy(setting.workdir / trail.FOLDER, up_to=step)
    return step, record, resumed


def _newest(folder: Path) -> int:
    """Return the step of the newest checkpoint whose metadata are whole, or -1."""
    last = None
    while True:
        try:
            entry = io.latest(folder)
        except io.BrokenCheckpointError as error:
            last = error
            _put_aside(error)
            continue
        if entry is None and last is not None:
            raise last
        return -1 if entry is None else entry.step


def _load(
    setting: Setting, parts: Sequence[Phase], step: int
) -> tuple[trail.Record, tuple[Network, TrainState]]:
    entry = io.latest(setting.workdir / CHECKPOINTS)
    if entry is None or entry.step != step:
        raise FileNotFoundError(
            f"`workdir={str(setting.workdir)!r}` must be on a disk that all processes "
            f"share: process 0 has a checkpoint of step {step} there, process "
            f"{jax.process_index()} has not."
        )
    record = trail.Record(**entry.metadata)
    phase = next(p for p in parts if p.begin <= step < p.end)
    network = phases.resumed(setting, phase, record)
    state = io.load(entry, phases.blank_state(phase, network))
    return record, (network, state)


def _put_aside(error: io.BrokenCheckpointError) -> int:
    """Rename a broken checkpoint, and say so."""
    aside = error.path.with_name(f"{error.path.name}.broken")
    shutil.rmtree(aside, ignore_errors=True)
    error.path.rename(aside)
    print(f"{error} It is kept as {str(aside)!r}.", file=sys.stderr)
    return 0
