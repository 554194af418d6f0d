"""Web pages that stand alone: styles, tables and cards, no script, nothing loaded.

The parts of a page are the macros of `templates/page.html`, where their arguments are
documented. What goes into a page is text and is escaped, except for what is called
markup.
"""

from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

Card = tuple[str, str, str, str]
"""A headline number: its name, the number, a note, `good`, `warn` or nothing."""

_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
)
_PARTS: Any = _TEMPLATES.get_template("page.html").module

render = _PARTS.page
section = _PARTS.section
figure = _PARTS.figure
caption = _PARTS.caption
details = _PARTS.details
table = _PARTS.table


def fill(template: str, **values: Any) -> Markup:
    """Fill in a template of the folder `templates`, such as `run.html`."""
    return Markup(_TEMPLATES.get_template(template).render(values))


def text(value: Any) -> Markup:
    """Make markup that shows a value as it is."""
    return Markup.escape(str(value))
