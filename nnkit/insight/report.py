"""The report of a run: one page with its curves, examples and settings, that needs nothing but itself.

Order: the page, its sections from top to bottom, the confusion matrix with its examples, style and script.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.core.metrics import METRICS
from nnkit.errors import DataError
from nnkit.files import write_whole
from nnkit.insight.columns import model_columns
from nnkit.insight.drawing import Plot, have_matplotlib
from nnkit.insight.examples import picture_url, words_of
from nnkit.insight.html import NO_PLOTS, document, figure, table
from nnkit.insight.importance_plot import MOST_COLUMNS, importance_plot
from nnkit.insight.plots import (
    calibration_of,
    calibration_plot,
    confusion,
    confusion_plot,
    learning_plots,
    mistake_row,
    precision_recall_plot,
    predicted_plot,
    residuals_plot,
    roc_plot,
    weights_plot,
)
from nnkit.insight.subject import RunSubject, Subject, subject_of_run
from nnkit.machine import describe_machine

__all__ = ["report", "write_report"]

_MOST_CLASSES = 25  # a table of more is wider than a screen
_EXAMPLES_A_CELL = 12
_EXAMPLE_BYTES = 2**20  # of all examples: the page stays one that can be mailed
_MISTAKES = 24


def write_report(folder: Path, out: Path | None = None) -> Path:
    """Write the report of a run, whole or not at all, and return where it is.

    Parameters
    ----------
    folder : Path
        What `nnkit train` left.
    out : Path, optional
        The file; ``report.html`` in the folder, where not given.

    Raises
    ------
    FileError
        If the folder is no run, its data are gone, or the page cannot be written.
    NnkitError
        If one of its files is not as `nnkit train` writes it.
    """
    path = folder / "report.html" if out is None else out
    write_whole(path, report(subject_of_run(folder)).encode("utf-8", "replace"))
    return path


def report(subject: RunSubject) -> str:
    """Return the HTML of a run's report."""
    parts = [
        *_head(subject),
        *_metrics(subject),
        *_findings(subject),
        *_learning(subject),
        *_confusion(subject),
        *_answers(subject),
        *_mistakes(subject),
        *_importance(subject),
        *_weights(subject),
        *_settings(subject),
    ]
    name = subject.folder.resolve().name
    return document(f"nnkit report, {name}", "\n".join(parts), _STYLE, _SCRIPT)


def _head(subject: RunSubject) -> Iterator[str]:
    model, history = subject.model, subject.history
    yield f"<h1>{escape(subject.folder.resolve().name)}</h1>"
    kind = subject.task if subject.task == "regression" else f"{subject.task}, {len(subject.labels)} classes"
    if subject.task == "multilabel":
        kind = f"multilabel, {len(subject.labels)} labels"
    parameters = sum(values.size for values in model.network.parameters().values())
    trained = model.details.get("trained_rows")
    on = f" on {trained:,} rows" if isinstance(trained, int) else ""
    yield (
        f"<p>{escape(subject.source)} ({escape(kind)}), a network of {parameters:,} parameters trained for "
        f"{len(history)} epochs{on}. All below is measured on the {len(subject.examples):,} {subject.kind} "
        "rows, unless it says otherwise; rows are numbered from 0.</p>"
    )
    for note in subject.notes:
        yield f'<p class="worse">{escape(note)}</p>'
    if not have_matplotlib():
        yield f"<p>{escape(NO_PLOTS)}</p>"


def _metrics(subject: RunSubject) -> Iterator[str]:
    yield '<h2 id="metrics">Metrics</h2>'
    rows = [
        [name.replace("_", " "), _measured(value), "more" if METRICS[name].greater_is_better else "less"]
        for name, value in subject.metrics.items()
    ]
    if subject.task != "regression":
        rows.append(["expected calibration error", f"{calibration_of(subject)[0].error:.4f}", "less"])
    yield table(["metric", f"on the {subject.kind} rows", "better is"], rows)


def _measured(value: float) -> str:
    """Return a figure; it is none where a class has no rows, or all are of one."""
    return f"{value:,.4f}" if np.isfinite(value) else "not defined on these rows"


def _findings(subject: RunSubject) -> Iterator[str]:
    if not subject.findings:
        return
    yield '<h2 id="findings">Findings</h2>\n<ul class="findings">'
    for finding in subject.findings:
        yield (
            f"<li><strong>{escape(finding.name.replace('_', ' '))}</strong> "
            f'<span class="soft">({escape(finding.severity)})</span><br>\n{escape(finding.seen)} '
            f"{escape(finding.why)}<br>\n<em>To change:</em> {escape(finding.change)}</li>"
        )
    yield "</ul>"


def _learning(subject: RunSubject) -> Iterator[str]:
    yield '<h2 id="learning">Learning curves</h2>'
    if not len(subject.history):
        yield "<p>The training ended before its first epoch did.</p>"
        return
    units = ", ".join(subject.model.target.names)
    yield _figures(learning_plots(subject.history, subject.model.loss.name, units))


def _answers(subject: RunSubject) -> Iterator[str]:
    """What the probabilities are worth, or how far off the values are."""
    makers: Sequence[tuple[str, Callable[[Subject], Plot]]]
    if subject.task == "regression":
        title, makers = "Values", [("predicted", predicted_plot), ("residuals", residuals_plot)]
    else:
        title = "Probabilities"
        makers = [
            ("ROC curve", roc_plot),
            ("precision and recall", precision_recall_plot),
            ("calibration", calibration_plot),
        ]
    plots, missing = [], []
    for name, make in makers:
        try:
            plots.append(make(subject))
        except DataError as error:
            missing.append(f"{name}: {error}")
    yield f'<h2 id="{title.lower()}">{title}</h2>'
    yield _figures(plots)
    yield from (f"<p>{escape(words)}</p>" for words in missing)


def _mistakes(subject: RunSubject) -> Iterator[str]:
    regression = subject.task == "regression"
    title = "The greatest residuals" if regression else "The most confident mistakes"
    yield f'<h2 id="mistakes">{title}</h2>'
    worst = subject.worst(_MISTAKES)
    if not len(worst):
        yield f"<p>There is none among the {len(subject.examples):,} {subject.kind} rows.</p>"
        return
    headers = ["row", "true", "said", "true − said" if regression else "probability"]
    rows = [mistake_row(subject, row) for row in worst]
    if subject.pictures:
        yield '<ul class="pictures">'
        for row, (number, true, said, surely) in zip(worst, rows, strict=True):
            words = f"row {number}: true {true}, said {said} ({surely})"
            yield _picture(picture_url(subject, row), words, words_of(subject, row))
        yield "</ul>"
        return
    given = [words_of(subject, row) for row in worst]
    yield table([*headers, "features"], [[*row, words] for row, words in zip(rows, given, strict=True)])


def _picture(url: str, words: str, path: str) -> str:
    title = f' title="{escape(path)}"' if path else ""
    return f'<li{title}><img src="{url}" alt="{escape(words)}"><span>{escape(words)}</span></li>'


def _importance(subject: RunSubject) -> Iterator[str]:
    if not subject.pictures and 1 < len(model_columns(subject.model)) <= MOST_COLUMNS:
        yield '<h2 id="columns">Columns</h2>'
        yield _figures([importance_plot(subject)])


def _weights(subject: RunSubject) -> Iterator[str]:
    if not subject.pictures:
        return
    yield '<h2 id="first-layer">First layer</h2>'
    yield _figures([weights_plot(subject.model, subject.image_shape)])


def _settings(subject: RunSubject) -> Iterator[str]:
    yield '<h2 id="network">Network</h2>'
    layers = "\n".join(map(str, subject.model.network.layers))
    yield f'<div class="wide"><pre>{escape(layers)}</pre></div>'
    yield '<h2 id="configuration">Configuration</h2>'
    yield f'<div class="wide"><pre>{escape(subject.config.to_toml())}</pre></div>'
    yield '<h2 id="machine">Machine</h2>'
    plain = {
        name: value for name, value in subject.model.details.items() if isinstance(value, str | int | float)
    }
    trained = [[name.replace("_", " "), str(value)] for name, value in plain.items()]
    yield "<h3>Where it was trained</h3>"
    yield table(["what", "value"], trained)
    yield "<h3>Where this page was made</h3>"
    yield table(["what", "value"], [list(row) for row in describe_machine().items()])
    yield f'<p class="soft">Written by nnkit {escape(version("nnkit"))}.</p>'


def _figures(plots: Sequence[Plot]) -> str:
    return "\n".join(['<div class="plots">', *map(figure, plots), "</div>"])


def _confusion(subject: RunSubject) -> Iterator[str]:
    if subject.task not in ("binary", "multiclass"):
        return
    counts, labels = confusion(subject), subject.labels
    yield '<h2 id="confusion-matrix">Confusion matrix</h2>'
    wrong = counts.sum(axis=0) + counts.sum(axis=1) - 2 * np.diag(counts)
    shown = np.sort(np.argsort(-wrong, kind="stable")[:_MOST_CLASSES])
    if len(shown) < len(labels):
        yield (
            f"<p>The table is of the {len(shown)} of {len(labels)} classes with the most mistakes; the "
            "picture of all.</p>"
        )
        yield _figures([confusion_plot(subject)])
    else:
        yield f"<p>{escape(confusion_plot(subject).description)}</p>"
    yield _cells_table(counts, labels, shown)
    yield (
        '<p class="soft">A line for each true class, a column for each predicted one. Pick a cell to see its '
        "rows, each with the probability of what is said: of the mistakes the surest first, of what is right "
        "the least sure.</p>"
    )
    yield '<div id="examples" aria-live="polite"></div>'
    data = json.dumps(_examples(subject, shown), ensure_ascii=True).replace("<", "\\u003c")
    yield f'<script type="application/json" id="cells">{data}</script>'


def _cells_table(counts: NDArray[np.int64], labels: list[str], shown: NDArray[np.int64]) -> str:
    names = [escape(labels[place]) for place in shown]
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    lines = []
    for row, name in zip(shown, names, strict=True):
        total = max(int(counts[row].sum()), 1)
        cells = "".join(_cell(counts, row, column, total, labels) for column in shown)
        lines.append(f'<tr><th scope="row">{name}</th>{cells}</tr>')
    return (
        '<div class="wide"><table class="confusion" aria-label="Rows: the true class. Columns: the predicted '
        f'one.">\n<thead><tr><td></td>{head}</tr></thead>\n<tbody>\n' + "\n".join(lines)
    ) + "\n</tbody></table></div>"


def _cell(counts: NDArray[np.int64], row: int, column: int, total: int, labels: list[str]) -> str:
    count = int(counts[row, column])
    if not count:
        return '<td class="soft">0</td>'
    words = escape(f"true {labels[row]}, predicted {labels[column]}: {count:,} rows")
    return (
        f'<td><button type="button" data-cell="{row}-{column}" aria-pressed="false" aria-label="{words}" '
        f'style="--share: {0.6 * count / total:.3f}">{count:,}</button></td>'
    )


def _examples(subject: RunSubject, shown: NDArray[np.int64]) -> dict[str, Any]:
    """Return the rows of each cell that the page shows; the first of every cell before the second of any."""
    truth, predicted, labels = subject.truth, subject.predicted, subject.labels
    said = np.take_along_axis(subject.probabilities, predicted[:, None], axis=1)[:, 0]
    chosen: dict[tuple[int, int], NDArray[np.int64]] = {}
    for row in shown:
        for column in shown:
            inside = np.flatnonzero((truth == row) & (predicted == column))
            if len(inside):
                surest = said[inside] if row == column else -said[inside]
                order = np.argsort(surest, kind="stable")[:_EXAMPLES_A_CELL]
                chosen[int(row), int(column)] = inside[order]
    cells: dict[str, Any] = {
        f"{row}-{column}": {"title": f"True {labels[row]}, predicted {labels[column]}", "rows": []}
        for row, column in chosen
    }
    left = _EXAMPLE_BYTES
    for rank in range(_EXAMPLES_A_CELL):
        for (row, column), rows in chosen.items():
            if rank < len(rows) and left > 0:
                item = _example(subject, int(rows[rank]), float(said[rows[rank]]))
                left -= sum(map(len, item))
                cells[f"{row}-{column}"]["rows"].append(item)
    return cells


def _example(subject: RunSubject, row: int, said: float) -> list[str]:
    """Return a caption, what there is to read, and the picture's URL, if the inputs are pictures."""
    caption = f"row {subject.numbers[row]:,}, {said:.4f}"
    url = picture_url(subject, row) if subject.pictures else ""
    return [caption, words_of(subject, row), url]


_STYLE = """
pre { font-size: 0.8125rem; margin: 0; }
.findings { padding-left: 1.25rem; }
.findings li { margin-bottom: 0.75rem; }
.confusion th, .confusion td { border: 0; padding: 1px 2px; text-align: center; vertical-align: middle; }
.confusion button { background: rgb(46 128 220 / var(--share)); border: 1px solid var(--grid);
  border-radius: 3px; color: var(--ink); cursor: pointer; font: inherit; min-height: 2rem;
  min-width: 2.75rem; padding: 0 0.3rem; }
.confusion button:hover, .confusion button:focus-visible { outline: 2px solid var(--ink); }
.confusion button[aria-pressed="true"] { border-color: var(--ink); box-shadow: inset 0 0 0 1px var(--ink);
  font-weight: 700; }
.pictures { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(7rem, 1fr));
  list-style: none; padding: 0; }
.pictures li { font-size: 0.8125rem; }
.pictures img { display: block; height: auto; image-rendering: pixelated; max-width: 100%; width: 5.25rem; }
.texts { padding-left: 1.25rem; }
td { white-space: normal; }
@media (max-width: 30rem) { .confusion button { font-size: 0.6875rem; min-width: 1.75rem; padding: 0; }
  .confusion th, .confusion td { font-size: 0.6875rem; padding: 1px; } }
"""
# Plain JavaScript: one table and one list want no library, and none need be trusted or kept up to date.
_SCRIPT = """
const data = document.getElementById("cells");
if (data) {
  const cells = JSON.parse(data.textContent), box = document.getElementById("examples");
  const buttons = [...document.querySelectorAll("button[data-cell]")];
  const made = (tag, text) => Object.assign(document.createElement(tag), {textContent: text});
  const show = (button) => {
    for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
    const cell = cells[button.dataset.cell], list = document.createElement("ul");
    for (const [caption, words, url] of cell.rows) {
      const item = document.createElement("li");
      const alt = cell.title + ", " + caption;
      if (url) item.append(Object.assign(new Image(), {src: url, alt, title: words}));
      item.append(made("span", url || !words ? caption : caption + ": " + words));
      list.append(item);
    }
    list.className = cell.rows.some((row) => row[2]) ? "pictures" : "texts";
    const shown = " (" + cell.rows.length + " of " + button.textContent + ")";
    box.replaceChildren(made("h3", cell.title + shown), list);
  };
  for (const button of buttons) button.addEventListener("click", () => show(button));
  const count = (button) => Number(button.textContent.replaceAll(",", ""));
  const wrong = buttons.filter((button) => new Set(button.dataset.cell.split("-")).size === 2);
  const first = (wrong.length ? wrong : buttons).reduce((a, b) => count(b) > count(a) ? b : a);
  show(first);
}
"""
