"""Tables of made-up runs, whose means and spreads are worked out by hand."""

import statistics

import pandas as pd
import pytest

from experiments.logging.measure import ACCURACY
from experiments.report.plots.accuracy import by_size
from experiments.report.plots.rendering import inline_svg
from experiments.tables import table
from experiments.tables.rows import read
from experiments.tables.table import to_markdown
from tests.experiments.tables.made_up import put, put_text, write_cell


def test_mean_and_spread_are_those_worked_out_by_hand(sweep):
    rows, _ = read(sweep)
    cells = table.gather(rows)
    assert cells.loc[("digits/ltp", "cnn", "0.9"), "mean"] == pytest.approx(0.99)
    assert cells.loc[("digits/ltp", "cnn", "0.9"), "std"] == pytest.approx(0.01)
    assert cells.loc[("digits/ltp", "cnn", "0.95"), "text"] == "97.83 ± 1.04"
    assert cells.loc[("digits/magnitude", "cnn", "0.9"), "text"] == "99.05 ± 0.07"
    (single,) = table.gather(rows.loc[[3]]).itertuples()
    assert pd.isna(single.std)
    assert single.text == "98.00"


def test_the_table_says_what_it_shows(sweep):
    assert to_markdown(read(sweep)[0], "digits").splitlines() == [
        "Test accuracy in % of cnn on digits: mean ± sample standard deviation of 3 "
        "seeds, or fewer where in parentheses. Dense: cnn 99.00 ± 0.00. No run exceeds "
        "its size; each is within 0.12 points of it. Not run: Magnitude 95%. Every "
        "run: `digits.csv`, read by `python -m experiments table`; best mean "
        "bold.",
        "",
        "| method | 90% | 95% |",
        "| --- | --: | --: |",
        "| LTP | 99.00 ± 1.00 | **97.83 ± 1.04** |",
        "| Magnitude | **99.05 ± 0.07 (2)** | – |",
    ]


def test_of_bits_per_byte_the_least_is_best(tmp_path):
    for config, bits in (("stdlib/ltp", 2.5), ("stdlib/magnitude", 2.4996)):
        put_text(tmp_path, config, 0.9, 0, bits)
    put_text(tmp_path, "stdlib/lats", 0.9, 0, 2.6)
    put_text(tmp_path, "stdlib/dense", None, 0, 2.0)
    rows, _ = read(tmp_path)
    text = to_markdown(rows, "rows")
    assert text.startswith(
        "Test bits per byte, less is better, of decoder_tiny on stdlib_bytes: one "
        "seed. Dense: decoder_tiny 2.000. "
    )
    assert text.splitlines()[-3:] == [
        "| LATS | 2.600 |",
        "| LTP | **2.500** |",
        "| Magnitude | **2.500** |",
    ]
    assert "bits per byte against size" in inline_svg(table.draw(rows), "a").lower()


def test_networks_and_budgets_are_columns(tmp_path):
    costs = {"macs": 0.4996, "parameters": 0.4, "bytes": 0.6, "latency": 0.59}
    made = {"channels": {"a": [0]}, "points": [], "costs": costs}
    for size, limits in ((0.5, {"macs": 0.5}), (0.6, {"latency": 0.6})):
        put(tmp_path, "digits/dsa", size, 0, 0.98, **made, budget=limits)
    both = {"macs": 0.5, "parameters": 0.45}
    put(tmp_path, "digits/dsa", 0.1, 0, 0.9, **made, budget=both, model="mlp")
    rows, _ = read(tmp_path)
    text = to_markdown(rows, "rows", times=True)
    assert (
        "| method | cnn latency 60% | cnn MACs 50% | mlp MACs 50%, parameters 45% |"
        " wall time |\n" in text
    )
    assert "| DSA | **98.00** | **98.00** | **90.00** | 30 s |" in text
    assert "within 1.00 points of it" in text


def test_a_size_that_is_exceeded_is_not_hidden(sweep):
    put(sweep, "digits/str", 0.9, 0, 0.99, costs={"weights": 0.1012})
    text = to_markdown(read(sweep)[0], "rows")
    assert "1 of 9 runs exceed their size, by at most 0.12 points." in text
    assert "No run exceeds" not in text


def test_what_another_program_measured_is_marked(tmp_path):
    write_cell(tmp_path, "mnist1d/dense", "cnn1d", "dense", [0.94, 0.96])
    write_cell(tmp_path, "mnist1d/ltp", "cnn1d", "0.9", [0.90, 0.88])
    write_cell(tmp_path, "mnist1d/ltp", "cnn1d", "0.95", [0.75])
    write_cell(tmp_path, "mnist1d/ltp:mlp1d", "mlp1d", "0.9", [0.70, 0.72])
    write_cell(tmp_path, "mnist1d/str", "cnn1d", "0.9", [0.91, 0.93])
    rows, _ = read(tmp_path)
    other = rows.iloc[[-1]].assign(
        config="other/magnitude", title="Magnitude", seed=0, accuracy=0.87,
        weights=0.2, recorded="Other of 2024",
    )  # fmt: skip
    text = to_markdown(pd.concat([rows, other]), "few")
    assert [line for line in text.splitlines() if line.startswith("|")] == [
        "| method | cnn1d 90% | cnn1d 95% | mlp1d 90% |",
        "| --- | --: | --: | --: |",
        "| LTP | 89.00 ± 1.41 | **75.00 (1)** | **71.00 ± 1.41** |",
        "| STR | **92.00 ± 1.41** | – | – |",
        "| Magnitude (recorded) | 87.00 (1) | – | – |",
    ]
    assert "Dense: cnn1d 95.00 ± 1.41. No run exceeds its size" in text
    assert "Not run: STR cnn1d 95%; STR mlp1d 90%." in text
    assert "see `few_recorded.csv`" in text


def test_two_configs_of_one_method_go_by_their_own_names(sweep):
    put(sweep, "digits/ltp_cnn", 0.9, 0, 0.9)
    labels = table.labels_of(read(sweep)[0])
    assert labels["digits/ltp"] == "digits/ltp"
    assert labels["digits/ltp_cnn"] == "digits/ltp_cnn"
    assert labels["digits/magnitude"] == "Magnitude"


def test_equal_means_are_both_the_best(tmp_path):
    for config in ("digits/ltp", "digits/lats"):
        put(tmp_path, config, 0.9, 0, 0.99)
    assert to_markdown(read(tmp_path)[0], "a").count("**99.00**") == 2


@pytest.mark.parametrize(
    "accuracies", [(1.0, 1.0), (0.0, 0.1), (0.5,), (0.99, 1.0), (0.998, 0.9981)]
)
def test_any_accuracy_is_drawn_inside_the_axes(accuracies):
    mean = statistics.fmean(accuracies)
    spread = statistics.stdev(accuracies) if len(accuracies) > 1 else None
    line = {"recorded": False, "points": {"90%": (mean, spread)}}
    for dense in (None, mean):
        panel = {"sizes": ["90%"], "dense": dense, "lines": {"a": line}}
        figure = by_size({"cnn": panel}, ACCURACY, label="test accuracy")
        (axes,) = figure.axes
        low, high = axes.get_ylim()
        assert -1 <= low < mean + 1e-9
        assert mean * 0.99 < high <= 1
        assert inline_svg(figure, "a").startswith("<svg ")
