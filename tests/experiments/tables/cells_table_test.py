"""Cells of many seeds become a table, a CSV file and a picture."""

import json

import pytest

from experiments.tables import cells_table, tables

_TITLES = {"ltp": "LTP", "str": "STR", "dense": "Dense"}


def write_cell(workdir, name, model, size, tests, *, read=True, costs=None):
    rows = [
        {
            "seed": seed,
            "validation": accuracy - 0.01,
            "kept_weights": 512,
            "total_weights": 5125,
            **({"test": accuracy} if read else {}),
            **({"costs": costs} if costs else {}),
        }
        for seed, accuracy in enumerate(tests)
    ]
    content = {
        "name": name,
        "title": _TITLES.get(name.split("/")[1].split(":")[0], "Numbers of DSA, gated"),
        "size": size,
        "config": {"model": model, "data": {"name": "mnist1d"}},
        "test": read,
        "rows": rows,
        "seconds": 2.0,
    }
    file = workdir / name / f"{size}.cell.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


@pytest.fixture
def run_table(tmp_path):
    (tmp_path / "README.md").write_text(
        "<!-- results:few begin -->\n<!-- results:few end -->\n"
    )
    results = tmp_path / "results"

    def run(*arguments):
        status = tables.main(
            [
                *arguments,
                "--name=few",
                f"--results={results}",
                f"--readme={tmp_path / 'README.md'}",
            ]
        )
        assert status == 0
        return (tmp_path / "README.md").read_text()

    return run


def test_methods_stand_beside_each_other_and_beside_recorded_ones(
    tmp_path, run_table, capsys
):
    work = tmp_path / "work"
    write_cell(work, "mnist1d/dense", "cnn1d", "dense", [0.94, 0.96])
    write_cell(work, "mnist1d/ltp", "cnn1d", "0.9", [0.90, 0.88])
    write_cell(work, "mnist1d/ltp", "cnn1d", "0.95", [0.75])
    write_cell(work, "mnist1d/ltp:mlp1d", "mlp1d", "0.9", [0.70, 0.72])
    write_cell(work, "mnist1d/str", "cnn1d", "0.9", [0.91, 0.93])
    write_cell(work, "mnist1d/str", "cnn1d", "0.95", [0.5], read=False)
    recorded = tmp_path / "results" / "few_recorded.csv"
    recorded.parent.mkdir()
    recorded.write_text(
        "config,title,model,dataset,size,seed,accuracy,validation,kept_weights,"
        "total_weights,cost,seconds,recorded\n"
        "other/magnitude,Other magnitude,cnn1d,mnist1d,0.9,0,0.87,,513,5125,,3.9,"
        "Other of 2024\n"
    )
    readme = run_table(f"--workdir={work}")
    lines = [line for line in readme.splitlines() if line.startswith("|")]
    assert lines == [
        "| method | cnn1d 90% | cnn1d 95% | mlp1d 90% |",
        "| --- | --: | --: | --: |",
        "| LTP | 89.00 ± 1.41 | **75.00 (1)** | **71.00 ± 1.41** |",
        "| STR | **92.00 ± 1.41** | – | – |",
        "| Other magnitude (recorded) | 87.00 (1) | – | – |",
    ]
    assert "Dense: cnn1d 95.00 ± 1.41." in readme
    assert "Not run yet: STR cnn1d 95%; STR mlp1d 90%." in readme
    assert "Not finished, left out" in capsys.readouterr().out
    picture = (tmp_path / "results" / "few.svg").read_text()
    assert "Other magnitude (recorded)" in picture

    assert run_table() == readme
    assert (tmp_path / "results" / "few.svg").read_text() == picture


def test_budgets_are_columns_and_crossed_cells_say_what_they_take(tmp_path, run_table):
    name = "mnist1d/given, dsa, norm_scale, gated"
    costs = {"macs": 0.49, "parameters": 0.6}
    write_cell(tmp_path / "w", name, "cnn1d_norm", "macs:0.5", [0.9], costs=costs)
    write_cell(tmp_path / "w", name, "cnn1d_norm", "macs:0.75", [0.92], costs=costs)
    readme = run_table(f"--workdir={tmp_path / 'w'}")
    assert "| method | cnn1d_norm MACs 75% | cnn1d_norm MACs 50% |" in readme
    assert "| Numbers of DSA, gated | **92.00** | **90.00** |" in readme
    rows, _ = cells_table.read_cells(tmp_path / "w")
    assert [row.cost for row in rows] == [0.49, 0.49]


def test_a_workdir_without_a_test_that_was_read_is_refused(tmp_path):
    write_cell(tmp_path, "mnist1d/ltp", "cnn1d", "0.9", [0.9], read=False)
    with pytest.raises(ValueError, match=r"experiments seeds --test"):
        cells_table.read_cells(tmp_path)
