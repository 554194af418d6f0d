"""Tables and pages from fake runs, whose means and spreads are worked out by hand."""

import dataclasses
import json
import re
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from experiments.analyses import l1_coefficients
from experiments.report.plots.accuracy import accuracy_by_method
from experiments.report.plots.rendering import inline_svg
from experiments.tables import comparison_page, sparsity_table, tables
from experiments.tables.comparison import Cell, method_names
from experiments.tables.results import from_csv, insert, to_csv
from experiments.tables.sparsity_table import Row, read_runs, to_markdown

MARKERS = "<!-- results:digits begin -->\n<!-- results:digits end -->\n"

# Means and sample standard deviations by hand:
#   98, 99, 100: 99 and sqrt((1 + 0 + 1) / 2) = 1
#   97, 97.5, 99: 97.8333 and sqrt((0.6944 + 0.1111 + 1.3611) / 2) = 1.0408
#   99, 99.1: 99.05 and sqrt(0.05^2 + 0.05^2) = 0.0707
RUNS = {
    ("digits/dense", None): (0.99, 0.99, 0.99),
    ("digits/ltp", 0.9): (0.98, 0.99, 1.0),
    ("digits/ltp", 0.95): (0.97, 0.975, 0.99),
    ("digits/magnitude", 0.9): (0.99, 0.991),
}


TITLES = {"digits/dense": "Dense", "digits/ltp": "LTP", "digits/ltp_cnn": "LTP"}
TITLES |= {"digits/magnitude": "Magnitude", "digits/lats": "LATS", "digits/str": "STR"}


def put(workdir, config, sparsity, seed, accuracy, **changes):
    asked = "dense" if sparsity is None else repr(sparsity)
    folder = workdir / config / asked / str(seed)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    keep = 1.0 if sparsity is None else 1 - sparsity - 0.0012
    summary = {
        "status": "finished",
        "method": "ltp",
        "dataset": "digits",
        "model": "cnn",
        "seed": seed,
        "title": TITLES.get(config, config),
        "points": [] if sparsity is None else [{}],
        "versions": {"jaxprune": "1.2.3"},
        "seconds": 30.04,
        "dense_accuracy": 0.985,
        "budget": None if sparsity is None else {"weights": 1 - sparsity},
        "costs": {"weights": keep},
        "final": {"keep_ratio": keep, "accuracy": accuracy},
    } | changes
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture
def workdir(tmp_path):
    folder = tmp_path / "sweep"
    for (config, sparsity), accuracies in RUNS.items():
        for seed, accuracy in enumerate(accuracies):
            put(folder, config, sparsity, seed, accuracy)
    return folder


def run(workdir, *arguments):
    top = workdir.parent
    return tables.main(
        [
            "--name=digits",
            f"--results={top / 'results'}",
            f"--readme={top / 'README.md'}",
            *arguments,
        ]
    )


def test_mean_and_spread_are_those_worked_out_by_hand(workdir):
    rows, unfinished = read_runs(workdir)
    assert unfinished == []
    table = sparsity_table.tabulate(rows)
    assert {(c, s) for c, line in table.items() for s in line} == {*RUNS}
    assert table["digits/ltp"][0.9].mean == pytest.approx(0.99)
    assert table["digits/ltp"][0.9].spread == pytest.approx(0.01)
    assert str(table["digits/ltp"][0.95]) == "97.83 ± 1.04"
    assert str(table["digits/magnitude"][0.9]) == "99.05 ± 0.07"
    single = Cell(accuracies=(0.5,))
    assert single.spread is None
    assert str(single) == "50.00"


def test_the_markdown_table_says_what_it_shows(workdir):
    rows, _ = read_runs(workdir)
    assert to_markdown(rows, "digits").splitlines() == [
        "Test accuracy in % of cnn on digits by sparsity: mean ± sample standard "
        "deviation of 3 seeds, or fewer where in parentheses. Dense, `digits/dense`: "
        "99.00 ± 0.00. Every keep ratio is within 0.12 points of its target. Every "
        "run: `results/digits.csv`, read by `python -m experiments table`; best mean "
        "bold.",
        "",
        "| method | 90% | 95% |",
        "| --- | --: | --: |",
        "| LTP (`digits/ltp`) | 99.00 ± 1.00 | **97.83 ± 1.04** |",
        "| Magnitude (`digits/magnitude`) | **99.05 ± 0.07 (2)** | – |",
    ]


def test_a_row_holds_the_numbers_of_its_run(workdir):
    rows, _ = read_runs(workdir)
    assert rows[0].method == "dense"
    assert (rows[0].sparsity, rows[0].dense_accuracy) == (None, None)
    assert rows[3] == Row(
        config="digits/ltp",
        method="ltp",
        title="LTP",
        model="cnn",
        dataset="digits",
        sparsity=0.9,
        keep_ratio=1 - 0.9 - 0.0012,
        seed=0,
        accuracy=0.98,
        dense_accuracy=0.985,
        seconds=30.0,
        jaxprune="1.2.3",
    )


def test_the_csv_file_keeps_every_bit(workdir):
    rows, _ = read_runs(workdir)
    text = to_csv(Row, rows)
    assert from_csv(text, Row) == rows
    assert text.splitlines()[0].startswith(
        "config,method,title,model,dataset,sparsity,keep"
    )
    assert len(text.splitlines()) == 1 + len(rows)
    with pytest.raises(ValueError, match=r"requires the columns config.*got config, a"):
        from_csv("config,a\n", Row)


def test_two_configs_of_one_method_go_by_their_own_names(workdir):
    put(workdir, "digits/ltp_cnn", 0.9, 0, 0.9)
    rows, _ = read_runs(workdir)
    labels = method_names(rows)
    assert labels["digits/ltp"] == "digits/ltp"
    assert labels["digits/ltp_cnn"] == "digits/ltp_cnn"
    assert labels["digits/magnitude"] == "Magnitude"


def test_equal_means_are_both_the_best(tmp_path):
    for config in ("digits/ltp", "digits/lats"):
        put(tmp_path, config, 0.9, 0, 0.99)
    rows, _ = read_runs(tmp_path)
    assert to_markdown(rows, "a").count("**99.00**") == 2
    assert ("Best at 90%", "99.00%", "LATS, LTP", "") in comparison_page._cards(rows)


def test_runs_that_are_not_finished_are_left_out_and_named(workdir, capsys):
    stopped = put(workdir, "digits/str", 0.9, 0, 0.9, status="stopped", final=None)
    killed = put(workdir, "digits/str", 0.9, 1, 0.9)
    (killed / "summary.json").unlink()
    rows, unfinished = read_runs(workdir)
    assert unfinished == [stopped, killed]
    assert "digits/str" not in {row.config for row in rows}
    assert run(workdir, f"--workdir={workdir}", "--page-only") == 0
    assert f"Not finished, left out: {stopped}" in capsys.readouterr().out
    assert "2 unfinished" in (workdir / "comparison.html").read_text()


def test_runs_that_do_not_compare_are_refused(workdir, tmp_path):
    with pytest.raises(ValueError, match="there is none"):
        read_runs(tmp_path / "nothing")
    put(tmp_path / "dense", "digits/dense", None, 0, 0.9)
    with pytest.raises(ValueError, match="there is none"):
        read_runs(tmp_path / "dense")
    put(workdir, "digits/str", 0.9, 0, 0.9, model="mlp")
    with pytest.raises(ValueError, match="got cnn on digits, mlp on digits"):
        read_runs(workdir)
    put(tmp_path / "fixed", "digits/ltp", 0.9, 0, 0.9, budget=None)
    with pytest.raises(ValueError, match="decided by a penalty weight"):
        read_runs(tmp_path / "fixed")


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


def test_the_command_writes_everything_and_the_same_again(workdir, capsys):
    readme = workdir.parent / "README.md"
    readme.write_text(f"# A\n{MARKERS}after\n")
    assert run(workdir, f"--workdir={workdir}") == 0
    assert "| LTP (`digits/ltp`) |" in capsys.readouterr().out
    files = [
        readme,
        workdir.parent / "results/digits.csv",
        workdir / "comparison.png",
        workdir / "comparison.html",
    ]
    written = [file.read_bytes() for file in files]
    assert run(workdir, f"--workdir={workdir}") == 0
    assert [file.read_bytes() for file in files] == written
    # A clone has the CSV file and not the runs.
    readme.write_text(f"# A\n{MARKERS}after\n")
    shutil.rmtree(workdir)
    assert run(workdir) == 0
    assert readme.read_bytes() == written[0]


def test_without_a_place_for_the_table_nothing_is_written(workdir, capsys):
    (workdir.parent / "README.md").write_text("# A\n")
    assert run(workdir, f"--workdir={workdir}") == 1
    assert "Add both lines where the table belongs" in capsys.readouterr().err
    assert not (workdir.parent / "results").exists()
    assert not (workdir / "comparison.html").exists()


@pytest.mark.parametrize("arguments", [["--name=../a"], ["--page-only"]])
def test_arguments_that_make_no_sense_end_the_command(workdir, arguments):
    with pytest.raises(SystemExit):
        run(workdir, *arguments)


def test_the_page_loads_and_runs_nothing_and_holds_the_table(workdir):
    assert run(workdir, f"--workdir={workdir}", "--page-only") == 0
    page = (workdir / "comparison.html").read_text()
    assert not re.search(r"<(script|link|img|iframe|object)\b", page)
    assert not re.findall(r'(?:src|href)="(?!#)', page)
    for shown in ("LTP", "97.83 ± 1.04", "11 runs", "cnn on digits", "dense 99.00%"):
        assert shown in page
    assert page.count('class="best"') == 2
    size = struct.unpack(">II", (workdir / "comparison.png").read_bytes()[16:24])
    assert size == (10.5 * 160, 5.4 * 160)


def test_names_from_outside_are_shown_and_not_run(workdir):
    evil = "<script>alert(1)</script>&"
    rows, _ = read_runs(workdir)
    rows = [dataclasses.replace(r, config=evil, dataset=evil) for r in rows]
    page = comparison_page.render(rows, workdir=Path(evil), name=evil)
    assert "<script" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize(
    "accuracies", [(1.0, 1.0), (0.0, 0.1), (0.5,), (0.99, 1.0), (0.998, 0.9981)]
)
def test_any_accuracy_is_drawn_inside_the_axes(accuracies):
    cell = Cell(accuracies=accuracies)
    point = {"sparsity": 0.9, **comparison_page._point(cell)}
    for dense in (None, comparison_page._point(cell)):
        figure = accuracy_by_method({"a": [point]}, dense=dense)
        (axes,) = figure.axes
        low, high = axes.get_ylim()
        assert -1 <= low < cell.mean + 1e-9
        assert cell.mean * 0.99 < high <= 1
        assert inline_svg(figure, "a").startswith("<svg ")


def test_the_coefficient_of_every_schedule_is_as_the_theory_says():
    found = l1_coefficients.coefficients(4)
    np.testing.assert_allclose(found["constant, exact"], 1.0, rtol=1e-9)
    ratios = found["geometric, exact"][1:] / found["geometric, exact"][:-1]
    np.testing.assert_allclose(ratios, 0.1**0.01, rtol=1e-9)
    # The closed form for a bare cosine: 5, 5 / 2, 5 / 3, ... while warming up.
    warm = found["LATS"][:5] / found["LATS"][4]
    np.testing.assert_allclose(warm, 5 / np.arange(1, 6), rtol=0.005)
    assert np.all(np.diff(found["STDS sine"][5:]) > 0)
    # Even increments against the learning rate: proportional to its inverse.
    rate = l1_coefficients.published_learning_rate(1)
    rates = np.array([float(rate(epoch)) for epoch in range(100)])
    product = found["STDS linear"] * rates
    np.testing.assert_allclose(product, product[0], rtol=1e-4)  # rates in float32


BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.skipif(not BROWSER, reason="no Chromium is installed")
def test_the_pages_fit_a_telephone(workdir, tmp_path):
    assert run(workdir, f"--workdir={workdir}", "--page-only") == 0
    l1_coefficients.write(tmp_path)
    for page in (workdir / "comparison.html", tmp_path / "l1_coefficients.html"):
        frame = tmp_path / "frame.html"
        text = json.dumps(page.read_text()).replace("</", "<\\/")
        frame.write_text(
            "<!doctype html><title></title><body><script>"
            "const f = document.createElement('iframe'); f.style.width = '380px';"
            f"f.srcdoc = {text}; document.body.appendChild(f);"
            "onload = () => { document.title = 'width ' +"
            " f.contentDocument.documentElement.scrollWidth; };</script>"
        )
        dom = subprocess.run(
            [
                BROWSER, "--headless", "--no-sandbox", "--disable-gpu",
                "--disable-quic", "--no-first-run", "--disable-sync",
                "--disable-background-networking", "--disable-component-update",
                f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom",
                frame.as_uri(),
            ],
            check=True, capture_output=True, text=True, timeout=600,
        ).stdout  # fmt: skip
        width = re.search(r"<title>width (\d+)</title>", dom)
        assert int(width[1]) <= 380, page.name
