import io
import json
import math
import re
import resource
import struct
import sys

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from experiments.logging import metrics as metrics_module
from experiments.logging.files import write_atomically
from experiments.logging.formatting import percent
from experiments.logging.metrics import MetricsWriter
from experiments.logging.metrics_file import read_metrics


def events(workdir):
    """Read back all event files, record by record: length, its sum, data, its sum."""
    found = []
    for path in sorted(
        (workdir / "tensorboard").iterdir(), key=lambda p: p.stat().st_mtime_ns
    ):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            found.append(event_pb2.Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return found


def scalars(workdir):
    return [
        (event.step, value.tag, value.simple_value)
        for event in events(workdir)
        for value in event.summary.value
    ]


def write_steps(workdir, steps, **kwargs):
    with MetricsWriter(workdir, 100, progress=False, **kwargs) as metrics:
        for step in steps:
            metrics.write(step, {"loss": 1 / step, "phase": "prune"})


@pytest.fixture(autouse=True)
def terminal_of_a_known_kind(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_lines_are_read_back_as_written(tmp_path):
    with MetricsWriter(tmp_path / "new" / "run", 10, progress=False) as metrics:
        metrics.write(1, {"loss": 0.5, "phase": "prune", "keep_ratio/a/b": 1})
        metrics.write(np.int64(2), {"loss": np.float32(0.25)})
    assert read_metrics(tmp_path / "new/run/metrics.jsonl") == [
        {"step": 1, "loss": 0.5, "phase": "prune", "keep_ratio/a/b": 1.0},
        {"step": 2, "loss": 0.25},
    ]


def test_a_line_is_on_disk_when_write_returns(tmp_path):
    with MetricsWriter(tmp_path, 10, progress=False) as metrics:
        metrics.write(1, {"loss": 0.5})
        assert read_metrics(metrics.path) == [{"step": 1, "loss": 0.5}]


def test_flush_brings_all_events_to_disk(tmp_path):
    with MetricsWriter(tmp_path, 10, progress=False) as metrics:
        for step in (1, 2, 3):
            metrics.write(step, {"loss": 0.5})
        metrics.flush()
        assert [step for step, *_ in scalars(tmp_path)] == [1, 2, 3]


def test_event_files_hold_the_same_numbers(tmp_path):
    with MetricsWriter(tmp_path, 10, progress=False) as metrics:
        metrics.write(1, {"loss": 0.5, "threshold/a": 2.0, "phase": "prune"})
        metrics.write(2, {"loss": 0.25})
    assert scalars(tmp_path) == [
        (1, "loss", 0.5),
        (1, "threshold/a", 2.0),
        (2, "loss", 0.25),
    ]
    assert events(tmp_path)[0].file_version == "brain.Event:2"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_numbers_that_are_not_finite_are_null(tmp_path, value):
    with MetricsWriter(tmp_path, 10, progress=False) as metrics:
        metrics.write(1, {"loss": value})
    text = (tmp_path / "metrics.jsonl").read_text()

    def refuse(constant):
        pytest.fail(f"{constant} is not JSON")

    assert json.loads(text, parse_constant=refuse) == {"step": 1, "loss": None}
    ((_, _, seen),) = scalars(tmp_path)
    assert not math.isfinite(seen)


@pytest.mark.parametrize("cut", range(0, 40, 3))
def test_a_killed_and_resumed_run_leaves_the_undisturbed_file(tmp_path, cut):
    write_steps(tmp_path / "whole", range(10, 101, 10))
    write_steps(tmp_path / "killed", range(10, 71, 10))
    killed = tmp_path / "killed/metrics.jsonl"
    with killed.open("ab") as file:  # the line of step 80, as far as it came
        file.write(b'{"step": 80, "loss": 0.0125, "phase": "prune"}\n'[:cut])
    write_steps(tmp_path / "killed", range(50, 101, 10), resume_step=40)
    whole = (tmp_path / "whole/metrics.jsonl").read_bytes()
    assert killed.read_bytes() == whole


def test_a_half_written_line_before_the_checkpoint_is_dropped_too(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 10}\n{"step": 20}\n{"ste')
    write_steps(tmp_path, [30], resume_step=20)
    assert [record["step"] for record in read_metrics(path)] == [10, 20, 30]


def test_a_last_line_that_lacks_only_its_end_is_kept(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 10}\n{"step": 20}')
    write_steps(tmp_path, [30], resume_step=20)
    assert [record["step"] for record in read_metrics(path)] == [10, 20, 30]


def test_a_start_afresh_forgets_step_0_as_well(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 0}\n{"step": 10}\n')
    write_steps(tmp_path, [20])
    assert [record["step"] for record in read_metrics(path)] == [20]


def test_truncation_leaves_the_old_file_if_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 10}\n{"step": 20}\n')
    monkeypatch.setattr(
        metrics_module.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "full"))
    )
    with pytest.raises(OSError, match=r"full.*metrics\.jsonl"):
        MetricsWriter(tmp_path, 100, progress=False, resume_step=10).__enter__()
    assert path.read_bytes() == b'{"step": 10}\n{"step": 20}\n'
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_resumption_tells_tensorboard_what_to_hide(tmp_path):
    write_steps(tmp_path, [10, 20, 30])
    assert not any(e.HasField("session_log") for e in events(tmp_path))
    write_steps(tmp_path, [30], resume_step=20)
    (start,) = [e for e in events(tmp_path) if e.HasField("session_log")]
    assert start.session_log.status == event_pb2.SessionLog.START
    assert start.step == 21  # this one and later ones
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2


def test_reading_a_running_file_leaves_out_the_half_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n\x00\x00')
    assert read_metrics(path) == [{"step": 1}]
    path.write_bytes(b"")
    assert read_metrics(path) == []


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl:2 holds b'\{\"st'"):
        read_metrics(path)


def test_a_full_disk_names_the_file_and_leaves_no_half_line(tmp_path):
    # A limit on the size of files stands in for a disk that is full.
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    with MetricsWriter(tmp_path, 10, progress=False) as metrics:
        metrics.write(1, {"loss": 0.5})
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, old[1]))
        try:
            with pytest.raises(OSError, match=r"metrics\.jsonl"):
                metrics.write(2, {"note": "x" * 3000})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
        metrics.write(3, {"loss": 0.25})
    steps = [record["step"] for record in read_metrics(tmp_path / "metrics.jsonl")]
    assert steps == [1, 3]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OSError, match="file/run"),
        MetricsWriter(tmp_path / "file/run", 10),
    ):
        pytest.fail("entered")


def test_a_disabled_writer_touches_nothing(tmp_path, capsys):
    with MetricsWriter(tmp_path / "run", 10, enabled=False) as metrics:
        metrics.write(1, {"loss": 0.5})
        metrics.progress(10, keep_ratio=0.5)
        metrics.flush()
    assert not (tmp_path / "run").exists()
    assert capsys.readouterr().err == ""


def test_misuse_is_refused(tmp_path):
    with pytest.raises(ValueError, match="resume_step=11"):
        MetricsWriter(tmp_path, 10, resume_step=11)
    with pytest.raises(RuntimeError, match="inside `with"):
        MetricsWriter(tmp_path, 10).write(1, {})
    with (
        MetricsWriter(tmp_path, 10, progress=False) as metrics,
        pytest.raises(ValueError, match="takes the step as its first"),
    ):
        metrics.write(1, {"step": 1.0})


def test_progress_in_a_log_is_a_line_per_tenth(tmp_path, capsys):
    with MetricsWriter(tmp_path, 1000, resume_step=500) as metrics:
        for step in range(501, 1001):
            metrics.progress(step, keep_ratio=0.0195, accuracy=0.9912, loss=0.5)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert lines[0].startswith(
        "step 600/1000 (60%), weights kept 1.95%, batch accuracy 99.12%, loss 0.5, 0:00"
    )
    assert lines[-1].startswith("step 1000/1000 (100%)")
    assert lines[-1].endswith("0:00:00 left")


def test_progress_in_a_terminal_is_a_live_bar(tmp_path, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with MetricsWriter(tmp_path, 100, resume_step=10) as metrics:
        for step in range(11, 101):
            metrics.progress(step, keep_ratio=step / 100, accuracy=0.5, loss=2.0)
    last = terminal.getvalue().split("\r")[-1]
    words = re.sub(r"\x1b\[[?\d;]*\w", "", last)
    assert re.fullmatch(r"100% ━+ 100/100 \S+ weights kept 100%, .* loss 2 *\n", words)


def test_a_terminal_that_is_dumb_gets_lines(tmp_path, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "dumb")
    with MetricsWriter(tmp_path, 2) as metrics:
        metrics.progress(1, keep_ratio=0.5)
    assert terminal.getvalue() == "step 1/2 (50%), weights kept 50%, 0:00:00 left\n"


def test_colours_that_are_asked_for_draw_no_bar_in_a_log(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with MetricsWriter(tmp_path, 2) as metrics:
        metrics.progress(1, keep_ratio=0.5)
    assert capsys.readouterr().err.startswith("step 1/2 (50%), weights kept 50%")


def test_progress_reads_a_number_only_when_it_is_shown(tmp_path, monkeypatch):
    class Waits:
        reads = 0

        def __float__(self):
            Waits.reads += 1
            return 0.5

    monkeypatch.setattr(sys, "stderr", Terminal())
    with MetricsWriter(tmp_path, 10_000) as metrics:
        for step in range(1, 1001):
            metrics.progress(step, loss=Waits())
    assert 1 <= Waits.reads < 100


def test_progress_may_be_off(tmp_path, capsys):
    with MetricsWriter(tmp_path, 10, progress=False) as metrics:
        metrics.progress(10, keep_ratio=0.5)
    assert capsys.readouterr().err == ""


def test_files_are_replaced_whole(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, "é")
    write_atomically(path, b"\xff")
    assert path.read_bytes() == b"\xff"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(1, "100%"), (0.0195, "1.95%"), (0.000123, "0.0123%"), (0, "0%")],
)
def test_percent_shows_three_digits(fraction, text):
    assert percent(fraction) == text


def test_progress_gives_the_costs_that_are_limited(tmp_path, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with MetricsWriter(tmp_path, 1) as metrics:
        metrics.progress(1, costs={"macs": 0.625}, accuracy=1.0)
    last = terminal.getvalue().split("\r")[-1]
    assert "MACs 62.5%, batch accuracy 100.00%" in last
    assert "weights" not in last
