"""Sweeps: which runs there are, skipping, failures, and being stopped."""

import concurrent.futures
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.sweep import bisect, sweep, sweep_processes
from experiments.sweep.sweep_plan import plan_runs, summary_of
from experiments.sweep.sweep_processes import run_all
from experiments.tables import rows as table_rows

# 1 + 4 + 2 steps of an MLP.
SHORT = (
    "--config.model=mlp",
    "--config.phases.dense=0.05",
    "--config.phases.prune=0.2",
    "--config.phases.finetune=0.1",
)


def _names(runs):
    return [run.workdir.as_posix() for run in runs]


def test_a_run_is_a_config_a_sparsity_and_a_seed_in_a_folder_of_its_own():
    runs = plan_runs(["digits/ltp", "digits/magnitude"], [0.9, 0.95], [0, 1], "w")
    assert len(runs) == len({*_names(runs)}) == 8
    # Seed by seed, so that a sweep that is stopped has something of everything.
    assert _names(runs)[:4] == [
        "w/digits/ltp/0.9/0",
        "w/digits/ltp/0.95/0",
        "w/digits/magnitude/0.9/0",
        "w/digits/magnitude/0.95/0",
    ]
    assert runs[5].arguments[:3] == [
        "--config=digits/ltp",
        "--config.budget.sparsity=0.95",
        "--config.seed=1",
    ]
    assert str(runs[5]) == "digits/ltp 0.95 seed 1"


def test_a_config_that_does_not_prune_runs_once_for_each_seed():
    runs = plan_runs(["digits/dense"], [], [3, 4], "w")
    assert _names(runs) == ["w/digits/dense/dense/3", "w/digits/dense/dense/4"]
    assert not [flag for flag in runs[0].arguments if "sparsity" in flag]


def test_sizes_that_no_config_takes_are_refused():
    with pytest.raises(ValueError, match="no config of the sweep prunes single w"):
        plan_runs(["digits/dsa"], [0.95], [0], "w", [], ["macs:0.5"])
    both = plan_runs(["digits/dsa", "digits/ltp"], [0.9], [0], "w", [], ["macs:0.5"])
    assert [run.point for run in both] == ["macs:0.5", "0.9"]


def test_what_is_said_twice_is_run_once():
    runs = plan_runs(["digits/ltp", "digits/ltp"], [0.9, 0.90], [0, 0], "w")
    assert _names(runs) == ["w/digits/ltp/0.9/0"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["ltp_digits"], [0.9], [0]), r"Did you mean .*'digits/ltp'"),
        ((["default"], [0.9], [0]), r"no such config"),
        ((["digits/ltp"], [1.0], [0]), r"between 0 and 1; got 1\.0"),
        ((["digits/ltp"], [0.0], [0]), r"between 0 and 1; got 0\.0"),
    ],
)
def test_a_sweep_that_cannot_run_is_refused_at_once(arguments, message):
    with pytest.raises(ValueError, match=message):
        plan_runs(*arguments, "w")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--confg.model=mlp"], "unknown argument --confg.model=mlp"),
        (["--config.model", "mlp"], "unknown argument --config.model"),
        (["--config.seed=3"], "is what `--seeds` says"),
        (["--config.budget.macs=0.5"], "is what `--budgets` says"),
        (
            ["--config.epochs=3"],
            "epochs`: there is no such field for LTP",
        ),
        (["--config.model.width=3"], "config.model.width`: there is no such field"),
        (["--config.data.batch_size=all"], "must be of type int; got 'all'"),
        (
            ["--config.phases.prune=-1"],
            "digits/ltp 0.9 seed 0 cannot start. `config.ph",
        ),
        (["--config.method.trail_every=0"], "trail_every=0` must be at least 1"),
        (["--budgets=macs:0.5"], "`--budgets`: no config of the sweep prunes channels"),
        (["--jobs=0"], "at least 1, got 0"),
        (["--seeds=a"], "invalid list of int value: 'a'"),
    ],
)
def test_arguments_that_make_no_sense_end_the_command(arguments, message, capsys):
    given = ["--configs=digits/ltp", "--sparsities=0.9", "--workdir=unused"]
    with pytest.raises(SystemExit) as error:
        sweep.main([*given, *arguments])
    assert error.value.code == 2
    assert message in capsys.readouterr().err
    assert not Path("unused").exists()


def test_only_a_finished_run_of_the_same_command_counts(tmp_path):
    (run,) = plan_runs(["digits/ltp"], [0.9], [0], tmp_path, ["--config.model=mlp"])
    assert summary_of(run) is None
    command = ["python", "-m", "experiments", "train", *run.arguments]
    path = "--config=/elsewhere/experiments/configs/digits/ltp.py"
    elsewhere = [path if a.startswith("--config=") else a for a in command]
    other = [a.replace("=mlp", "=cnn") for a in command]
    run.workdir.mkdir(parents=True)
    for status, words, counts in (
        ("finished", command, True),
        ("finished", command[:-1], True),  # without --config.run.progress
        ("finished", elsewhere, True),
        ("stopped", command, False),
        ("finished", other, False),
        ("finished", [*command, "--config.optimizer.momentum=0.8"], False),
        ("finished", [], False),
    ):
        summary = {"status": status, "command": words}
        (run.workdir / "summary.json").write_text(json.dumps(summary))
        assert (summary_of(run) == summary) == counts, words


@pytest.mark.parametrize("jobs", [1, 2, 3, 1000])
def test_cores_are_shared_out_and_kept_by_their_threads_alone(jobs):
    cores = os.sched_getaffinity(0)
    shares = sweep_processes._shares(jobs)
    assert len(shares) == jobs
    if jobs == 1 or jobs > len(cores):
        assert shares == [None] * jobs
        return
    assert set.union(*shares) == cores
    assert sum(map(len, shares)) == len(cores)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(sweep_processes._keep_to, shares[0]).result()
        assert pool.submit(os.sched_getaffinity, 0).result() == shares[0]
    assert os.sched_getaffinity(0) == cores


@pytest.mark.slow
def test_a_failed_run_is_reported_and_the_others_finish_and_are_not_run_again(
    data_dir, tmp_path, capsys
):
    # The folder of seed 1 belongs to another config, of which a run has begun.
    (tmp_path / "digits/ltp/0.9/1/checkpoints/1").mkdir(parents=True)
    (tmp_path / "digits/ltp/0.9/1/config.json").write_text('{"sparsity": 0.5}')
    arguments = [
        "--configs=digits/ltp",
        "--sparsities=0.9",
        "--seeds=0,1,2",
        f"--workdir={tmp_path}",
        "--jobs=2",
        f"--config.data.dir={data_dir}",
        *SHORT,
    ]
    assert sweep.main(arguments) == 1
    said = capsys.readouterr()
    assert "2 of 3 runs are finished" in said.out
    assert "digits/ltp 0.9 seed 1: failed with exit code 1: ValueError" in said.out
    assert "1 failed" in said.err
    assert str(tmp_path / "digits/ltp/0.9/1/log.txt") in said.err
    folders = [tmp_path / f"digits/ltp/0.9/{seed}" for seed in (0, 2)]
    for folder in folders:
        assert "report.html" in (folder / "log.txt").read_text()

    # The table knows the two that finished.
    rows, unfinished = table_rows.read(tmp_path)
    assert {*rows["config"]} == {"digits/ltp"}
    assert [*zip(rows["size"], rows["seed"], strict=True)] == [("0.9", 0), ("0.9", 2)]
    assert (rows["weights"] <= 0.1).all()
    assert {*rows["model"]} == {"mlp"}
    assert unfinished == [tmp_path / "digits/ltp/0.9/1"]

    # Again without the one that fails: nothing is started.
    before = [(folder / "log.txt").stat().st_mtime_ns for folder in folders]
    assert sweep.main([a.replace("0,1,2", "0,2") for a in arguments]) == 0
    assert "2 of 2 runs are finished already." in capsys.readouterr().out
    assert [(f / "log.txt").stat().st_mtime_ns for f in folders] == before


@pytest.mark.slow
def test_a_sweep_that_is_stopped_saves_its_run_and_starts_no_other(data_dir, tmp_path):
    long = [a for a in SHORT if "phases.prune" not in a] + ["--config.phases.prune=500"]
    overrides = [f"--config.data.dir={data_dir}", "--config.run.log_every=1", *long]
    runs = plan_runs(["digits/ltp"], [0.9], [0, 1], tmp_path, overrides)
    lines = []
    metrics = runs[0].workdir / "metrics.jsonl"

    def interrupted():  # Ctrl-C once the first run is under way.
        return int(metrics.exists() and metrics.stat().st_size > 0)

    assert run_all(runs, say=lines.append, interrupted=interrupted) == []
    assert lines == ["[1/2] digits/ltp 0.9 seed 0: stopped"]
    summary = json.loads((runs[0].workdir / "summary.json").read_text())
    assert summary["status"] == "stopped"
    assert list((runs[0].workdir / "checkpoints").iterdir())
    assert not runs[1].workdir.exists()


def test_an_error_of_the_sweep_itself_ends_its_runs(monkeypatch, tmp_path):
    runs = plan_runs(["digits/dense"], [], [0, 1], tmp_path)
    started = []

    def start(run, jobs):  # the first ends at once, the second never
        program = f"import sys, time; time.sleep({1000 * run.seed}); sys.exit(1)"
        run.workdir.mkdir(parents=True)
        (run.workdir / "log.txt").write_text("")
        started.append(subprocess.Popen([sys.executable, "-c", program]))
        return started[-1]

    def say(line):
        assert (
            line
            == "[1/2] digits/dense dense seed 0: failed with exit code 1: no output"
        )
        raise BrokenPipeError

    monkeypatch.setattr(sweep_processes, "_start", start)
    with pytest.raises(BrokenPipeError):
        run_all(runs, jobs=2, say=say)
    assert {process.returncode for process in started} <= {1, -2, -9}


def test_a_search_of_a_penalty_that_the_plan_does_not_read_is_refused(capsys):
    arguments = ["--config=digits/dsa", "--budget=macs:0.5", "--workdir=unused"]
    with pytest.raises(SystemExit):
        bisect.main(arguments)
    error = capsys.readouterr().err
    assert "`config.method.channel_penalty`: there is no such field for DSA" in error
    assert not Path("unused").exists()
