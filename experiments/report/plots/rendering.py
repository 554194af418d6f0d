"""Figures as PNG and as SVG elements of a page; equal figures give equal bytes."""

import io
import re
from typing import Any

from matplotlib.figure import Figure

from experiments.report.plots.drawing import GRID, INK, MUTED, PAPER, style

# Neutral colours by the CSS variable that stands for them in a page.
VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper"}


@style
def png(figure: Figure) -> bytes:
    """Render a figure as a PNG on white ground."""
    buffer = io.BytesIO()
    # Naming the software would make the bytes depend on the version of matplotlib.
    figure.savefig(
        buffer, format="png", dpi=160, facecolor="white", metadata={"Software": None}
    )
    return buffer.getvalue()


def svg(figure: Figure) -> str:
    """Render a figure as an SVG file on white ground."""
    return re.sub(r" +$", "", _saved(figure, facecolor="white"), flags=re.M)


@style
def _saved(figure: Figure, **ground: Any) -> str:
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=nothing, **ground)
    return buffer.getvalue()


def inline_svg(figure: Figure, name: str, *, label: str | None = None) -> str:
    """Render a figure as an SVG element to put inside an HTML page.

    Text stays text, in the font `var(--sans)` of the page. Neutral colours are the
    variables `--ink`, `--muted`, `--grid` and `--paper`. Identifiers inside the picture
    start with its name, so that several pictures do not meet; the label is for those
    who cannot see it.
    """
    text = _saved(figure, transparent=True)
    text = text[text.index("<svg") :]
    # matplotlib's style element would apply to the whole page.
    text = re.sub(
        r"<defs>\s*<style.*?</style>\s*</defs>", "", text, count=1, flags=re.S
    )
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None  # every SVG of matplotlib has one
    title = (label or name).replace("&", "&amp;").replace('"', "&quot;")
    opening = f'<svg {box[0]} role="img" aria-label="{title}">'
    text = re.sub(r"<svg\b[^>]*>", lambda _: opening, text, count=1)
    text = re.sub(r'(?<=\sid=")', f"{name}-", text)
    text = text.replace("url(#", f"url(#{name}-")
    text = re.sub(r'xlink:href="#', f'href="#{name}-', text)
    for colour, variable in VARIABLES.items():
        text = text.replace(f": {colour}", f": var(--{variable})")
    return text.replace("'DejaVu Sans'", "var(--sans)").strip()
