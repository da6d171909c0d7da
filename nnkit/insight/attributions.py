"""Integrated gradients: the contribution of each column to an output, on a straight path from a baseline."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from nnkit.checks import Choice
from nnkit.data.operations import TextColumn
from nnkit.engine.input_gradient import InputGradient
from nnkit.feed.features import Features
from nnkit.insight.columns import embedded_terms, model_columns, spread, term_name
from nnkit.insight.explanation import Explanation, chosen_outputs, explained, output_units
from nnkit.model import Model

if TYPE_CHECKING:
    from nnkit.insight.words import ExplainedText

__all__ = ["Baseline", "integrated_gradients"]

Baseline = Literal["mean", "zero"]

# The path is first cut into segments, each integrated by Gauss and Legendre's rule with this many points.
_SEGMENTS, _POINTS = 4, 8
# A segment with contributions that do not add up to the change of the output on it is halved, at most so
# often: the slope of a ReLU jumps, and the segments with a jump are soon short. (With one rule over the whole
# path the worst of 40 rows, random weights 32-32-16, was 7 % off with 2048 points.)
_MOST_HALVINGS = 24
# The contributions shall add up to the difference of the outputs within 1 %; the goal is half of it.
_TOLERANCE = 0.005
# Halving cannot remove rounding errors of this many units in the last place; the halvings are bounded, too.
_ROUNDINGS, _MOST_SEGMENTS, _MOST_OF_A_ROW = 16, 2**15, 16
# Each segment may be off by its share of the tolerance, short ones (there are few) by that of a 64th.
_LEAST_SHARE = 1 / 64
# Points at once, of all rows: as many as take some tens of megabytes.
_MOST_AT_ONCE, _ELEMENTS_AT_ONCE = 2**14, 2**22


def integrated_gradients(
    model: Model,
    X: Any,
    *,
    label: str | None = None,
    baseline: Baseline = "mean",
    background: Any = None,
) -> Explanation:
    """Explain an output of each row by the gradients on the way to it from a baseline.

    The contributions of a number and its flag, of a category's places, and of the elements of an embedding's
    vector, are added up: the columns are the user's own.

    Parameters
    ----------
    model : Model
    X : array or table
        Rows as `Model.predict` takes them.
    label : str, optional
        The class, or the target column, whose output is explained; see `chosen_outputs`.
    baseline : {"mean", "zero"}
        Where the path begins: at the mean of the background's rows, or at numbers of 0 and no category. For
        a text it is an empty one either way.
    background : array or table, optional
        The rows of the mean; `X` if not given.

    Returns
    -------
    Explanation
        Of the network's raw outputs: log-odds, logits, or values in their own unit.

    Raises
    ------
    ConfigError
        If the label or the baseline is unknown.
    DataError
        If the rows do not match the model.

    References
    ----------
    Sundararajan, Taly and Yan 2017, "Axiomatic Attribution for Deep Networks", arXiv:1703.01365.
    """
    Choice(("mean", "zero"))("baseline", baseline)
    network, columns = model.only_network("an explanation by gradients"), model_columns(model)
    features = model.preprocessor.transform(X)
    inputs = spread(model, features)
    others = inputs if background is None else spread(model, model.preprocessor.transform(background))
    start = _start(model, features, others, baseline)
    path = _Path(InputGradient(network.places, network.arena), inputs, start)
    outputs = path.by_inputs.outputs(inputs).astype(np.float64)
    chosen = chosen_outputs(model, outputs, label)
    base = path.by_inputs.outputs(start[None])[0].astype(np.float64)[chosen]
    outputs = outputs[np.arange(len(chosen)), chosen]
    slopes = path.mean_gradients(chosen, np.abs(outputs - base))
    products = (inputs - start) * slopes
    contributions = np.stack([products[:, column.inputs].sum(axis=1) for column in columns], axis=1)
    found = explained(model, "gradients", columns, chosen, contributions, base, outputs)
    return _with_terms(found, model, X, features, slopes * output_units(model, chosen)[0][:, None])


def _start(
    model: Model, features: Features, background: NDArray[np.float64], baseline: Baseline
) -> NDArray[np.float64]:
    """Return the inputs of the network's first layer at the baseline, shape (inputs,)."""
    start = background.mean(axis=0) if baseline == "mean" else np.zeros(background.shape[1])
    operations = {
        getattr(operation, "column", None): operation for operation in model.preprocessor.operations
    }
    for column in model_columns(model):
        operation = operations.get(column.name)
        if isinstance(operation, TextColumn):
            start[column.inputs] = 0.0
        elif baseline == "zero" and column.part == "dense":
            start[column.inputs] = 0.0
            start[column.place] = _encoded_zero(model, column.place, operation)
    return start


def _encoded_zero(model: Model, place: int, operation: Any) -> float:
    """Return the network's input for a number of 0 in the user's unit."""
    if operation is not None:
        return float(operation.encoded(np.zeros(1))[0])
    first: Any = model.preprocessor.operations[0]
    shift, scale = first.shift_by_column, first.scale_by_column
    return -(0.0 if shift is None else shift[place]) * (1.0 if scale is None else scale[place])


class _Path:
    """The straight paths to each row's inputs, shape (rows, inputs), from one start."""

    def __init__(
        self, by_inputs: InputGradient, inputs: NDArray[np.float64], start: NDArray[np.float64]
    ) -> None:
        self.by_inputs = by_inputs
        self._ways = inputs - start
        self._start = start

    def mean_gradients(
        self, chosen: NDArray[np.int64], differences: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the gradient of each row's chosen output by its inputs, averaged along its path.

        `differences` are the absolute changes of these outputs along the paths, for the tolerance.
        """
        mean = np.zeros_like(self._ways)
        count, width = len(mean), 1 / _SEGMENTS
        rows = np.repeat(np.arange(count), _SEGMENTS)
        begins = np.tile(np.arange(_SEGMENTS) / _SEGMENTS, count)
        most = _MOST_SEGMENTS + _MOST_OF_A_ROW * count
        at_once = max(1, min(_MOST_AT_ONCE, _ELEMENTS_AT_ONCE // mean.shape[1]) // _POINTS)
        for halvings in range(_MOST_HALVINGS):
            may_halve = halvings < _MOST_HALVINGS - 1 and len(rows) < most
            inexact = np.zeros(len(rows), bool)
            for first in range(0, len(rows), at_once):
                part = slice(first, first + at_once)
                some, begin = rows[part], begins[part]
                slopes = self._averaged(some, begin, width, chosen[some])
                before, after = (self._outputs(some, at, chosen[some]) for at in (begin, begin + width))
                rounding = _ROUNDINGS * self.by_inputs.epsilon * np.maximum(np.abs(before), np.abs(after))
                allowed = np.maximum(_TOLERANCE * differences[some] * max(width, _LEAST_SHARE), rounding)
                changes = (self._ways[some] * slopes * width).sum(axis=1)
                inexact[part] = may_halve & (np.abs(changes - (after - before)) > allowed)
                np.add.at(mean, some[~inexact[part]], slopes[~inexact[part]] * width)
            rows, begins, width = np.repeat(rows[inexact], 2), np.repeat(begins[inexact], 2), width / 2
            if not len(rows):
                break
            begins[1::2] += width
        return mean

    def _outputs(
        self, rows: NDArray[np.int64], at: NDArray[np.float64], chosen: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Return the chosen output at a share of the path to each of some rows."""
        outputs = self.by_inputs.outputs(self._start + self._ways[rows] * at[:, None])
        return outputs.astype(np.float64)[np.arange(len(rows)), chosen]

    def _averaged(
        self, rows: NDArray[np.int64], begins: NDArray[np.float64], width: float, chosen: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Return the mean gradient on a segment of each of some rows' paths, shape (segments, inputs)."""
        nodes, shares = np.polynomial.legendre.leggauss(_POINTS)
        at = begins[:, None] + (nodes + 1) / 2 * width
        points = self._start + at[:, :, None] * self._ways[rows][:, None, :]
        weights = np.zeros((len(rows), _POINTS, self.by_inputs.output_count))
        weights[np.arange(len(rows)), :, chosen] = 1.0
        found = self.by_inputs.gradients(
            points.reshape(-1, points.shape[2]), weights.reshape(-1, weights.shape[2])
        )
        return np.einsum("p,rpi->ri", shares / 2, found.reshape(points.shape).astype(np.float64))


def _with_terms(
    explanation: Explanation,
    model: Model,
    X: Any,
    features: Features,
    slopes: NDArray[np.float64],
) -> Explanation:
    """Add the contribution of each term, and of each word, of the texts, row by row."""
    operations = {operation.column: operation for operation in model.preprocessor.text_columns}
    if not operations:
        return explanation
    from nnkit.data.tables.frames import as_table
    from nnkit.data.text.encoding import as_texts
    from nnkit.insight.words import explained_text

    table = as_table(X)
    documents = {name: as_texts(name, table[name]).to_pylist() for name in operations}
    columns = [column for column in model_columns(model) if column.name in operations]
    tables = model.network.tables()
    terms: list[dict[str, list[tuple[str, float]]]] = []
    texts: list[dict[str, ExplainedText]] = []
    for row in range(len(features)):
        terms.append({})
        texts.append({})
        for column in columns:
            operation, (embedding, values) = operations[column.name], tables[column.place]
            bags, slope = features.bags[column.place], slopes[row, column.inputs]
            by_id = embedded_terms(bags, values, embedding.reduce, row, slope)
            named = [(term_name(operation, place), value) for place, value in by_id.items()]
            terms[row][column.name] = sorted(named, key=lambda pair: -abs(pair[1]))
            text = documents[column.name][row] or ""
            texts[row][column.name] = explained_text(operation, text, by_id)
    return replace(explanation, terms=tuple(terms), texts=tuple(texts))
