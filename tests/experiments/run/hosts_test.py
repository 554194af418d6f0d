"""Several processes that train one network: on loopback, with real kills."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import data, train
from experiments.logging.metrics_file import read_metrics
from jaxprune import io
from tests.experiments.numbers import numbers

ROOT = Path(__file__).resolve().parents[3]
_PATIENCE = 900  # seconds, for a busy machine

_SHORT = {
    "model": "mlp",
    "phases.dense": 0.5,
    "phases.prune": 1.5,
    "phases.finetune": 0.5,
    "run.checkpoint_every": 10,
    "run.log_every": 5,
}


def _free_port():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def _start(workdir, data_dir, count, config="digits/ltp", **changes):
    """Starts processes of four devices in all, which train one network together."""
    fields = {**_SHORT, "data.dir": data_dir, **changes}
    command = [sys.executable, "-m", "experiments", "train", f"--config={config}"]
    command += [f"--config.{name}={value}" for name, value in fields.items()]
    command.append(f"--workdir={workdir}")
    port, started = _free_port(), []
    for number in range(count):
        several = [
            f"--coordinator=localhost:{port}",
            f"--processes={count}",
            f"--process={number}",
        ]
        process = subprocess.Popen(
            command + several * (count > 1),
            cwd=ROOT,
            env={
                **os.environ,
                "JAX_PLATFORMS": "cpu",
                "XLA_FLAGS": f"--xla_force_host_platform_device_count={4 // count}",
                "JAX_COMPILATION_CACHE_DIR": str(data_dir / "compiled"),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
    return started


def _finish(processes):
    """Waits for all: their exit codes, and what they say on the error stream."""
    said = [process.communicate(timeout=_PATIENCE)[1] for process in processes]
    return [process.returncode for process in processes], said


def _run(*args, **kwargs):
    codes, said = _finish(_start(*args, **kwargs))
    assert not any(codes), said


def _wait_for_step(processes, workdir, step):
    metrics = workdir / "metrics.jsonl"
    while not metrics.exists() or all(m["step"] < step for m in read_metrics(metrics)):
        assert all(p.poll() is None for p in processes), _finish(processes)
        time.sleep(0.02)


def _summary(workdir):
    return json.loads((workdir / "summary.json").read_text())


def _final(workdir):
    """The arrays of the final network."""
    entry = io.latest(workdir / "trail")
    records = json.loads((entry.path / "_CHECKPOINT_METADATA").read_text())
    leaves = records["custom_metadata"]["leaves"]
    like = {n: np.zeros(leaf["shape"], leaf["dtype"]) for n, leaf in leaves.items()}
    return io.load(entry, like)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    data.load("digits", data_dir=folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "count", "changes"),
    [
        ("digits/ltp", 2, {}),
        ("digits/ltp", 4, {}),
        ("digits/ltp", 2, {"run.parallel": "pmap"}),
        ("digits/ltp", 2, {"run.parallel": "fsdp"}),
        ("digits/garrote", 2, {}),
        ("digits/s_lats", 2, {}),
        ("digits/snip", 2, {}),
        # About 20 steps: in more, roundings grow until another channel is the least
        # important.
        (
            "digits/dsa",
            2,
            {
                "model": "cnn",
                "phases.dense": 0.2,
                "phases.prune": 0.5,
                "phases.finetune": 0.2,
            },
        ),
        (
            "digits/channel_garrote_resnet20",
            2,
            {"model": "cnn", "phases.dense": 0.0, "phases.prune": 0.5},
        ),
    ],
)
def test_several_processes_train_as_one_does(
    config, count, changes, prepared, tmp_path
):
    for number in (1, count):
        _run(tmp_path / str(number), prepared, number, config, **changes)
    one, several = (_summary(tmp_path / str(number)) for number in (1, count))
    assert one["channels"] == several["channels"]
    assert one["final"]["kept_weights"] == several["final"]["kept_weights"]
    for a, b in zip(
        *(jax.tree.leaves(_final(tmp_path / str(number))) for number in (1, count)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_killed_and_stopped_processes_go_on_and_end_with_the_same_bits(
    prepared, tmp_path
):
    _run(tmp_path / "undisturbed", prepared, 2)
    workdir = tmp_path / "disturbed"
    for step, victim, number in (
        (30, 1, signal.SIGKILL),
        (50, 0, signal.SIGKILL),
        (70, 1, signal.SIGTERM),
    ):
        processes = _start(workdir, prepared, 2)
        _wait_for_step(processes, workdir, step)
        began = time.monotonic()
        processes[victim].send_signal(number)
        codes, said = _finish(processes)
        if number == signal.SIGTERM:
            assert codes == [130, 130], said
            assert _summary(workdir)["status"] == "stopped"
        else:
            assert time.monotonic() - began < 60
            assert codes[victim] == -signal.SIGKILL
            # JAX may notice before the run does, and abort.
            ours = "Start all again by the same commands"
            messages = {75: ours, -signal.SIGABRT: "another task died"}
            assert messages[codes[1 - victim]] in said[1 - victim]
    _run(workdir, prepared, 2)
    for key in ("points", "final", "result"):
        assert _summary(workdir)[key] == _summary(tmp_path / "undisturbed")[key]
    assert numbers(workdir) == numbers(tmp_path / "undisturbed")
    for a, b in zip(
        *(jax.tree.leaves(_final(f)) for f in tmp_path.iterdir()), strict=True
    ):
        assert a.tobytes() == b.tobytes()


@pytest.mark.slow
def test_what_process_0_refuses_ends_the_others(prepared, tmp_path):
    _run(tmp_path / "run", prepared, 1, **{"phases.prune": 0.0})
    codes, said = _finish(_start(tmp_path / "run", prepared, 2))
    assert codes == [1, 75]
    assert "belongs to another config" in said[0]
    assert "Process 0 cannot go on" in said[1]


def test_options_of_processes_belong_together(tmp_path, capsys):
    with pytest.raises(SystemExit):
        train.main(
            [
                "--config=digits/ltp",
                f"--workdir={tmp_path}",
                "--coordinator=localhost:1",
            ]
        )
    assert "`--coordinator`, `--processes` and `--process`" in capsys.readouterr().err
