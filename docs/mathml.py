"""Formulas of the pages become MathML, which browsers show without a script or a font.

A hook of MkDocs: `pymdownx.arithmatex` marks `$...$` and `$$...$$`, and this replaces
what it marked.
"""

import html
import re

from latex2mathml import converter

_MARKED = re.compile(
    r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL
)


def on_page_content(content: str, **_) -> str:
    """Return the page with MathML in the place of LaTeX."""
    return _MARKED.sub(_formula, content)


def _formula(match):
    display = "block" if match[1] == "div" else "inline"
    formula = converter.convert(html.unescape(match[2]).strip(), display=display)
    return f"<div>{formula}</div>" if display == "block" else formula
