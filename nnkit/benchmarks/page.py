"""The page of a result: one HTML file with plots and tables that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from nnkit.benchmarks.compare import Change, Comparison
from nnkit.benchmarks.plots import plots_of
from nnkit.benchmarks.suite import Result
from nnkit.benchmarks.tables import section_table
from nnkit.insight.drawing import have_matplotlib
from nnkit.insight.html import NO_PLOTS, document, figure, table

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
    parts += [] if have_matplotlib() else [f"<p>{escape(NO_PLOTS)}</p>"]
    parts += ['<div class="plots">', *map(figure, plots), "</div>"] if plots else []
    for section in result.seconds:
        parts += _section(result, section)
    parts += [
        "<h2>Machine</h2>",
        table(["what", "value"], list(result.machine.items())),
    ]
    return document(f"nnkit bench, {result.measured}", "\n".join(parts))


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


def _section(result: Result, section: str) -> Iterator[str]:
    yield f'<h2 id="{section}">{escape(TITLES.get(section, section))}</h2>'
    records = result.section(section)
    for device in dict.fromkeys(record.device for record in records):
        if len({record.device for record in records}) > 1:
            yield f"<h3>{escape(device)}</h3>"
        measured = section_table([record for record in records if record.device == device])
        yield table(measured.headers, measured.rows)
    yield f'<p class="soft">{result.seconds[section]:,.0f} s.</p>'


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
