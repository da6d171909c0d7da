"""The page of a result: one HTML file with plots and tables that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from nnkit.benchmarks.compare import Change, Comparison
from nnkit.benchmarks.plots import Plot, have_matplotlib, plots_of
from nnkit.benchmarks.suite import Result
from nnkit.benchmarks.tables import Table, section_table

__all__ = ["TITLES", "notes", "page"]

TITLES = {
    "kernels": "Fused kernels against the unfused expression",
    "step": "A training step against its own matrix products",
    "epoch": "An epoch, from the file on",
    "precision": "Precisions",
    "loading": "Loading batches",
    "start": "Starting",
    "memory": "Memory",
    "growth": "How cost grows",
    "predict": "Predicting",
    "peers": "Other libraries, the same training",
}
_NO_PLOTS = "There are no plots: matplotlib is not installed here (pip install 'nnkit[bench]')."
# Colours by role, for a light and for a dark surface.
_STYLE = """
:root { color-scheme: light dark; --back: #ffffff; --ink: #1c2024; --soft: #5b6470; --grid: #d8dde3;
  --better: #116329; --worse: #a40e26;
  --series-0: #0b63b8; --series-1: #c04a00; --series-2: #0a7d55; --series-3: #9a2d8f;
  --series-4: #8a6d00; --series-5: #107c91; --series-6: #b3243c; --series-7: #5a5f66; }
@media (prefers-color-scheme: dark) { :root {
  --back: #14171a; --ink: #e6e9ec; --soft: #a0a8b2; --grid: #343a41; --better: #6fdd8b; --worse: #ff8a94;
  --series-0: #6cb4ff; --series-1: #ff9d5c; --series-2: #4fd1a1; --series-3: #e58bdb;
  --series-4: #e0c14a; --series-5: #5cd3e8; --series-6: #ff8095; --series-7: #b6bcc4; } }
body { background: var(--back); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; margin: 0 auto;
  max-width: 76rem; padding: 1.5rem; }
h1, h2, h3 { line-height: 1.2; }
h2 { margin-top: 2.5rem; }
.soft, figcaption { color: var(--soft); }
.plots { display: grid; gap: 2rem; grid-template-columns: repeat(auto-fit, minmax(min(30rem, 100%), 1fr)); }
figure { margin: 0; }
svg { height: auto; max-width: 100%; }
svg text { font-family: system-ui, sans-serif !important; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.875rem; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--grid); padding: 0.3rem 0.8rem 0.3rem 0; text-align: left;
  vertical-align: top; white-space: nowrap; }
th { color: var(--soft); font-weight: 600; }
.better { color: var(--better); font-weight: 600; }
.worse { color: var(--worse); font-weight: 600; }
"""


def page(result: Result, comparison: Comparison | None = None) -> str:
    """Return the HTML of a result.

    Parameters
    ----------
    result : Result
        What was measured.
    comparison : Comparison or None
        With an earlier result, shown first.
    """
    plots = plots_of(result.records)
    parts = [*_head(result)]
    if comparison is not None:
        parts += _comparison(comparison)
    parts += ["<h2>Plots</h2>"]
    parts += [] if have_matplotlib() else [f"<p>{escape(_NO_PLOTS)}</p>"]
    parts += ['<div class="plots">', *(_figure(plot) for plot in plots), "</div>"] if plots else []
    for section in result.seconds:
        parts += _section(result, section)
    parts += [
        "<h2>Machine</h2>",
        _table(Table(["what", "value"], [list(row) for row in result.machine.items()], 1)),
    ]
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>nnkit bench, {escape(result.measured)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _head(result: Result) -> Iterator[str]:
    machine = result.machine
    where = [machine.get("processor", ""), machine.get("  BLAS", ""), machine.get("  BLAS threads", "")]
    yield "<h1>nnkit bench</h1>"
    size = "" if result.size == "full" else f", {result.size} sizes"
    threads = f"{where[2]} BLAS threads" if where[2] else ""
    words = ", ".join(filter(None, [where[0], where[1], threads]))
    yield f"<p>Measured {escape(result.measured)} UTC{size}, on {escape(words)}.</p>"
    yield (
        '<p class="soft">A figure is the median of its repeats, with their 10th and 90th percentile in '
        "brackets. A ratio is of two things measured in turns, so that a machine that is slow for a while is "
        "slow for both.</p>"
    )
    if result.size != "full":
        yield '<p class="soft">Small sizes and few repeats: a first look, not a measurement.</p>'


def _figure(plot: Plot) -> str:
    """The names that the plot's role refers to stand here: a title inside of SVG would be a tooltip, too."""
    drawn = plot.svg or ""
    return (
        f'<figure id="plot-{plot.key}">\n<h3 id="{plot.key}-title">{escape(plot.title)}</h3>\n{drawn}\n'
        f'<figcaption id="{plot.key}-description">{escape(plot.description)}</figcaption>\n'
        f"<details><summary>The numbers</summary>{_table(Table(plot.headers, plot.rows, 1))}</details>\n"
        "</figure>"
    )


def _section(result: Result, section: str) -> Iterator[str]:
    yield f'<h2 id="{section}">{escape(TITLES.get(section, section))}</h2>'
    records = result.section(section)
    for device in dict.fromkeys(record.device for record in records):
        if len({record.device for record in records}) > 1:
            yield f"<h3>{escape(device)}</h3>"
        yield _table(section_table([record for record in records if record.device == device]))
    yield f'<p class="soft">{result.seconds[section]:,.0f} s.</p>'


def _table(table: Table) -> str:
    width = len(table.headers)
    head = "".join(f'<th scope="col">{escape(header)}</th>' for header in table.headers)
    rows = []
    for row in table.rows:
        cells = [f"<td>{escape(cell)}</td>" for cell in row]
        if len(row) < width:
            cells[-1] = f'<td class="soft" colspan="{width - len(row) + 1}">{escape(row[-1])}</td>'
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>\n'
        + "\n".join(rows)
        + "\n</tbody></table></div>"
    )


def _comparison(comparison: Comparison) -> Iterator[str]:
    marked = comparison.marked
    yield "<h2>Against the earlier result</h2>"
    yield (
        f"<p>{len(marked)} of {len(comparison.changes)} figures differ by more than their spreads. A figure "
        "is marked where the two spreads have nothing in common; of so many, some are by chance.</p>"
    )
    for note in notes(comparison):
        yield f"<p>{escape(note)}</p>"
    if marked:
        yield _marked(marked)


def notes(comparison: Comparison) -> list[str]:
    """Say what else is not the same, a line each."""
    found = []
    if comparison.sizes[0] != comparison.sizes[1]:
        found.append(f"The sizes are not the same: {comparison.sizes[0]} before, {comparison.sizes[1]} now.")
    if comparison.machine:
        rows = [f"{name.strip()}: {before} → {now}" for name, (before, now) in comparison.machine.items()]
        found.append(f"The machine is not the same: {'; '.join(rows)}.")
    for which, names in (("before", comparison.only_before), ("now", comparison.only_now)):
        if names:
            found.append(
                f"Measured only {which}: {len(names)} ({'; '.join(names[:3])}{' ...' * (len(names) > 3)})."
            )
    return found


def _marked(changes: Sequence[Change]) -> str:
    head = "".join(
        f'<th scope="col">{name}</th>' for name in ("section", "what", "figure", "before", "now", "", "")
    )
    rows = []
    for change in changes:
        cells = [change.section, change.what, change.figure, str(change.before), str(change.now)]
        texts = "".join(f"<td>{escape(cell)}</td>" for cell in [*cells, f"× {change.ratio:.2f}"])
        rows.append(f'<tr>{texts}<td class="{change.verdict}">{change.verdict}</td></tr>')
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>\n'
        + "\n".join(rows)
        + "\n</tbody></table></div>"
    )
