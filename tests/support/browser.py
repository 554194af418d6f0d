"""Pages in headless Chromium; tests that need it are skipped where there is none."""

import html
import json
import re
import shutil
import subprocess

import pytest

_BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
needed = pytest.mark.skipif(not _BROWSER, reason="no Chromium is installed")

# The page in frames of several widths, and what does not fit there.
_MEASURE = """<!doctype html><title></title><body>
<script>
const page = PAGE;
const box = element => element.getBoundingClientRect();
const measure = frame => {
  const root = frame.contentDocument;
  const pictures = [...root.querySelectorAll("figure svg")];
  const out = [...root.querySelectorAll("figure svg text")].filter(text => {
    const [a, b] = [box(text), box(text.closest("svg"))];
    return a.left < b.left - 2 || a.right > b.right + 2
      || a.top < b.top - 2 || a.bottom > b.bottom + 2;
  });
  return {
    width: frame.contentWindow.innerWidth,
    content: root.documentElement.scrollWidth,
    heights: pictures.map(picture => box(picture).height),
    out: out.map(text => text.textContent),
  };
};
const frames = WIDTHS.map(width => {
  const frame = document.createElement("iframe");
  frame.style.cssText = `width: ${width}px; height: 900px; border: 0`;
  frame.srcdoc = page;
  return document.body.appendChild(frame);
});
onload = () => { document.title = JSON.stringify(frames.map(measure)); };
</script>
"""


def run(folder, *arguments):
    """Run Chromium with a profile in a folder; returns what it prints."""
    return subprocess.run(
        [
            _BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--hide-scrollbars",
            f"--user-data-dir={folder / 'profile'}", *map(str, arguments),
        ],
        check=True, capture_output=True, text=True, timeout=600,
    ).stdout  # fmt: skip


def measure(folder, page, widths):
    """Lay a page out in frames.

    Args:
      folder: for files.
      page: its text.
      widths: of the frames, in pixels.

    Returns:
      For each frame its `width`, that of its `content`, the `heights` of its pictures,
      and the words in them that lie `out` of them.
    """
    text = json.dumps(page).replace("</", "<\\/")
    frames = folder / "frames.html"
    frames.write_text(
        _MEASURE.replace("WIDTHS", json.dumps(widths)).replace("PAGE", text)
    )
    dom = run(folder, "--dump-dom", frames.as_uri())
    title = re.search(r"(?s)<title>(.*?)</title>", dom)
    assert title is not None
    return json.loads(html.unescape(title[1]))
