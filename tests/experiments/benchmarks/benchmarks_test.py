"""What the benchmarks compute, their times apart."""

import inspect
import json

import jax
import pytest

from experiments.analyses import timing
from experiments.benchmarks import (
    COMMANDS,
    admm_limits,
    common,
    compaction,
    latency,
    suite,
    trace_channels,
)
from jaxprune import costs
from jaxprune.channels import channel_counts
from tests.channels.show_test import resnet20


@pytest.mark.parametrize("multiple_of", [1, 8])
def test_the_uniform_ratio_is_the_largest_that_holds_the_limit(multiple_of):
    graph = resnet20()
    ratio, macs = compaction.uniform_ratio(graph, 0.5, multiple_of)
    assert macs <= 0.5
    cost = costs.macs(graph)
    counts = channel_counts(graph, ratio + 0.001, multiple_of=multiple_of)
    more = {name: count / graph.groups[name].size for name, count in counts.items()}
    assert cost(more) > 0.5
    if multiple_of == 1:
        assert macs > 0.45


def test_limits_below_the_narrowest_network_are_refused():
    with pytest.raises(ValueError, match="cannot be reached with multiples of 8"):
        compaction.uniform_ratio(resnet20(), 0.01, 8)


def test_equations_of_called_programs_count():
    apply_fn, params, x = trace_channels.chain(3)
    # A product, a tanh, a product with 2 and a sum, for each of three layers.
    jaxpr = jax.make_jaxpr(apply_fn)(params, x).jaxpr
    assert trace_channels.equations(jaxpr) == 12


def test_rank_correlation():
    assert latency.rank_correlation([1, 2, 3], [10, 40, 90]) == pytest.approx(1)
    assert latency.rank_correlation([1, 2, 3], [9, 4, 1]) == pytest.approx(-1)


def test_admm_is_near_the_optimum_that_scipy_finds():
    gains, costs = admm_limits.problem(3, 2)
    bounds = admm_limits.bounds_of(0.5, 2)
    assert bounds == [0.5, 0.65]
    k = admm_limits.solve(gains, costs, 1.0, 0.5, 3.0, 2000)
    assert max(c(k) / b for c, b in zip(costs, bounds, strict=True)) < 1.01
    best = admm_limits.optimum(gains, costs, bounds)
    assert float((gains / k).sum()) == pytest.approx(best, rel=0.01)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_benchmark_has_options_and_rows(name):
    benchmark, parser = common.load(name)
    assert COMMANDS[name][1] in " ".join(parser.format_help().split())
    assert inspect.isgeneratorfunction(benchmark.measure)


@pytest.mark.parametrize("sections", [suite.ON_CPU, suite.ON_ACCELERATOR])
def test_the_options_of_the_suite_are_options_of_its_benchmarks(sections):
    for benchmarks in sections.values():
        for name, *arguments in benchmarks:
            _, parser = common.load(name)
            _, unknown = parser.parse_known_args(arguments)
            assert not unknown


def test_a_benchmark_prints_a_table_and_writes_its_numbers(tmp_path, capsys):
    path = tmp_path / "rows.json"
    common.run("growth", ["--methods", "ltp", "--largest=1e6", f"--json={path}"])
    assert capsys.readouterr().out.split()[:2] == ["method", "parameters"]
    found = json.loads(path.read_text())
    assert found["jax"] == jax.__version__
    assert found["options"]["largest"] == 1e6
    small, large = found["rows"]
    # As much for each parameter of a network of any size.
    assert small["copies"] == pytest.approx(large["copies"], rel=0.05)


def test_times_are_written_with_quartiles():
    table = common.as_table([{"x": 1, "time": timing.Quartiles(0.001, 0.002, 0.0035)}])
    assert table.split("\n")[1].split() == ["1", "2", "ms", "(1-3.5)"]


@pytest.mark.slow
def test_a_decoder_is_pruned_in_one_shot_by_each_method():
    options = ("--steps=3", "--batch=2", "--length=8", "--width=16", "--layers=1")
    options += (
        "--heads=2",
        "--calibration=2",
        "--test=2",
        "--sparsities=0.5",
        "--anew",
    )
    rows = common.rows_of("one-shot", *options)
    assert [row["method"] for row in rows] == [
        *("dense", "magnitude", "wanda", "sparse_gpt"),
        *("wanda, layer by layer", "sparse_gpt, layer by layer"),
    ]
    assert 5 < rows[0]["loss"] < 6  # log 256, hardly trained
    assert all(abs(row["loss"] - rows[0]["loss"]) < 0.5 for row in rows)
