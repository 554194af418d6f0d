"""What runs and cells reached, read from their folders and from CSV files."""

import dataclasses
import json

import pytest

from experiments.tables import rows
from experiments.tables.rows import Row, from_csv, read, to_csv
from tests.experiments.tables.made_up import put, write_cell


def test_a_row_holds_the_numbers_of_its_run(sweep):
    found, left_out = read(sweep)
    assert left_out == []
    assert (found[0].size, found[0].limits) == ("", {})
    assert found[3] == Row(
        config="digits/ltp",
        title="LTP",
        model="cnn",
        dataset="digits",
        split="test",
        size="0.9",
        seed=0,
        accuracy=0.98,
        validation=None,
        weights=1 - 0.9 - 0.0012,
        macs=None,
        parameters=None,
        bytes=None,
        latency=None,
        seconds=30.0,
        jaxprune="1.2.3",
        recorded="",
    )
    assert found[3].limits == {"weights": 0.1}


def test_a_run_of_channels_has_costs_and_the_time_of_its_trials(tmp_path):
    limits = {"macs": 0.5, "parameters": 0.45}
    costs = {"weights": 0.4, "macs": 0.4996, "parameters": 0.4, "latency": 0.59}
    folder = put(
        tmp_path, "digits/ssl", 0.5, 0, 0.9, budget=limits, costs=costs,
        channels={"a": [0]}, points=[],
    )  # fmt: skip
    (folder / "trials.json").write_text(json.dumps({"seconds": 345.67, "trials": []}))
    # A trial is a run too, and is none of the table's.
    put(folder / "trials", "0.1", 0.5, 0, 0.1)
    (row,), _ = read(tmp_path)
    assert row.size == "macs:0.5+parameters:0.45"
    assert row.limits == limits
    assert (row.macs, row.latency, row.seconds) == (0.4996, 0.59, 375.7)


def test_seeds_of_cells_are_rows(tmp_path):
    name = "mnist1d/given, dsa, norm_scale, gated"
    costs = {"macs": 0.49, "parameters": 0.6}
    write_cell(tmp_path, name, "cnn1d_norm", "macs:0.5", [0.9], costs=costs)
    write_cell(tmp_path, name, "cnn1d_norm", "macs:0.75", [0.92], costs=costs)
    write_cell(tmp_path, "mnist1d/ltp:mlp1d", "mlp1d", "0.9", [0.7], read=False)
    found, left_out = read(tmp_path)
    assert [row.size for row in found] == ["macs:0.75", "macs:0.5"]
    assert [(row.macs, row.latency) for row in found] == [(0.49, None)] * 2
    assert (found[0].accuracy, found[0].validation) == (0.92, 0.91)
    assert found[0].weights == 512 / 5125
    assert [file.name for file in left_out] == ["0.9.cell.json"]


def test_the_csv_file_keeps_every_bit(sweep):
    found, _ = read(sweep)
    text = to_csv(found)
    assert from_csv(text) == found
    assert text.startswith("config,title,model,dataset,split,size,seed,accuracy,")
    assert len(text.splitlines()) == 1 + len(found)
    with pytest.raises(ValueError, match=r"requires the columns config.*got config, a"):
        from_csv("config,a\n")
    for line in ("a,b\n", "," * 40 + "\n"):
        with pytest.raises(ValueError, match="line 2 has not 17 cells"):
            from_csv(text.splitlines()[0] + "\n" + line)


def test_rows_that_do_not_stand_together_are_refused(sweep):
    found, _ = read(sweep)
    rows.check_together(found)
    other = dataclasses.replace(found[3], recorded="Other of 2024")
    with pytest.raises(ValueError, match="'digits/ltp' is called as one of ours"):
        rows.check_together([*found, other])
    other = dataclasses.replace(found[3], size="latency:0.5")
    with pytest.raises(ValueError, match=r"digits/ltp at latency:0\.5: what it has"):
        rows.check_together([*found, other])


def test_the_largest_networks_stand_first():
    sizes = ["macs:0.5", "0.9", "macs:0.5+parameters:0.4", "", "macs:0.75", "0.05"]
    row = from_csv(
        ",".join(field.name for field in dataclasses.fields(Row))
        + "\na,A,net,digits,test,0.9,0,0.5,,,,,,,1.0,0,\n"
    )[0]
    made = [dataclasses.replace(row, size=size) for size in sizes]
    assert [x.size for x in sorted(made, key=rows.place)] == [
        "", "0.05", "0.9", "macs:0.75", "macs:0.5", "macs:0.5+parameters:0.4",
    ]  # fmt: skip


def test_runs_that_are_not_finished_are_left_out_and_named(sweep):
    stopped = put(sweep, "digits/str", 0.9, 0, 0.9, status="stopped", final=None)
    killed = put(sweep, "digits/str", 0.9, 1, 0.9)
    (killed / "summary.json").unlink()
    found, left_out = read(sweep)
    assert left_out == [stopped, killed]
    assert "digits/str" not in {row.config for row in found}


def test_runs_that_do_not_compare_are_refused(sweep, tmp_path):
    with pytest.raises(ValueError, match="there is none"):
        read(tmp_path / "nothing")
    put(tmp_path / "dense", "digits/dense", None, 0, 0.9)
    with pytest.raises(ValueError, match="there is none"):
        read(tmp_path / "dense")
    write_cell(tmp_path / "cell", "mnist1d/ltp", "cnn1d", "0.9", [0.9], read=False)
    with pytest.raises(ValueError, match="experiments seeds --test"):
        read(tmp_path / "cell")
    put(sweep, "digits/str", 0.9, 0, 0.9, eval_split="validation")
    with pytest.raises(ValueError, match=r"got digits \(test\), digits \(validation\)"):
        rows.check_together(read(sweep)[0])
    put(tmp_path / "fixed", "digits/ltp", 0.9, 0, 0.9, budget=None)
    with pytest.raises(ValueError, match="decided by a penalty weight"):
        read(tmp_path / "fixed")
