"""The report's section on confusion: a matrix, or one for each label, whose cells show their rows.

Order: the section, the tables, the examples, style and script.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.insight.class_plots import confusion_plot
from nnkit.insight.evaluated_model import EvaluatedRun, picture_url, row_text
from nnkit.insight.html import figure

__all__ = ["CELLS_SCRIPT", "CELLS_STYLE", "confusion_section"]

_MOST_CLASSES = 25  # a table of more is wider than a screen
_EXAMPLES_A_CELL = 12
_EXAMPLE_BYTES = 2**20  # of all examples: the page stays one that can be mailed


@dataclass(frozen=True, eq=False)
class _Matrix:
    """The confusion matrix of the classes, or of one label."""

    key: str  # what the names of its cells begin with
    title: str  # the label; empty for the classes
    heads: list[str]  # beside its rows and above its columns
    names: list[str]  # the same, as a text names them
    truth: NDArray[np.int64]  # places in `names`, shape (samples,)
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float64]  # the probability of what is predicted
    shown: list[int]  # the places that the table has

    def cells(self) -> Iterator[tuple[str, int, int, NDArray[np.int64]]]:
        """Yield each cell's name, its row and column, and its samples."""
        for row in self.shown:
            for column in self.shown:
                inside = np.flatnonzero((self.truth == row) & (self.predicted == column))
                yield f"{self.key}{row}-{column}", row, column, inside


def confusion_section(evaluated: EvaluatedRun) -> Iterator[str]:
    """Yield the section's parts; there are none for a regression."""
    if evaluated.task == "regression":
        return
    several = evaluated.task == "multilabel"
    matrices = _of_labels(evaluated) if several else [_of_classes(evaluated)]
    plot = confusion_plot(evaluated)
    yield f'<h2 id="confusion-matrix">{plot.title}</h2>'
    shown, every = len(matrices) if several else len(matrices[0].shown), len(evaluated.labels)
    if shown < every:
        kind = "labels" if several else "classes"
        most = f"the {shown} of {every} {kind} with the most mistakes"
        yield f"<p>The table below has {most}, the numbers of the picture all of them.</p>"
        yield f'<div class="plots">\n{figure(plot)}\n</div>'
    else:
        yield f"<p>{escape(plot.description)}</p>"
    tables = "\n".join(map(_table, matrices))
    yield f'<div class="labels">\n{tables}\n</div>' if several else tables
    kind = "value" if several else "class"
    yield (
        f'<p class="soft">Rows are the true {kind}, columns the predicted one. Pick a cell to see its '
        "examples with the probability of the prediction: the most confident mistakes first, the least "
        "confident of the right predictions first.</p>"
    )
    yield '<div id="examples" aria-live="polite"></div>'
    data = json.dumps(_examples(evaluated, matrices), ensure_ascii=True).replace("<", "\\u003c")
    yield f'<script type="application/json" id="cells">{data}</script>'


def _of_classes(evaluated: EvaluatedRun) -> _Matrix:
    truth, predicted, labels = evaluated.truth, evaluated.predicted, evaluated.labels
    wrong = np.concatenate([truth[truth != predicted], predicted[truth != predicted]])
    shown = _worst(np.bincount(wrong, minlength=len(labels)))
    return _Matrix("", "", labels, labels, truth, predicted, evaluated.confidence, shown)


def _of_labels(evaluated: EvaluatedRun) -> list[_Matrix]:
    truth, predicted, heads = evaluated.truth, evaluated.predicted, ["no", "yes"]
    matrices = []
    for k in _worst((truth != predicted).sum(axis=0)):
        label = evaluated.labels[k]
        of_label = (truth[:, k], predicted[:, k], evaluated.confidence[:, k])
        matrices.append(_Matrix(f"{k}-", label, heads, [f"not {label}", label], *of_label, [0, 1]))
    return matrices


def _worst(wrong: NDArray[np.int64]) -> list[int]:
    """Return the places with the most mistakes, in their order."""
    return np.sort(np.argsort(-wrong, kind="stable")[:_MOST_CLASSES]).tolist()


def _table(matrix: _Matrix) -> str:
    totals = np.bincount(matrix.truth, minlength=len(matrix.names))
    heads = [escape(matrix.heads[place]) for place in matrix.shown]
    cells = [
        _cell(matrix, name, row, column, len(inside), int(totals[row]))
        for name, row, column, inside in matrix.cells()
    ]
    width = len(heads)
    lines = [
        f'<tr><th scope="row">{name}</th>{"".join(cells[line * width : (line + 1) * width])}</tr>'
        for line, name in enumerate(heads)
    ]
    of = f"{matrix.title}. " if matrix.title else ""
    words = escape(f"{of}Rows: true. Columns: predicted.")
    corner = "<td>true \\ predicted</td>" if matrix.title else "<td></td>"
    caption = f"<caption>{escape(matrix.title)}</caption>\n" if matrix.title else ""
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    return (
        f'<div class="wide"><table class="confusion" aria-label="{words}">\n{caption}'
        f"<thead><tr>{corner}{head}</tr></thead>\n<tbody>\n" + "\n".join(lines)
    ) + "\n</tbody></table></div>"


def _cell(matrix: _Matrix, name: str, row: int, column: int, count: int, total: int) -> str:
    if not count:
        return '<td class="soft">0</td>'
    words = escape(f"true {matrix.names[row]}, predicted {matrix.names[column]}: {count:,} rows")
    return (
        f'<td><button type="button" data-cell="{name}" aria-pressed="false" '
        f'aria-label="{words}" style="--share: {0.6 * count / total:.3f}">{count:,}</button></td>'
    )


def _examples(evaluated: EvaluatedRun, matrices: Sequence[_Matrix]) -> dict[str, Any]:
    """Return the samples that the page shows by cell; the first of every cell before the second of any."""
    cells: dict[str, Any] = {}
    chosen: list[tuple[str, int, float, int]] = []
    for matrix in matrices:
        for name, row, column, inside in matrix.cells():
            if not len(inside):
                continue
            cells[name] = {"title": f"True {matrix.names[row]}, predicted {matrix.names[column]}", "rows": []}
            confidence = matrix.confidence[inside]
            order = np.argsort(confidence if row == column else -confidence, kind="stable")[:_EXAMPLES_A_CELL]
            chosen += [(name, rank, confidence[k], int(inside[k])) for rank, k in enumerate(order.tolist())]
    left = _EXAMPLE_BYTES
    for name, _, probability, sample in sorted(chosen, key=lambda example: example[1]):
        if left <= 0:
            break
        url = picture_url(evaluated, sample) if evaluated.pictures else ""
        example = [f"row {evaluated.numbers[sample]:,}, {probability:.4f}", row_text(evaluated, sample), url]
        left -= sum(map(len, example))
        cells[name]["rows"].append(example)
    return cells


CELLS_STYLE = """
.labels { display: flex; flex-wrap: wrap; gap: 1.5rem 2.5rem; }
.confusion caption { font-size: 1rem; font-weight: 600; max-width: 14rem; padding-bottom: 0.25rem; }
.confusion td { color: var(--soft); }
.confusion th, .confusion td { border: 0; padding: 1px 2px; text-align: center; vertical-align: middle; }
.confusion button { background: rgb(46 128 220 / var(--share)); border: 1px solid var(--grid);
  border-radius: 3px; color: var(--ink); cursor: pointer; font: inherit; min-height: 2rem;
  min-width: 2.75rem; padding: 0 0.3rem; }
.confusion button:hover, .confusion button:focus-visible { outline: 2px solid var(--ink); }
.confusion button[aria-pressed="true"] { border-color: var(--ink); box-shadow: inset 0 0 0 1px var(--ink);
  font-weight: 700; }
.texts { padding-left: 1.25rem; }
@media (max-width: 30rem) { .confusion button { font-size: 0.6875rem; min-width: 1.75rem; padding: 0; }
  .confusion th, .confusion td { font-size: 0.6875rem; padding: 1px; } }
"""
# Plain JavaScript: one table and one list need no library.
CELLS_SCRIPT = """
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
  const wrong = buttons.filter((button) => new Set(button.dataset.cell.split("-").slice(-2)).size === 2);
  const first = (wrong.length ? wrong : buttons).reduce((a, b) => count(b) > count(a) ? b : a);
  show(first);
}
"""
