"""The command that writes tables: documents, CSV files, pictures and pages."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from experiments.tables import table, tables
from experiments.tables.rows import from_csv
from experiments.tables.tables import insert
from tests.experiments.tables.made_up import put

RESULTS = Path(__file__).resolve().parents[3] / "docs/results"
MARKERS = "<!-- results:digits begin -->\n<!-- results:digits end -->\n"


def run(sweep, *arguments):
    top = sweep.parent
    places = [f"--results={top / 'results'}", f"--document={top / 'README.md'}"]
    return tables.main(["--name=digits", *places, *arguments])


def test_only_what_is_between_the_markers_changes_and_only_once():
    document = f"# A\n\nbefore\n{MARKERS}after\n<!-- results:other begin -->\n"
    once = insert(document, "digits", "\nnew \\1 | $&\n\n")
    assert once == document.replace("begin -->\n<", "begin -->\nnew \\1 | $&\n<", 1)
    assert insert(once, "digits", "new \\1 | $&") == once
    assert insert(once, "digits", "newer") == once.replace("new \\1 | $&", "newer")


@pytest.mark.parametrize(
    "document",
    [
        "",
        "<!-- results:digits begin -->\n",
        "<!-- results:digits end -->\n<!-- results:digits begin -->\n",
        MARKERS + MARKERS,
        MARKERS.replace("digits", "digits_cnn"),
    ],
)
def test_markers_that_are_missing_or_not_in_order_are_asked_for(document):
    with pytest.raises(ValueError, match=r"`<!-- results:digits begin -->` and .* Add"):
        insert(document, "digits", "new")


@pytest.mark.parametrize("shown", [True, False])
def test_the_command_writes_everything_and_the_same_again(sweep, capsys, shown):
    readme = sweep.parent / "README.md"
    document = f"# A\n{MARKERS}after\n" + "![A](results/digits.svg)" * shown
    readme.write_text(document)
    assert run(sweep, f"--workdir={sweep}") == 0
    assert "| LTP |" in capsys.readouterr().out
    results = sweep.parent / "results"
    files = [readme, results / "digits.csv", sweep / "comparison.html"]
    files += [results / "digits.svg"] * shown
    assert {*results.iterdir()} == {*files[1:]} - {files[2]}
    written = [file.read_bytes() for file in files]
    assert run(sweep, f"--workdir={sweep}") == 0
    assert [file.read_bytes() for file in files] == written
    # A clone has the CSV file and not the runs.
    readme.write_text(document)
    shutil.rmtree(sweep)
    assert run(sweep) == 0
    assert readme.read_bytes() == written[0]


def test_what_is_not_finished_is_named(sweep, capsys):
    stopped = put(sweep, "digits/str", 0.9, 0, 0.9, status="stopped", final=None)
    assert run(sweep, f"--workdir={sweep}", "--page-only") == 0
    assert f"Not finished, left out: {stopped}" in capsys.readouterr().out
    assert "1 unfinished" in (sweep / "comparison.html").read_text()


def test_rows_of_another_program_stand_beside_ours(sweep):
    (sweep.parent / "README.md").write_text(MARKERS)
    assert run(sweep, f"--workdir={sweep}") == 0
    results = sweep.parent / "results"
    text = (results / "digits.csv").read_text().splitlines()
    row = next(line for line in text if line.startswith("digits/ltp"))
    (results / "digits_recorded.csv").write_text(f"{text[0]}\nother{row}Other\n")
    assert run(sweep) == 0
    assert "| LTP (recorded) |" not in (sweep.parent / "README.md").read_text()
    assert "otherdigits/ltp (recorded)" in (sweep.parent / "README.md").read_text()


def test_without_a_place_for_the_table_nothing_is_written(sweep, capsys):
    (sweep.parent / "README.md").write_text("# A\n")
    assert run(sweep, f"--workdir={sweep}") == 1
    assert "Add both lines where the table belongs" in capsys.readouterr().err
    assert not (sweep.parent / "results").exists()
    assert not (sweep / "comparison.html").exists()


@pytest.mark.parametrize(
    ("lines", "message"),
    [(0, "is not a table of runs"), (1, "there is none"), (4, "there is none")],
)
def test_a_csv_file_without_pruned_runs_is_named(sweep, capsys, lines, message):
    (sweep.parent / "README.md").write_text(MARKERS)
    assert run(sweep, f"--workdir={sweep}") == 0
    file = sweep.parent / "results" / "digits.csv"
    text = file.read_text().splitlines(keepends=True)
    file.write_text("".join(text[:lines]))
    assert run(sweep) == 1
    error = capsys.readouterr().err
    assert str(file) in error
    assert message in error


@pytest.mark.parametrize("arguments", [["--name=../a"], ["--page-only"]])
def test_arguments_that_make_no_sense_end_the_command(sweep, arguments):
    with pytest.raises(SystemExit):
        run(sweep, *arguments)


@pytest.mark.parametrize(
    "name", [p.stem for p in RESULTS.glob("*.csv") if "_recorded" not in p.stem]
)
def test_tables_of_the_documentation_are_those_of_the_files_beside_it(name):
    document = (RESULTS / "index.md").read_text()
    files = [RESULTS / f"{name}.csv", RESULTS / f"{name}_recorded.csv"]
    rows = pd.concat([from_csv(f) for f in files if f.exists()], ignore_index=True)
    times = "Wall time" in document.partition(f"results:{name} begin")[2][:600]
    markdown = table.to_markdown(rows, name, times=times)
    assert insert(document, name, markdown) == document
