"""Web pages that stand alone: styles, tables and cards, no script, nothing loaded.

What goes into a page is text and is escaped here, except for what is called markup.
"""

import html
import string
from collections.abc import Iterable, Sequence
from typing import Any

Card = tuple[str, str, str, str]
"""A headline number: its name, the number, a note, `good`, `warn` or nothing."""


def render(
    title: str,
    *,
    subject: str,
    facts: str,
    badge: tuple[str, str],
    cards: Sequence[Card],
    sections: Iterable[str],
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
    return _PAGE.substitute(
        title=text(f"{title}: {subject}" if subject else title),
        heading=text(title),
        subject=text(subject),
        facts=text(facts),
        status=text(badge[0]),
        status_class=badge[1],
        cards="\n".join(
            f'<div class="card"><dt>{text(name)}</dt><dd>{text(value)}</dd>'
            f'<dd class="note {kind}">{text(below)}</dd></div>'
            for name, value, below, kind in cards
        ),
        sections="\n".join(filter(None, sections)),
        footer=footer,
        style=_STYLE,
    )


def text(value: Any) -> str:
    """Make markup that shows a value as it is."""
    return html.escape(str(value))


def section(title: str, body: str, name: str) -> str:
    """Make a part of a page from markup; `name` is unique in the page."""
    return f'<section id="{name}"><h2>{text(title)}</h2>\n{body}</section>'


def figure(picture: str, caption: str) -> str:
    """Make a picture, which is markup, with a caption below it."""
    return f"<figure>{picture}<figcaption>{text(caption)}</figcaption></figure>"


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    left: set[int],
    kinds: Sequence[str] = (),
    best: Iterable[tuple[int, int]] = (),
) -> str:
    """Make a table of texts, numbers to the right, that scrolls if it is wide.

    Args:
      header: Names of the columns.
      rows: Texts.
      left: Columns of words, which start at the left.
      kinds: Of every row: `dense`, `final` or nothing; all nothing if not given.
      best: Row and column of the cells to mark.

    Returns:
      The markup.
    """
    rows, marked = list(rows), set(best)
    kinds = kinds or [""] * len(rows)

    def cells(tag: str, row: Sequence[str], number: int = -1) -> str:
        made = []
        for column, cell in enumerate(row):
            words = ["left"] * (column in left) + ["best"] * (
                (number, column) in marked
            )
            kind = f' class="{" ".join(words)}"' if words else ""
            made.append(f"<{tag}{kind}>{text(cell)}</{tag}>")
        return "".join(made)

    body = "\n".join(
        f'<tr class="{kind}">{cells("td", row, number)}</tr>'
        if kind
        else f"<tr>{cells('td', row, number)}</tr>"
        for number, (row, kind) in enumerate(zip(rows, kinds, strict=True))
    )
    return (
        f'<div class="scroll"><table><thead><tr>{cells("th", header)}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


_STYLE = """
:root {
  color-scheme: light dark;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans",
    Arial, sans-serif;
  --mono: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  --ink: #1c2530; --muted: #5d6977; --grid: #e3e7ec; --paper: #ffffff;
  --ground: #f5f7f9; --accent: #2563c9; --good: #17804f; --warn: #b4540a;
  --good-ground: #e2f4ea; --warn-ground: #fdeedd;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e7ebf0; --muted: #9aa6b4; --grid: #2d3642; --paper: #171d25;
    --ground: #0f1319; --accent: #7aa7ff; --good: #57c994; --warn: #f0a35e;
    --good-ground: #14342a; --warn-ground: #3d2a17;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.5 var(--sans); -webkit-text-size-adjust: 100%;
}
main { max-width: 1160px; margin: 0 auto; padding: 40px 24px 56px; }
h1 { font-size: 32px; line-height: 1.15; letter-spacing: -0.02em; margin: 0 0 6px; }
h2 { font-size: 19px; letter-spacing: -0.01em; margin: 40px 0 12px; }
.eyebrow { color: var(--accent); font-weight: 600; margin: 0 0 4px; }
.facts { color: var(--muted); margin: 0; }
.badge {
  border-radius: 99px; padding: 2px 11px; font-size: 13px; font-weight: 600;
  margin-right: 8px; display: inline-block;
}
.badge.good { background: var(--good-ground); color: var(--good); }
.badge.warn { background: var(--warn-ground); color: var(--warn); }
.banner {
  background: var(--warn-ground); border-left: 4px solid var(--warn);
  border-radius: 6px; padding: 10px 16px; margin: 24px 0 0;
}
.cards {
  display: grid; gap: 14px; margin: 28px 0 0;
  grid-template-columns: repeat(4, 1fr);
}
.card, .scroll, figure, pre, details {
  background: var(--paper); border: 1px solid var(--grid); border-radius: 12px;
}
.card { padding: 16px 20px; }
.card dt { color: var(--muted); font-size: 14px; }
.card dd:not(.note) {
  margin: 2px 0; font-size: 34px; font-weight: 650; line-height: 1.2;
  letter-spacing: -0.025em; font-variant-numeric: tabular-nums;
}
.note { margin: 0; font-size: 14px; color: var(--muted); }
.note.good { color: var(--good); }
.note.warn { color: var(--warn); }
.scroll { overflow-x: auto; }
table {
  border-collapse: collapse; width: 100%; font-size: 14.5px;
  font-variant-numeric: tabular-nums;
}
th, td { padding: 7px 16px; text-align: right; white-space: nowrap; }
th { color: var(--muted); font-weight: 500; font-size: 13.5px; }
td { border-top: 1px solid var(--grid); }
.left { text-align: left; }
td.left { font-family: var(--mono); font-size: 13px; }
#table td.left { font: inherit; }
tr.final td, td.best { font-weight: 650; background: var(--good-ground); }
tr.dense td { color: var(--muted); }
.pictures { columns: 2; column-gap: 14px; }
figure { margin: 0 0 14px; padding: 16px 16px 12px; break-inside: avoid; }
figure svg { display: block; width: 100%; height: auto; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
figcaption { color: var(--muted); font-size: 13.5px; margin-top: 8px; }
pre {
  font: 13.5px/1.55 var(--mono); padding: 12px 16px; margin: 0 0 14px;
  white-space: pre-wrap; overflow-wrap: anywhere;
}
#again p { color: var(--muted); margin: 0 0 6px; font-size: 14px; }
.caption { color: var(--muted); font-size: 14px; margin: 10px 4px 0; }
details { margin: 14px 0 0; overflow: hidden; }
summary { cursor: pointer; padding: 12px 16px; font-weight: 600; }
details .scroll { border: 0; border-top: 1px solid var(--grid); border-radius: 0; }
details td { white-space: normal; overflow-wrap: anywhere; }
footer { color: var(--muted); font-size: 13.5px; margin-top: 36px; }
@media (max-width: 860px) {
  main { padding: 26px 16px 40px; }
  .pictures { columns: 1; }
  #picture figure { overflow-x: auto; }
  #picture svg { min-width: 640px; }
  .cards { grid-template-columns: repeat(2, 1fr); gap: 10px; }
  .card { padding: 12px 16px; }
  .card dd:not(.note) { font-size: 28px; }
  table { font-size: 13.5px; }
  th, td { padding: 6px 8px; }
  td.left { font-size: 12px; }
}
@media print {
  body { background: none; }
  main { max-width: none; padding: 0; }
}
"""

# The policy lets a browser prove that the page loads and runs nothing. Colour scales
# are images inside the markup, hence `data:`.
_PAGE = string.Template(
    """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
</head>
<body>
<main>
<header>
<p class="eyebrow">$subject</p>
<h1>$heading</h1>
<p class="facts"><span class="badge $status_class">$status</span>$facts</p>
<dl class="cards">
$cards
</dl>
</header>
$sections
<footer>$footer</footer>
</main>
</body>
</html>
"""
)
