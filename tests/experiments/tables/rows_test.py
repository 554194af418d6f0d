"""What runs and cells reached, read from their folders and from CSV files."""

import json

import pandas as pd
import pytest

from experiments.tables import rows
from experiments.tables.rows import COLUMNS, check_together, from_csv, limits, read
from tests.experiments.tables.made_up import put, put_text, write_cell


def test_a_row_holds_the_numbers_of_its_run(sweep):
    found, left_out = read(sweep)
    assert left_out == []
    assert found["size"][0] == ""
    row = found.loc[3]
    assert row[row.notna()].to_dict() == {
        "config": "digits/ltp",
        "title": "LTP",
        "model": "cnn",
        "dataset": "digits",
        "split": "test",
        "size": "0.9",
        "seed": 0,
        "accuracy": 0.98,
        "weights": 1 - 0.9 - 0.0012,
        "seconds": 30.0,
        "jaxprune": "1.2.3",
        "recorded": "",
    }


def test_a_size_stands_for_limits():
    assert limits("") == {}
    assert limits("0.9") == {"weights": 0.1}
    assert limits("macs:0.5+bytes:0.4") == {"macs": 0.5, "bytes": 0.4}


def test_a_run_of_channels_has_costs_and_the_time_of_its_trials(tmp_path):
    asked = {"macs": 0.5, "parameters": 0.45}
    costs = {"weights": 0.4, "macs": 0.4996, "parameters": 0.4, "latency": 0.59}
    folder = put(
        tmp_path, "digits/ssl", 0.5, 0, 0.9, budget=asked, costs=costs,
        channels={"a": [0]}, points=[],
    )  # fmt: skip
    (folder / "trials.json").write_text(json.dumps({"seconds": 345.67, "trials": []}))
    # A trial is a run too, and is none of the table's.
    put(folder / "trials", "0.1", 0.5, 0, 0.1)
    found, _ = read(tmp_path)
    assert [*found["size"]] == ["macs:0.5+parameters:0.45"]
    assert limits(found["size"][0]) == asked
    assert [*found.loc[0, ["macs", "latency", "seconds"]]] == [0.4996, 0.59, 375.7]


def test_seeds_of_cells_are_rows(tmp_path):
    name = "mnist1d/given, dsa, norm_scale, gated"
    costs = {"macs": 0.49, "parameters": 0.6}
    write_cell(tmp_path, name, "cnn1d_norm", "macs:0.5", [0.9], costs=costs)
    write_cell(tmp_path, name, "cnn1d_norm", "macs:0.75", [0.92], costs=costs)
    write_cell(tmp_path, "mnist1d/ltp:mlp1d", "mlp1d", "0.9", [0.7], read=False)
    found, left_out = read(tmp_path)
    assert [*found["size"]] == ["macs:0.75", "macs:0.5"]
    assert [*found["macs"]] == [0.49, 0.49]
    assert found["latency"].isna().all()
    assert [*found.loc[0, ["accuracy", "validation"]]] == [0.92, 0.91]
    assert found["weights"][0] == 512 / 5125
    assert [file.name for file in left_out] == ["0.9.cell.json"]


def test_the_csv_file_keeps_every_bit(sweep, tmp_path):
    found, _ = read(sweep)
    found.loc[0, ["title", "accuracy"]] = "NA", 0.1 + 0.2
    file = tmp_path / "rows.csv"
    file.write_text(rows.to_csv(found))
    pd.testing.assert_frame_equal(from_csv(file), found, check_exact=True)
    text = file.read_text()
    assert text.startswith("config,title,model,dataset,split,size,seed,accuracy,")
    assert len(text.splitlines()) == 1 + len(found)


_HEADER = ",".join(name for name in COLUMNS if name != "bits_per_byte")


def test_rows_of_texts_hold_bits_in_place_of_accuracies(tmp_path):
    put_text(tmp_path, "stdlib/ltp", 0.9, 0, 2.5)
    found, _ = read(tmp_path)
    assert rows.measured_by(found).key == "bits_per_byte"
    file = tmp_path / "rows.csv"
    file.write_text(rows.to_csv(found))
    assert "accuracy" not in file.read_text()
    pd.testing.assert_frame_equal(from_csv(file), found, check_exact=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "No columns"),
        ("config,a\n", "the columns are config, a"),
        (_HEADER + "\na,b\n", "invalid literal"),
        (_HEADER + "\n" + "," * 40 + "\n", "invalid literal"),
        (_HEADER + "\na,A,n,d,test,0.9,0,,,,,,,,1.0,0,\n", "to float"),
    ],
)
def test_a_file_that_holds_no_rows_is_named(tmp_path, text, message):
    file = tmp_path / "rows.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match=rf"rows\.csv is not a table.*{message}"):
        from_csv(file)


def test_rows_that_do_not_stand_together_are_refused(sweep):
    found, _ = read(sweep)
    check_together(found, sweep)
    other = found.loc[[3]].assign(recorded="Other of 2024")
    with pytest.raises(ValueError, match="'digits/ltp' is called as one of ours"):
        check_together(pd.concat([found, other]), sweep)
    other = found.loc[[3]].assign(size="latency:0.5")
    with pytest.raises(ValueError, match=r"digits/ltp at latency:0\.5: what it has"):
        check_together(pd.concat([found, other]), sweep)


def test_the_largest_networks_stand_first():
    sizes = ["macs:0.5", "0.9", "macs:0.5+parameters:0.4", "", "macs:0.75", "0.05"]
    assert sorted(sizes, key=lambda size: rows.place("net", size)) == [
        "", "0.05", "0.9", "macs:0.75", "macs:0.5", "macs:0.5+parameters:0.4",
    ]  # fmt: skip


def test_runs_that_are_not_finished_are_left_out_and_named(sweep):
    stopped = put(sweep, "digits/str", 0.9, 0, 0.9, status="stopped", final=None)
    killed = put(sweep, "digits/str", 0.9, 1, 0.9)
    (killed / "summary.json").unlink()
    found, left_out = read(sweep)
    assert left_out == [stopped, killed]
    assert "digits/str" not in {*found["config"]}


def test_a_table_needs_runs_that_prune(sweep, tmp_path):
    write_cell(tmp_path / "cell", "mnist1d/ltp", "cnn1d", "0.9", [0.9], read=False)
    found, _ = read(sweep)
    recorded = found.assign(recorded="Other of 2024")
    for none in (
        read(tmp_path / "nothing")[0],
        read(tmp_path / "cell")[0],
        found[found["size"] == ""],
        pd.concat([found[found["size"] == ""], recorded]),
    ):
        with pytest.raises(ValueError, match=r"in a/b there is none.*seeds --test"):
            check_together(none, "a/b")


def test_runs_that_do_not_compare_are_refused(sweep, tmp_path):
    put(sweep, "digits/str", 0.9, 0, 0.9, eval_split="validation")
    with pytest.raises(ValueError, match=r"got digits \(test\), digits \(validation\)"):
        check_together(read(sweep)[0], sweep)
    put(tmp_path / "fixed", "digits/ltp", 0.9, 0, 0.9, budget=None)
    with pytest.raises(ValueError, match="decided by a penalty weight"):
        read(tmp_path / "fixed")
