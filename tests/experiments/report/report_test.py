import html
import html.parser
import re
import shutil
import struct

import numpy as np
import pytest
from matplotlib import image

from experiments.report import report, run_page, trail_table
from experiments.report.report import write_report
from tests.experiments.made_up_runs import (
    EVIL,
    LAYERS,
    channel_summary,
    point,
    records_of,
    run_of,
    summary_of,
)
from tests.support import browser
from tests.support.rows import rows


class Page(html.parser.HTMLParser):
    """What a browser would find in a page."""

    void = frozenset({"meta", "br", "img", "link", "hr"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.rows, self.text = [], [], [], []
        self.open = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.extend((tag, name, value) for name, value in attrs)
        if tag not in self.void:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.extend((tag, name, value) for name, value in attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data
        elif "style" not in self.open:
            self.text.append(data)

    def values(self, name):
        return [value for _, key, value in self.attributes if key == name]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run with its report; not to be changed."""
    workdir = run_of(tmp_path_factory.mktemp("run"))
    write_report(workdir)
    return workdir


@pytest.fixture(scope="module")
def page(finished):
    return Page((finished / "report.html").read_text())


def test_the_trail_is_a_table_for_the_terminal():
    assert trail_table.as_text(summary_of()).splitlines() == [
        " step  sparsity  keep ratio  compression  soft accuracy  accuracy  checkpoint",
        "-----  --------  ----------  -----------  -------------  --------"
        "  ----------------",
        "dense    0.000%        100%         1.0x              -    99.31%  -",
        "1,000   75.000%         25%         4.0x         99.25%    99.17%"
        "  checkpoints/1000",
        "2,000   95.000%          5%        20.0x         99.10%    98.00%"
        "  checkpoints/2000",
        "final   98.113%       1.89%        53.0x              -    99.12%  -",
    ]


def test_the_trail_leaves_out_columns_that_a_method_lacks():
    bare = {"step": 10, "sparsity": 0.5, "accuracy_soft": None, "accuracy_hard": 0.9}
    text = trail_table.as_text({"points": [bare], "final": None})
    assert text.splitlines()[0].split() == ["step", "sparsity", "accuracy"]


def test_the_trail_of_nothing_is_a_header():
    text = trail_table.as_text({"points": [], "final": None})
    assert text.split("\n")[0].strip() == "step"


def test_the_page_holds_every_row_of_the_trail(page):
    table = trail_table.lay_out(summary_of())
    assert len(table) == 4
    for row in [[*table], *table.to_numpy().tolist()]:
        assert row in page.rows


def test_the_page_holds_the_headline_numbers(page):
    text = " ".join(page.text)
    for shown in (
        "1.89%",
        "target 2%, met",
        "53.0×",
        "99.12%",
        "before pruning 99.31%, −0.19 points since",
        "2,000",
        "of 106,000",
        "finished",
        "seed 7 · 1 min 23 s",
        "lenet on mnist",
        "Learned threshold pruning",
    ):
        assert shown in text


def test_the_page_holds_layers_configuration_versions_and_command(page):
    assert ["Dense_0/kernel", "100,000", "1,600", "1.6%", "62.5×"] in page.rows
    assert ["Dense_1/kernel", "5,200", "0", "0%", "–"] in page.rows
    assert ["optimizer.name", "sgd"] in page.rows
    assert ["widths", "[6, 16]"] in page.rows
    assert ["jax", "0.10.2"] in page.rows
    assert "python -m experiments train \\\n  '--config=a b.py'" in " ".join(page.text)


def test_the_page_is_well_formed_and_names_nothing_twice(page):
    assert page.open == []
    names = page.values("id")
    assert len(names) > 100
    assert len(set(names)) == len(names)
    targets = [v[1:] for v in page.values("href") if v.startswith("#")]
    clips = re.findall(r"url\(#([^)]*)\)", " ".join(page.values("clip-path")))
    assert targets
    assert clips
    assert {*targets, *clips} <= {*names}


def test_the_page_loads_and_runs_nothing(finished, page):
    assert not {"script", "link", "img", "iframe", "object"} & {*page.tags}
    links = page.values("src") + page.values("href") + page.values("xlink:href")
    assert all(link.startswith(("#", "data:")) for link in links)
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    everything = " ".join(str(v) for _, n, v in page.attributes if "xmlns" not in n)
    assert "//" not in everything
    text = (finished / "report.html").read_text()
    (style,) = re.findall(r"(?s)<style>(.*?)</style>", text)
    assert "url(" not in style
    assert "@import" not in style


def test_the_page_shows_every_picture(page, finished):
    assert page.tags.count("svg") == 5
    for name in ("accuracy", "learning", "keep_ratio", "layers", "thresholds"):
        data = (finished / "plots" / f"{name}.png").read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        width, height = struct.unpack(">II", data[16:24])
        assert width > 900
        assert height > 250


def test_hostile_texts_are_only_shown(tmp_path):
    layers = {EVIL: {"size": 10, "kept": 1, "keep_ratio": 0.1}}
    summary = summary_of(
        full_title=EVIL, dataset=EVIL, model=EVIL, seed=EVIL, status=EVIL, command=EVIL,
        config={EVIL: {EVIL: EVIL}, "list": [EVIL]}, versions={EVIL: EVIL},
        points=[point(1000, 0.25, 0.9, 0.9) | {"checkpoint": EVIL}],
        final=summary_of()["final"] | {"layers": layers},
    )  # fmt: skip
    records = records_of(layers=[EVIL])
    text = write_report(run_of(tmp_path, summary, records)).read_text()
    evil = Page(text)
    assert "<script" not in text
    assert "<img" not in text
    assert evil.open == []
    assert [f"{EVIL}.{EVIL}", EVIL] in evil.rows
    assert not {"script", "img"} & {*evil.tags}


LACKING = [
    summary_of(points=[], dense_accuracy=None, budget=None, command=None),
    summary_of(points=[], final=None, status="stopped"),
    summary_of(final=None, costs=None),
    summary_of(costs={"weights": True}),
    summary_of(final=None, costs=None, budget={"macs": 0.5}),
    summary_of(config={}, versions=None, seconds=None),
    summary_of(final=summary_of()["final"] | {"layers": {}}),
    summary_of(
        points=[{"step": 5, "accuracy_hard": None, "compression": None}],
        final={"accuracy": float("nan"), "compression": float("inf")},
    ),
    {"method": "magnitude"},
    {},
]


# Pages with pictures take seconds each.
@pytest.mark.parametrize("summary", rows(LACKING, LACKING[:3] + LACKING[-3:]))
def test_what_a_run_lacks_is_left_out(tmp_path, summary):
    records = records_of(steps=range(100, 1001, 100)) if summary.get("points") else []
    path = write_report(run_of(tmp_path, summary or {"seed": 0}, records))
    shown = Page(path.read_text())
    assert shown.open == []
    assert "None" not in " ".join(shown.text)
    assert shown.tags.count("svg") == len(list((tmp_path / "plots").iterdir()))


def test_a_stopped_run_says_so(tmp_path):
    path = write_report(run_of(tmp_path, summary_of(status="stopped"), []))
    assert "Stopped before its end." in " ".join(Page(path.read_text()).text)


def test_the_page_says_what_the_numbers_are_worth_and_how_to_load_the_network(page):
    text = " ".join(" ".join(page.text).split())
    assert "dense 10.0 s, prune 1 min 13 s · cpu · " in text
    assert "500 test examples, each 0.2 points of accuracy" in text
    # 4 * 2,000 bytes, and a bit for each of 106,000 weights.
    assert "kernels 424,000 bytes, 21,250 as bitmasks" in text
    assert "network = read_network(Path(" in text
    assert "The accuracy suffers." not in text


def test_a_result_that_disappoints_is_pointed_out(tmp_path):
    final = summary_of()["final"] | {"accuracy": 0.90}
    summary = summary_of(final=final, result="NOT_MET")
    text = " ".join(Page(write_report(run_of(tmp_path, summary, [])).read_text()).text)
    assert "The accuracy suffers." in text
    assert "is 9.31 points below the dense one" in text
    assert "did not reach the target by itself" in text


def test_a_missed_budget_says_so(tmp_path):
    summary = summary_of(budget={"weights": 0.01})
    text = write_report(run_of(tmp_path, summary, [])).read_text()
    assert '<dd class="note warn">target 1%, missed</dd>' in text


def test_a_run_that_prunes_channels_shows_its_limits_and_groups(tmp_path):
    page = Page(write_report(run_of(tmp_path, channel_summary(), [])).read_text())
    text = " ".join(" ".join(page.text).split())
    assert "Differentiable sparsity allocation" in text
    assert "MACs 49.97% limit 50%, met" in text
    assert "Channels kept 14 of 32" in text
    assert ["params/block1/conv1/kernel:3", "16", "2", "12.5%"] in page.rows
    table = trail_table.lay_out(channel_summary())
    assert [*table.columns[:2]] == ["step", "MACs"]
    assert [*table["MACs"]] == ["100.00%", "49.97%", "49.97%"]


@pytest.mark.parametrize(
    ("reached", "note"), [(0.5, "good"), (0.50001, "warn"), (0.1, "good")]
)
def test_a_limit_is_missed_only_when_exceeded(reached, note):
    summary = channel_summary(budget={"parameters": 0.42, "macs": 0.5})
    summary["costs"] |= {"macs": reached}
    cards = run_page._cards(summary)
    assert [card[0] for card in cards] == [
        "Parameters", "MACs", "Accuracy", "Channels kept",
    ]  # fmt: skip
    assert [card[3] for card in cards] == ["good", note, "", ""]


def test_equal_data_gives_equal_files(finished, tmp_path):
    again = tmp_path / "run"
    again.mkdir()
    for name in ("summary.json", "metrics.jsonl"):
        shutil.copy(finished / name, again)
    page = write_report(again).read_text()
    old = (finished / "report.html").read_text()
    assert page.replace(str(again), str(finished)) == old  # it shows its folder
    for path in (again / "plots").iterdir():
        assert path.read_bytes() == (finished / "plots" / path.name).read_bytes()


def test_the_command_line_makes_the_report_again(tmp_path, capsys):
    run_of(tmp_path, records=[])
    assert report.main([f"--workdir={tmp_path}"]) == 0
    out = capsys.readouterr().out
    assert trail_table.as_text(summary_of()) in out
    assert out.endswith(f"{tmp_path / 'report.html'}\n")
    assert (tmp_path / "report.html").exists()


def test_the_command_line_says_what_is_missing(tmp_path, capsys):
    assert report.main([f"--workdir={tmp_path}"]) == 1
    assert "summary.json" in capsys.readouterr().err
    (tmp_path / "summary.json").write_text("[1]")
    assert report.main([f"--workdir={tmp_path}"]) == 1
    assert "a JSON object" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def test_a_page_that_cannot_be_written_is_named(tmp_path):
    run_of(tmp_path, records=[])
    (tmp_path / "report.html").mkdir()
    with pytest.raises(OSError, match=r"report\.html"):
        write_report(tmp_path)
    assert not list(tmp_path.glob(".*"))


@browser.needed
def test_the_page_fits_wide_and_narrow_windows(tmp_path):
    layers = [f"ResNetBlock_{i}/Conv_1/kernel" for i in range(20)]
    final = summary_of()["final"] | {
        "layers": dict.fromkeys(layers, LAYERS["Dense_0/kernel"])
    }
    run_of(tmp_path, summary_of(final=final), records_of(layers=layers))
    page, widths = write_report(tmp_path).read_text(), [1200, 700, 360]
    measured = browser.measure(tmp_path, page, widths)
    assert [frame["width"] for frame in measured] == widths
    for frame in measured:
        assert frame["content"] <= frame["width"]
        assert len(frame["heights"]) == 5
        assert min(frame["heights"]) > 100
        assert frame["out"] == []


@browser.needed
def test_a_browser_paints_the_page_and_runs_no_script_in_it(finished, tmp_path):
    copy = tmp_path / "copy.html"
    script = "<script>document.body.innerHTML = ''</script></body>"
    text = (finished / "report.html").read_text()
    copy.write_text(text.replace("</body>", script))
    assert script in copy.read_text()
    picture = tmp_path / "page.png"
    browser.run(
        tmp_path, "--window-size=1000,1600", f"--screenshot={picture}", copy.as_uri()
    )
    pixels = image.imread(picture)[..., :3]
    assert pixels.shape == (1600, 1000, 3)
    # Blue and orange lines and the green ground of the last row are there.
    for colour in ((0x3B, 0x78, 0xE7), (0xE0, 0x7A, 0x1F), (0xE2, 0xF4, 0xEA)):
        near = np.abs(pixels * 255 - colour).max(-1) < 4
        assert near.sum() > 200, colour
