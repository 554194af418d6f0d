"""Web pages that stand alone: styles, tables and cards, no script, nothing loaded.

What goes into a page is text and is escaped, except for what is called markup. The
templates are in `templates/`.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

Card = tuple[str, str, str, str]
"""A headline number: its name, the number, a note, `good`, `warn` or nothing."""

_FOLDER = Path(__file__).parent / "templates"
_PARTS: Any = (
    jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    .get_template("page.html")
    .module
)


def render(
    title: str,
    *,
    subject: str,
    facts: str,
    badge: tuple[str, str],
    cards: Sequence[Card],
    sections: Iterable[Markup | str],
    footer: str,
) -> str:
    """Put a page together.

    Args:
      title: The heading.
      subject: What the page is about, above the heading; may be empty.
      facts: One line below the heading.
      badge: A word in front of the facts, and `good` or `warn`.
      cards: Headline numbers.
      sections: Markup, one after the other; empty ones are left out.
      footer: Markup.

    Returns:
      The page. It holds all that it shows and runs no script.
    """
    style = Markup((_FOLDER / "style.css").read_text())
    markup = map(Markup, sections)
    return str(
        _PARTS.page(title, subject, facts, badge, cards, markup, Markup(footer), style)
    )


def text(value: Any) -> Markup:
    """Make markup that shows a value as it is."""
    return Markup.escape(str(value))


def section(title: str, body: str, name: str) -> Markup:
    """Make a part of a page from markup; `name` is unique in the page."""
    return _PARTS.section(title, Markup(body), name)


def figure(picture: str, caption: str) -> Markup:
    """Make a picture, which is markup, with a caption below it."""
    return _PARTS.figure(Markup(picture), caption)


def caption(markup: str) -> Markup:
    """Make a note, from markup, below a table."""
    return _PARTS.caption(Markup(markup))


def banner(title: str, body: str) -> Markup:
    """Make a warning above the sections of a page."""
    return _PARTS.banner(title, body)


def details(title: str, body: str) -> Markup:
    """Make a part, from markup, that is closed at first."""
    return _PARTS.details(title, Markup(body))


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    left: set[int],
    kinds: Sequence[str] = (),
    best: Iterable[tuple[int, int]] = (),
) -> Markup:
    """Make a table of texts, numbers to the right, that scrolls if it is wide.

    Args:
      header: Names of the columns.
      rows: Texts.
      left: Columns of words, which start at the left.
      kinds: Of every row: `dense`, `final` or nothing; all nothing if not given.
      best: Row and column of the cells to mark.
    """
    return _PARTS.table(header, list(rows), left, kinds, set(best))
