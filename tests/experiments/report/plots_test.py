"""Pictures: what is drawn of which data, and how it looks."""

import matplotlib as mpl

from experiments.report.plots import drawing
from experiments.report.plots.rendering import inline_svg
from experiments.report.plots.run import figures
from tests.experiments.made_up_runs import LAYERS, channel_records, channel_summary


def test_the_pictures_of_channels_are_those_of_groups_and_budget():
    records = [{"step": step, **r} for step, r in channel_records()]
    drawn = figures(channel_summary(), records)
    assert list(drawn) == ["learning", "budget", "group_ratios", "groups"]
    (axes,) = drawn["groups"].axes
    assert axes.get_xscale() == "linear"
    assert [bar.get_width() for bar in axes.patches] == [0.75, 0.125]
    (axes,) = drawn["group_ratios"].axes
    assert axes.get_yscale() == "linear"
    # In the order of the groups, not of the records, so that colours agree.
    assert [line.get_ydata()[0] for line in axes.lines] == [0.5, 0.9]
    (legend,) = drawn["group_ratios"].legends
    assert [text.get_text() for text in legend.get_texts()] == ["block1/conv1", "conv0"]
    without = figures(channel_summary(method="uniform"), [])
    assert list(without) == ["groups"]


def test_costs_limits_and_prices_are_told_apart():
    records = [{"step": step, **r} for step, r in channel_records(limits=2)]
    costs = {"macs": 0.4997, "bytes": 0.3}
    summary = channel_summary(budget={"bytes": 0.5, "macs": 0.5}, costs=costs)
    top, bottom = figures(summary, records)["budget"].axes
    assert top.get_legend_handles_labels()[1] == [
        "bytes", "rounded 30.00%", "limit 50%", "MACs", "rounded 49.97%", "limit 50%",
    ]  # fmt: skip
    assert [line.get_ydata()[-1] for line in top.lines[:6]] == [
        0.6, 0.3, 0.5, 0.5, 0.4997, 0.5,
    ]  # fmt: skip
    assert [line.get_ydata()[-1] for line in bottom.lines] == [0.01, 0.02]
    bare = [{"step": r["step"], "budget/cost/0": 0.5} for r in records]
    assert len(figures(channel_summary(), bare)["budget"].axes) == 1


def test_a_method_without_thresholds_has_no_such_picture():
    records = [
        {"step": s, "loss": 1.0, "keep_ratio": 0.5, "threshold/a": None} for s in (1, 2)
    ]
    drawn = figures({"method": "magnitude"}, records)
    assert list(drawn) == ["learning", "keep_ratio"]
    assert figures({}, []) == {}


def test_the_ends_of_phases_are_marked():
    phases = ["dense"] * 3 + ["prune"] * 4 + ["finetune"] * 2
    records = [
        {"step": step, "keep_ratio": 0.5, "phase": phase}
        for step, phase in enumerate(phases, start=1)
    ]
    (axes,) = figures({}, records)["keep_ratio"].axes
    marks = {text.get_text(): text.xy[0] for text in axes.texts}
    assert marks == {"prune": 3, "finalize": 7}
    (axes,) = figures({}, records[:7])["keep_ratio"].axes
    assert [text.get_text() for text in axes.texts] == ["prune"]


def test_records_with_holes_are_drawn():
    records = [
        {"step": 1, "loss": None, "accuracy": None, "keep_ratio": None},
        {"step": 2, "loss": -0.5, "accuracy": 0.5, "keep_ratio": 0.0},
        {"step": 3, "keep_ratio": 0.5, "threshold/a": 0.0, "phase": "finetune"},
    ]
    drawn = figures({}, records)
    assert list(drawn) == ["learning", "keep_ratio", "thresholds"]
    for name, figure in drawn.items():
        assert inline_svg(figure, name).startswith("<svg ")


def test_many_layers_and_many_lines_stay_small_and_legible():
    names = [f"Block_{i}/Attention/query/kernel" for i in range(300)]
    layers = {n: {"size": 100, "kept": 1 + i % 99} for i, n in enumerate(names)}
    figure = figures({"final": {"layers": layers}}, [])["layers"]
    assert figure.get_figheight() < 35
    records = [{"step": s, "loss": 1 + s % 7} for s in range(100_000)]
    assert len(inline_svg(figures({}, records)["learning"], "a")) < 100_000


def test_lines_are_named_in_the_order_of_their_ends():
    records = [{"step": s, "threshold/a": 3 - s, "threshold/b": s} for s in (1, 2, 3)]
    (legend,) = figures({}, records)["thresholds"].legends
    assert [text.get_text() for text in legend.get_texts()] == ["b", "a"]


def test_neutral_colours_follow_the_page():
    drawn = figures({"final": {"layers": LAYERS}}, [])
    text = inline_svg(drawn["layers"], "layers")
    assert "var(--ink)" in text
    assert "var(--muted)" in text
    assert "#1c2530" not in text
    assert "DejaVu" not in text


def test_figures_leave_the_global_style_alone():
    before = dict(mpl.rcParams)
    figures({"final": {"layers": LAYERS}}, [])
    assert dict(mpl.rcParams) == before


def test_series_of_a_comparison_are_told_apart():
    looks = [drawing.look(number) for number in range(36)]
    assert len({str(look) for look in looks}) == len(looks)
    # Where a colour returns, mark and dash are others.
    for look in looks:
        alike = [other for other in looks if other["color"] == look["color"]]
        for part in ("marker", "linestyle"):
            assert len({str(other[part]) for other in alike}) == 3
