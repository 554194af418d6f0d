"""The page that compares runs."""

import re
from pathlib import Path

from experiments.analyses import l1_coefficients
from experiments.tables import page
from experiments.tables.rows import read
from tests.experiments.tables.made_up import put
from tests.support import browser


def test_the_page_loads_and_runs_nothing_and_holds_the_table(sweep):
    text = page.render(read(sweep)[0], workdir=sweep, name="digits")
    assert not re.search(r"<(script|link|img|iframe|object)\b", text)
    assert not re.findall(r'(?:src|href)="(?!#)', text)
    for shown in (
        "LTP",
        "97.83 ± 1.04",
        "11 runs",
        "cnn on digits",
        "Dense: cnn 99.00",
    ):
        assert shown in text
    assert text.count('class="best"') == 2


def test_the_best_are_shown_all_of_them(tmp_path):
    for config in ("digits/ltp", "digits/lats"):
        put(tmp_path, config, 0.9, 0, 0.99)
    text = page.render(read(tmp_path)[0], workdir=tmp_path, name="digits")
    words = re.sub(r"<[^>]*>", " ", text).split()
    assert "Best at 90% 99.00% LATS, LTP" in " ".join(words)


def test_names_from_outside_are_shown_and_not_run(sweep):
    evil = "<script>alert(1)</script>&"
    rows = read(sweep)[0].assign(config=evil, dataset=evil)
    text = page.render(rows, workdir=Path(evil), name=evil)
    assert "<script" not in text
    assert "&lt;script&gt;" in text


@browser.needed
def test_the_pages_fit_a_telephone(sweep, tmp_path):
    l1_coefficients.write(tmp_path)
    for text in (
        page.render(read(sweep)[0], workdir=sweep, name="digits"),
        (tmp_path / "l1_coefficients.html").read_text(),
    ):
        (frame,) = browser.measure(tmp_path, text, [380])
        assert frame["content"] <= 380
