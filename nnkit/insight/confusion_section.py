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
from nnkit.insight.evaluated_model import EvaluatedRun
from nnkit.insight.evaluation import confusion_matrix
from nnkit.insight.examples import picture_url, words_of
from nnkit.insight.html import figure

__all__ = ["CELLS_SCRIPT", "CELLS_STYLE", "confusion_section"]

_MOST_CLASSES = 25  # a table of more is wider than a screen
_EXAMPLES_A_CELL = 12
_EXAMPLE_BYTES = 2**20  # of all examples: the page stays one that can be mailed


@dataclass(frozen=True, eq=False)
class _Matrix:
    """What is true against what is said, of the classes or of one label.

    Parameters
    ----------
    key : str
        What the names of its cells begin with.
    title : str
        The label; empty where there is one matrix.
    heads : list of str
        What stands beside its rows and above its columns.
    names : list of str
        The same, as a text says it.
    truth, predicted : ndarray of shape (samples,), int64
        Places in `names`.
    said : ndarray of shape (samples,)
        The probability of what is predicted.
    shown : ndarray of int64
        The places that the table has.
    """

    key: str
    title: str
    heads: list[str]
    names: list[str]
    truth: NDArray[np.int64]
    predicted: NDArray[np.int64]
    said: NDArray[np.float64]
    shown: NDArray[np.int64]

    def cell(self, row: int, column: int) -> str:
        """Return the name of a cell."""
        return f"{self.key}{row}-{column}"


def confusion_section(evaluated: EvaluatedRun) -> Iterator[str]:
    """Return the section's parts; there are none for a regression."""
    if evaluated.task == "regression":
        return
    several = evaluated.task == "multilabel"
    matrices = _of_labels(evaluated) if several else [_of_classes(evaluated)]
    plot = confusion_plot(evaluated)
    yield f'<h2 id="confusion-matrix">{plot.title}</h2>'
    shown, every = len(matrices) if several else len(matrices[0].shown), len(evaluated.labels)
    if shown < every:
        kind = "labels" if several else "classes"
        yield (
            f"<p>To pick from are the {shown} of {every} {kind} with the most mistakes; the picture's "
            "numbers are of all.</p>"
        )
        yield f'<div class="plots">\n{figure(plot)}\n</div>'
    else:
        yield f"<p>{escape(plot.description)}</p>"
    tables = "\n".join(map(_table, matrices))
    yield f'<div class="labels">\n{tables}\n</div>' if several else tables
    lines = "A line for what is true, a column for what is predicted." if several else _OF_CLASSES
    yield (
        f'<p class="soft">{lines} Pick a cell to see its rows, each with the probability of what is said: of '
        "the mistakes the surest first, of what is right the least sure.</p>"
    )
    yield '<div id="examples" aria-live="polite"></div>'
    data = json.dumps(_examples(evaluated, matrices), ensure_ascii=True).replace("<", "\\u003c")
    yield f'<script type="application/json" id="cells">{data}</script>'


_OF_CLASSES = "A line for each true class, a column for each predicted one."


def _of_classes(evaluated: EvaluatedRun) -> _Matrix:
    truth, predicted, labels = evaluated.truth, evaluated.predicted, evaluated.labels
    counts = confusion_matrix(truth, predicted, len(labels))
    wrong = counts.sum(axis=0) + counts.sum(axis=1) - 2 * np.diag(counts)
    said = np.take_along_axis(evaluated.probabilities, predicted[:, None], axis=1)[:, 0]
    return _Matrix("", "", labels, labels, truth, predicted, said, _worst(wrong))


def _of_labels(evaluated: EvaluatedRun) -> list[_Matrix]:
    truth, predicted, labels = evaluated.truth, evaluated.predicted, evaluated.labels
    said = np.where(predicted == 1, evaluated.probabilities, 1 - evaluated.probabilities)
    return [
        _Matrix(
            f"{k}-",
            labels[k],
            ["no", "yes"],
            [f"not {labels[k]}", labels[k]],
            truth[:, k],
            predicted[:, k],
            said[:, k],
            np.arange(2),
        )
        for k in _worst((truth != predicted).sum(axis=0)).tolist()
    ]


def _worst(wrong: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the places with the most mistakes, in their order."""
    return np.sort(np.argsort(-wrong, kind="stable")[:_MOST_CLASSES])


def _table(matrix: _Matrix) -> str:
    counts = confusion_matrix(matrix.truth, matrix.predicted, len(matrix.names))
    heads = [escape(matrix.heads[place]) for place in matrix.shown]
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    lines = []
    for row, name in zip(matrix.shown.tolist(), heads, strict=True):
        total = max(int(counts[row].sum()), 1)
        cells = "".join(
            _cell(matrix, row, column, int(counts[row, column]), total) for column in matrix.shown.tolist()
        )
        lines.append(f'<tr><th scope="row">{name}</th>{cells}</tr>')
    of = f"{matrix.title}. " if matrix.title else ""
    corner = "<td>true \\ said</td>" if matrix.title else "<td></td>"
    caption = f"<caption>{escape(matrix.title)}</caption>\n" if matrix.title else ""
    words = escape(f"{of}Rows: what is true. Columns: what is predicted.")
    return (
        f'<div class="wide"><table class="confusion" aria-label="{words}">\n{caption}'
        f"<thead><tr>{corner}{head}</tr></thead>\n<tbody>\n" + "\n".join(lines)
    ) + "\n</tbody></table></div>"


def _cell(matrix: _Matrix, row: int, column: int, count: int, total: int) -> str:
    if not count:
        return '<td class="soft">0</td>'
    words = escape(f"true {matrix.names[row]}, predicted {matrix.names[column]}: {count:,} rows")
    return (
        f'<td><button type="button" data-cell="{matrix.cell(row, column)}" aria-pressed="false" '
        f'aria-label="{words}" style="--share: {0.6 * count / total:.3f}">{count:,}</button></td>'
    )


def _examples(evaluated: EvaluatedRun, matrices: Sequence[_Matrix]) -> dict[str, Any]:
    """Return the rows of each cell that the page shows; the first of every cell before the second of any."""
    chosen: dict[str, tuple[_Matrix, NDArray[np.int64]]] = {}
    cells: dict[str, Any] = {}
    for matrix in matrices:
        for row in matrix.shown.tolist():
            for column in matrix.shown.tolist():
                inside = np.flatnonzero((matrix.truth == row) & (matrix.predicted == column))
                if not len(inside):
                    continue
                surest = matrix.said[inside] if row == column else -matrix.said[inside]
                order = np.argsort(surest, kind="stable")[:_EXAMPLES_A_CELL]
                chosen[matrix.cell(row, column)] = matrix, inside[order]
                title = f"True {matrix.names[row]}, predicted {matrix.names[column]}"
                cells[matrix.cell(row, column)] = {"title": title, "rows": []}
    left = _EXAMPLE_BYTES
    for rank in range(_EXAMPLES_A_CELL):
        for name, (matrix, rows) in chosen.items():
            if rank < len(rows) and left > 0:
                item = _example(evaluated, int(rows[rank]), float(matrix.said[rows[rank]]))
                left -= sum(map(len, item))
                cells[name]["rows"].append(item)
    return cells


def _example(evaluated: EvaluatedRun, row: int, said: float) -> list[str]:
    """Return a caption, what there is to read, and the picture's URL, if the inputs are pictures."""
    caption = f"row {evaluated.numbers[row]:,}, {said:.4f}"
    url = picture_url(evaluated, row) if evaluated.pictures else ""
    return [caption, words_of(evaluated, row), url]


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
# Plain JavaScript: one table and one list want no library, and none need be trusted or kept up to date.
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
