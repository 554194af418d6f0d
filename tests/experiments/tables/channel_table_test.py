"""The table of channel-pruning runs from made-up folders."""

import json

import pytest

from experiments.tables import channel_table, tables
from experiments.tables.results import from_csv

MARKERS = "<!-- results:rows begin -->\n<!-- results:rows end -->\n"


def put(workdir, config, limit, seed, accuracy, macs, seconds=100.0, **changes):
    folder = workdir / config / f"macs:{limit}" / str(seed)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    summary = {
        "status": "finished",
        "method": config,
        "title": config.removeprefix("digits/").removesuffix("_net").upper(),
        "dataset": "digits",
        "model": "net",
        "seed": seed,
        "versions": {"jaxprune": "1.2.3"},
        "seconds": seconds,
        "dense_accuracy": 0.9,
        "budget": {"macs": limit},
        "costs": {"weights": 0.4, "macs": macs, "parameters": 0.4, "bytes": 0.6},
        "channels": {"a": [0]},
        "final": {"accuracy": accuracy},
    } | changes
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture
def workdir(tmp_path):
    # By hand: 98 and 99 have mean 98.5 and spread sqrt(0.25 + 0.25) = 0.7071.
    folder = tmp_path / "sweep"
    put(folder, "digits/dsa_net", 0.5, 0, 0.98, 0.4996, seconds=110.0)
    put(folder, "digits/dsa_net", 0.5, 1, 0.99, 0.5)
    put(folder, "digits/dsa_net", 0.25, 0, 0.95, 0.2499, seconds=120.0)
    ssl = put(folder, "digits/ssl_net", 0.5, 0, 0.97, 0.4976)
    (ssl / "trials.json").write_text(json.dumps({"seconds": 345.67, "trials": []}))
    # A trial is a run too, and is none of the table's.
    put(ssl / "trials", "0.1", 0.5, 0, 0.1, 0.9)
    stopped = folder / "digits/ssl_net" / "macs:0.25" / "0"
    stopped.mkdir(parents=True)
    (stopped / "config.json").write_text("{}")
    (tmp_path / "README.md").write_text(f"Before.\n{MARKERS}After.\n")
    return folder


def run(workdir, *arguments):
    top = workdir.parent
    places = [f"--results={top / 'results'}", f"--readme={top / 'README.md'}"]
    return tables.main(["--name=rows", *places, *arguments])


def test_the_table_says_what_it_shows(workdir):
    rows, unfinished = channel_table.read_runs(workdir)
    assert unfinished == [workdir / "digits/ssl_net" / "macs:0.25" / "0"]
    text = channel_table.to_markdown(rows, "rows", times=True)
    caption, _, *table = text.splitlines()
    assert caption.startswith(
        "Test accuracy in % of net on digits by budget: mean ± sample standard "
        "deviation of 2 seeds, or fewer where in parentheses. No run exceeds a "
        "limit; each is within 0.24 points of the one that binds. Wall time is the"
    )
    assert table == [
        "| method | MACs 50% | MACs 25% | wall time |",
        "| --- | --: | --: | --: |",
        "| DSA (`digits/dsa_net`) | **98.50 ± 0.71** | **95.00 (1)** | 110 s |",
        "| SSL (`digits/ssl_net`) | 97.00 (1) | – | 446 s |",
    ]


def test_a_limit_that_is_exceeded_is_not_hidden(workdir):
    put(workdir, "digits/amc_net", 0.5, 0, 0.99, 0.5012)
    rows, _ = channel_table.read_runs(workdir)
    caption = channel_table.to_markdown(rows, "rows").splitlines()[0]
    assert "1 of 5 runs exceed a limit, by at most 0.12 points." in caption
    assert "No run exceeds" not in caption


def test_the_table_is_the_same_from_the_csv_file(workdir, capsys):
    assert run(workdir, f"--workdir={workdir}") == 0
    assert "Not finished, left out" in capsys.readouterr().out
    readme = workdir.parent / "README.md"
    document = readme.read_text()
    assert document.startswith("Before.\n<!-- results:rows begin -->\nTest accuracy")
    path = workdir.parent / "results" / "rows.csv"
    rows = from_csv(path.read_text(), channel_table.Row)
    assert rows == channel_table.read_runs(workdir)[0]
    assert [row.trial_seconds for row in rows] == [0.0, 0.0, 0.0, 345.7]
    readme.write_text(MARKERS)
    assert run(workdir) == 0
    assert readme.read_text() in document


def test_two_limits_are_one_column(tmp_path):
    budget = {"macs": 0.5, "parameters": 0.45}
    put(tmp_path, "digits/dsa_net", 0.5, 0, 0.98, 0.4996, budget=budget)
    rows, _ = channel_table.read_runs(tmp_path)
    assert rows[0].budget == "macs:0.5+parameters:0.45"
    text = channel_table.to_markdown(rows, "rows")
    assert "| method | MACs 50%, parameters 45% |\n" in text
    assert "within 0.04 points of the one that binds" in text


def test_a_limit_on_latency_is_a_column(tmp_path):
    costs = {"macs": 0.7, "parameters": 0.4, "bytes": 0.6, "latency": 0.59}
    changes = {"budget": {"latency": 0.6}, "costs": costs}
    put(tmp_path, "digits/dsa_net", 0.5, 0, 0.98, 0.4996, **changes)
    rows, _ = channel_table.read_runs(tmp_path)
    text = channel_table.to_markdown(rows, "rows")
    assert "| method | latency 60% |\n" in text
    assert "within 1.00 points" in text


def test_what_cannot_be_compared_is_refused(workdir, tmp_path, capsys):
    assert run(workdir, f"--workdir={tmp_path / 'none'}") == 1
    assert "python -m experiments sweep" in capsys.readouterr().err
    put(workdir, "digits/ltp_net", 0.5, 0, 0.99, 0.5, channels=None)
    assert run(workdir, f"--workdir={workdir}") == 1
    assert "does not" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()
