"""Self-contained HTML pages: the document, its style, tables and figures."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from nnkit.extras import install_command
from nnkit.insight.drawing import Plot, colours, page_svg

__all__ = ["NO_PLOTS", "document", "figure", "table"]

NO_PLOTS = f"There are no plots: matplotlib is not installed here ({install_command('matplotlib')})."
# Nothing is fetched from anywhere, whatever the page's texts hold.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; --better: #116329; --worse: #a40e26; }
@media (prefers-color-scheme: dark) { :root { --better: #6fdd8b; --worse: #ff8a94; } }
body { background: var(--back); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; margin: 0 auto;
  max-width: 76rem; padding: 1.5rem; overflow-wrap: break-word; }
h1, h2, h3 { line-height: 1.2; }
h2 { margin-top: 2.5rem; }
.soft, figcaption { color: var(--soft); }
.plots { display: grid; gap: 2rem; grid-template-columns: repeat(auto-fit, minmax(min(30rem, 100%), 1fr)); }
figure { margin: 0; min-width: 0; }
svg { height: auto; max-width: min(100%, 40rem); width: 100%; }
svg text { font-family: system-ui, sans-serif !important; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.875rem; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--grid); padding: 0.3rem 0.8rem 0.3rem 0; text-align: left;
  vertical-align: top; white-space: nowrap; }
th { color: var(--soft); font-weight: 600; }
.better { color: var(--better); font-weight: 600; }
.worse { color: var(--worse); font-weight: 600; }
"""


def document(title: str, body: str, style: str = "", script: str = "") -> str:
    """Return a whole page, light or dark as its reader prefers.

    The title is plain text, the body HTML; `style` are rules beside those of all pages, `script` JavaScript
    that runs at the end of the body.
    """
    script = f"<script>{script}</script>\n" if script else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{colours()}{_STYLE}{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n{script}</body>\n</html>\n"
    )


def figure(plot: Plot) -> str:
    """Return a plot with its title, its description and its numbers.

    The picture refers to title and description by their ids: a title inside the SVG would be a tooltip too.
    """
    numbers = ""
    if plot.rows:
        numbers = f"<details><summary>The numbers</summary>{table(plot.headers, plot.rows)}</details>\n"
    return (
        f'<figure id="plot-{plot.key}">\n<h3 id="{plot.key}-title">{escape(plot.title)}</h3>\n'
        f"{page_svg(plot)}\n"
        f'<figcaption id="{plot.key}-description">{escape(plot.description)}</figcaption>\n{numbers}</figure>'
    )


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of texts; the last cell of a row that is too short spans the other columns."""
    width = len(headers)
    head = "".join(f'<th scope="col">{escape(header)}</th>' for header in headers)
    lines = []
    for row in rows:
        cells = [f"<td>{escape(cell)}</td>" for cell in row]
        if len(row) < width:
            cells[-1] = f'<td class="soft" colspan="{width - len(row) + 1}">{escape(row[-1])}</td>'
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>\n'
        + "\n".join(lines)
        + "\n</tbody></table></div>"
    )
