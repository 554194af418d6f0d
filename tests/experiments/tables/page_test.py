"""The page that compares runs."""

import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from experiments.analyses import l1_coefficients
from experiments.tables import page
from experiments.tables.rows import read
from tests.experiments.tables.made_up import put


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
    cards = page._cards(read(tmp_path)[0])
    assert cards == [("Best at 90%", "99.00%", "LATS, LTP", "")]


def test_names_from_outside_are_shown_and_not_run(sweep):
    evil = "<script>alert(1)</script>&"
    rows = [dataclasses.replace(r, config=evil, dataset=evil) for r in read(sweep)[0]]
    text = page.render(rows, workdir=Path(evil), name=evil)
    assert "<script" not in text
    assert "&lt;script&gt;" in text


BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.skipif(not BROWSER, reason="no Chromium is installed")
def test_the_pages_fit_a_telephone(sweep, tmp_path):
    file = sweep / "comparison.html"
    file.write_text(page.render(read(sweep)[0], workdir=sweep, name="digits"))
    l1_coefficients.write(tmp_path)
    for path in (file, tmp_path / "l1_coefficients.html"):
        frame = tmp_path / "frame.html"
        text = json.dumps(path.read_text()).replace("</", "<\\/")
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
        assert int(width[1]) <= 380, path.name
