"""The report of a run: one page with its curves, examples and settings, that needs nothing but itself.

Order: the page, its sections from top to bottom, style.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path

import numpy as np

from nnkit.errors import DataError
from nnkit.files import write_whole
from nnkit.insight.class_plots import calibration_of, calibration_plot, precision_recall_plot, roc_plot
from nnkit.insight.columns import model_columns
from nnkit.insight.confusion_section import CELLS_SCRIPT, CELLS_STYLE, confusion_section
from nnkit.insight.drawing import Plot, have_matplotlib
from nnkit.insight.evaluated_model import (
    EvaluatedModel,
    EvaluatedRun,
    evaluated_run,
    picture_url,
    row_text,
)
from nnkit.insight.html import NO_PLOTS, document, figure, table
from nnkit.insight.importance import MOST_COLUMNS, importance_plot
from nnkit.insight.learning_plots import learning_plots
from nnkit.insight.picture_plots import mistake_row, weights_plot
from nnkit.insight.value_plots import predicted_plot, residuals_plot
from nnkit.machine import describe_machine
from nnkit.nn.metrics import get_metric
from nnkit.run_folder import REPORT_FILE, find_run
from nnkit.versions import nnkit_version
from nnkit.working import working

__all__ = ["report", "write_report"]

_MISTAKES = 24


def write_report(folder: Path, out: Path | None = None) -> Path:
    """Write the report of a run, whole or not at all, and return the file's path.

    Parameters
    ----------
    folder : Path
        The run's folder, which `nnkit train` wrote.
    out : Path, optional
        The file; ``report.html`` in the folder if not given.

    Raises
    ------
    FileError
        If the folder is no run, its data are gone, or the page cannot be written.
    NnkitError
        If one of its files is not as `nnkit train` writes it.
    """
    folder = find_run(folder)
    path = folder / REPORT_FILE if out is None else out
    write_whole(path, report(evaluated_run(folder)).encode("utf-8", "replace"))
    return path


def report(evaluated: EvaluatedRun) -> str:
    """Return the HTML of a run's report."""
    sections: list[Callable[[EvaluatedRun], Iterator[str]]] = [
        *(_head, _metrics, _findings, _learning, confusion_section),
        *(_predictions, _mistakes, _importance, _weights, _settings),
    ]
    parts: list[str] = []
    with working("writing the report", len(sections), "sections") as work:
        for section in sections:
            parts += section(evaluated)
            work.advance()
    name = evaluated.folder.resolve().name
    return document(f"nnkit report, {name}", "\n".join(parts), _STYLE + CELLS_STYLE, CELLS_SCRIPT)


def _head(evaluated: EvaluatedRun) -> Iterator[str]:
    model, history = evaluated.model, evaluated.history
    yield f"<h1>{escape(evaluated.folder.resolve().name)}</h1>"
    kind = evaluated.task
    if kind != "regression":
        kind += f", {len(evaluated.labels)} {'labels' if kind == 'multilabel' else 'classes'}"
    trained = model.details.get("trained_rows")
    on = f" on {trained:,} rows" if isinstance(trained, int) else ""
    yield (
        f"<p>{escape(evaluated.source)} ({escape(kind)}), a network of {model.parameter_count:,} parameters "
        f"trained for {len(history)} epochs{on}. All figures are of the {len(evaluated.examples):,} "
        f"{evaluated.kind} rows unless noted otherwise; rows are numbered from 0.</p>"
    )
    for note in evaluated.notes:
        yield f'<p class="worse">{escape(note)}</p>'
    if not have_matplotlib():
        yield f"<p>{escape(NO_PLOTS)}</p>"


def _metrics(evaluated: EvaluatedRun) -> Iterator[str]:
    yield '<h2 id="metrics">Metrics</h2>'
    rows = [
        [
            name.replace("_", " "),
            f"{value:,.4f}" if np.isfinite(value) else "not defined on these rows",
            "higher" if get_metric(name).greater_is_better else "lower",
        ]
        for name, value in evaluated.metrics.items()
    ]
    if evaluated.task != "regression":
        rows.append(["expected calibration error", f"{calibration_of(evaluated)[0].error:.4f}", "lower"])
    yield table(["metric", f"on the {evaluated.kind} rows", "better if"], rows)


def _findings(evaluated: EvaluatedRun) -> Iterator[str]:
    if not evaluated.findings:
        return
    yield '<h2 id="findings">Findings</h2>\n<ul class="findings">'
    for finding in evaluated.findings:
        yield (
            f"<li><strong>{escape(finding.name.replace('_', ' '))}</strong> "
            f'<span class="soft">({escape(finding.severity)})</span><br>\n{escape(finding.seen)}. '
            f"{escape(finding.why)}<br>\n<em>To change:</em> {escape(finding.change)}</li>"
        )
    yield "</ul>"


def _learning(evaluated: EvaluatedRun) -> Iterator[str]:
    yield '<h2 id="learning">Learning curves</h2>'
    if not len(evaluated.history):
        yield "<p>The training ended before its first epoch did.</p>"
        return
    units = ", ".join(evaluated.model.target.names)
    yield _figures(learning_plots(evaluated.history, evaluated.model.loss.name, units))


def _predictions(evaluated: EvaluatedRun) -> Iterator[str]:
    makers: Sequence[tuple[str, Callable[[EvaluatedModel], Plot]]]
    if evaluated.task == "regression":
        title, makers = "Values", [("predicted", predicted_plot), ("residuals", residuals_plot)]
    else:
        curves = [("ROC curve", roc_plot), ("precision and recall", precision_recall_plot)]
        title, makers = "Probabilities", [*curves, ("calibration", calibration_plot)]
    plots, missing = [], []
    for name, make in makers:
        try:
            plots.append(make(evaluated))
        except DataError as error:
            missing.append(f"{name}: {error}")
    yield f'<h2 id="{title.lower()}">{title}</h2>'
    yield _figures(plots)
    yield from (f"<p>{escape(words)}</p>" for words in missing)


def _mistakes(evaluated: EvaluatedRun) -> Iterator[str]:
    regression = evaluated.task == "regression"
    title = "The largest residuals" if regression else "The most confident mistakes"
    yield f'<h2 id="mistakes">{title}</h2>'
    worst = evaluated.worst(_MISTAKES)
    if not len(worst):
        yield f"<p>There is none among the {len(evaluated.examples):,} {evaluated.kind} rows.</p>"
        return
    headers = ["row", "true", "predicted", "residual" if regression else "probability"]
    rows = [mistake_row(evaluated, row) for row in worst]
    if evaluated.pictures:
        yield '<ul class="pictures">'
        for row, (number, true, predicted, confidence) in zip(worst, rows, strict=True):
            words = escape(f"row {number}: true {true}, predicted {predicted} ({confidence})")
            name = row_text(evaluated, row)
            title = f' title="{escape(name)}"' if name else ""
            url = picture_url(evaluated, row)
            yield f'<li{title}><img src="{url}" alt="{words}"><span>{words}</span></li>'
        yield "</ul>"
        return
    lines = [[*cells, row_text(evaluated, row)] for row, cells in zip(worst, rows, strict=True)]
    yield f'<div class="mistakes">{table([*headers, "features"], lines)}</div>'


def _importance(evaluated: EvaluatedRun) -> Iterator[str]:
    if not evaluated.pictures and 1 < len(model_columns(evaluated.model)) <= MOST_COLUMNS:
        yield '<h2 id="columns">Columns</h2>'
        yield _figures([importance_plot(evaluated)])


def _weights(evaluated: EvaluatedRun) -> Iterator[str]:
    if evaluated.pictures:
        yield '<h2 id="first-layer">First layer</h2>'
        yield _figures([weights_plot(evaluated.model, evaluated.image_shape)])


def _settings(evaluated: EvaluatedRun) -> Iterator[str]:
    yield '<h2 id="network">Network</h2>'
    layers = "\n".join(map(str, evaluated.model.network.layers))
    yield f'<div class="wide"><pre>{escape(layers)}</pre></div>'
    yield '<h2 id="configuration">Configuration</h2>'
    yield f'<div class="wide"><pre>{escape(evaluated.config.to_toml())}</pre></div>'
    yield '<h2 id="machine">Machine</h2>'
    details = evaluated.model.details
    trained = [
        [name.replace("_", " "), str(value)]
        for name, value in details.items()
        if isinstance(value, str | int | float)
    ]
    yield "<h3>Where it was trained</h3>"
    yield table(["what", "value"], trained)
    yield "<h3>Where this page was made</h3>"
    yield table(["what", "value"], [list(row) for row in describe_machine().items()])
    yield f'<p class="soft">Written by nnkit {escape(nnkit_version())}.</p>'


def _figures(plots: Sequence[Plot]) -> str:
    return "\n".join(['<div class="plots">', *map(figure, plots), "</div>"])


_STYLE = """
pre { font-size: 0.8125rem; margin: 0; }
.findings { padding-left: 1.25rem; }
.findings li { margin-bottom: 0.75rem; }
.pictures { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(7rem, 1fr));
  list-style: none; padding: 0; }
.pictures li { font-size: 0.8125rem; }
.pictures img { display: block; height: auto; image-rendering: pixelated; max-width: 100%; width: 5.25rem; }
th, td { white-space: normal; }
/* On a phone a narrow column of many words would be very high: the table scrolls sideways instead. */
.mistakes td:nth-child(5) { min-width: 20rem; }
"""
