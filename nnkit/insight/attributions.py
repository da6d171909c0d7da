"""Integrated gradients: what each input column adds to an output on the straight path from a baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from nnkit.checks import Choice
from nnkit.data.operations import TextColumn
from nnkit.engine.input_gradient import InputGradient
from nnkit.feed.features import Features
from nnkit.insight.columns import embedded_terms, model_columns, spread, term_name
from nnkit.insight.explanation import Explanation, chosen_outputs, in_units, output_name
from nnkit.model import Model

if TYPE_CHECKING:
    from nnkit.insight.words import ExplainedText

__all__ = ["Baseline", "baseline_inputs", "integrated_gradients"]

Baseline = Literal["mean", "zero"]

# The points of Gauss and Legendre's rule on each stretch of a path, of which the first are these many.
_POINTS, _STRETCHES = 8, 4
# A stretch whose pieces do not add up to what the output does on it is halved, so often at most: a ReLU's
# slope jumps, and the stretches with a jump are soon short. (On one rule over the whole path the worst of 40
# rows, random weights 32-32-16, was 7 % off with 2048 points.)
_DEEPEST = 24
# The contributions shall add up to the difference of the outputs within 1 %; half of it is aimed at.
_TOLERANCE = 0.005
# What rounding leaves of an output's difference no halving mends, and it must not go on without an end.
_ROUNDINGS, _MOST_STRETCHES, _MOST_OF_A_ROW = 16, 2**15, 16
# Each stretch may be off by its share of that, short ones (there are few) by that of a 64th of the path.
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

    What the places of a category contribute is added up, and so is what the elements of an embedding's vector
    do: the columns are the user's own.

    Parameters
    ----------
    model : Model
        A trained one.
    X : array or table
        Rows as `Model.predict` takes them.
    label : str, optional
        The class, or the target column, whose output is explained; see `chosen_outputs`.
    baseline : {"mean", "zero"}
        Where the path begins: at the mean of the background's rows, or at numbers of 0 and no category. A
        text's path begins at an empty one either way.
    background : array or table, optional
        What "mean" is the mean of; `X` if not given.

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
    network = model.only_network("an explanation by gradients")
    features = model.preprocessor.transform(X)
    inputs = spread(model, features)
    others = inputs if background is None else spread(model, model.preprocessor.transform(background))
    base = baseline_inputs(model, features, others, baseline)
    by_inputs = InputGradient(network.places, network.arena)
    at_rows = by_inputs.outputs(inputs).astype(np.float64)
    chosen = chosen_outputs(model, at_rows, label)
    at_base = by_inputs.outputs(base[None])[0].astype(np.float64)[chosen]
    values = at_rows[np.arange(len(chosen)), chosen]
    slopes = _mean_gradients(by_inputs, inputs, base, chosen, values - at_base)
    scale, shift = in_units(model, chosen)
    slopes *= scale[:, None]
    columns = model_columns(model)
    pieces = (inputs - base) * slopes
    contributions = np.add.reduceat(
        pieces[:, _by_column(model)], np.cumsum([0, *(column.width for column in columns[:-1])]), axis=1
    )
    return Explanation(
        "gradients",
        tuple(column.name for column in columns),
        contributions,
        at_base * scale + shift,
        values * scale + shift,
        tuple(output_name(model, output) for output in chosen.tolist()),
        *_terms(model, X, features, slopes),
    )


def baseline_inputs(
    model: Model, features: Features, background: NDArray[np.float64], kind: Baseline
) -> NDArray[np.float64]:
    """Return the inputs of the network's first layer at the baseline, shape (inputs,).

    Parameters
    ----------
    model : Model
    features : Features
        Encoded rows, for how they are scaled as a batch is filled.
    background : ndarray of shape (rows, inputs)
    kind : {"mean", "zero"}
    """
    Choice(("mean", "zero"))("baseline", kind)
    base = background.mean(axis=0) if kind == "mean" else np.zeros(background.shape[1])
    operations = {
        operation.column: operation
        for operation in model.preprocessor.operations
        if hasattr(operation, "column")
    }
    for column in model_columns(model):
        operation = operations.get(column.name)
        place = slice(column.first, column.first + column.width)
        if isinstance(operation, TextColumn):
            base[place] = 0.0
        elif kind == "zero" and column.part == "dense":
            base[place] = _encoded_zero(model, features, column.place, operation)
    return base


def _encoded_zero(model: Model, features: Features, place: int, operation: Any) -> float:
    """Return what a number of 0 in the user's unit is as an input."""
    if operation is not None:
        return -operation.shift * operation.scale
    first: Any = model.preprocessor.operations[0]
    shift, scale = first.shift_by_column, first.scale_by_column
    return -(0.0 if shift is None else shift[place]) * (1.0 if scale is None else scale[place])


def _by_column(model: Model) -> NDArray[np.int64]:
    """Return the inputs of the first layer, column by column."""
    columns = model_columns(model)
    return np.concatenate([np.arange(column.first, column.first + column.width) for column in columns])


def _mean_gradients(
    by_inputs: InputGradient,
    inputs: NDArray[np.float64],
    base: NDArray[np.float64],
    chosen: NDArray[np.int64],
    differences: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the gradient of each row's output by the inputs, averaged along its path, shape as `inputs`."""
    mean = np.zeros_like(inputs)
    rows = np.repeat(np.arange(len(inputs)), _STRETCHES)
    begins = np.tile(np.arange(_STRETCHES) / _STRETCHES, len(inputs))
    width = 1 / _STRETCHES
    most = _MOST_STRETCHES + _MOST_OF_A_ROW * len(inputs)
    at_once = max(1, min(_MOST_AT_ONCE, _ELEMENTS_AT_ONCE // inputs.shape[1]) // _POINTS)
    for depth in range(_DEEPEST):
        left = np.zeros(len(rows), bool)
        for first in range(0, len(rows), at_once):
            part = slice(first, first + at_once)
            some, begin = rows[part], begins[part]
            ways = inputs[some] - base
            slopes = _averaged(by_inputs, base, ways, begin, width, chosen[some])
            pieces = ways * slopes * width
            ends = [base + ways * at[:, None] for at in (begin, begin + width)]
            before, after = (
                by_inputs.outputs(end).astype(np.float64)[np.arange(len(some)), chosen[some]] for end in ends
            )
            rounding = _ROUNDINGS * by_inputs.epsilon * np.maximum(np.abs(before), np.abs(after))
            allowed = _TOLERANCE * np.abs(differences[some]) * max(width, _LEAST_SHARE)
            allowed = np.maximum(allowed, rounding)
            wrong = np.abs(pieces.sum(axis=1) - (after - before)) > allowed
            left[part] = wrong & (depth < _DEEPEST - 1) & (len(rows) < most)
            np.add.at(mean, some[~left[part]], slopes[~left[part]] * width)
        rows, begins, width = np.repeat(rows[left], 2), np.repeat(begins[left], 2), width / 2
        if not len(rows):
            break
        begins[1::2] += width
    return mean


def _averaged(
    by_inputs: InputGradient,
    base: NDArray[np.float64],
    ways: NDArray[np.float64],
    begins: NDArray[np.float64],
    width: float,
    chosen: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return the mean gradient on a stretch of each path, shape (stretches, inputs)."""
    nodes, shares = np.polynomial.legendre.leggauss(_POINTS)
    at = begins[:, None] + (nodes + 1) / 2 * width
    path = base + at[:, :, None] * ways[:, None, :]
    weights = np.zeros((len(ways), _POINTS, by_inputs.output_count))
    weights[np.arange(len(ways)), :, chosen] = 1.0
    found = by_inputs.gradients(path.reshape(-1, path.shape[2]), weights.reshape(-1, weights.shape[2]))
    return np.einsum("p,rpi->ri", shares / 2, found.reshape(path.shape).astype(np.float64))


def _terms(
    model: Model, X: Any, features: Features, slopes: NDArray[np.float64]
) -> tuple[tuple[dict[str, list[tuple[str, float]]], ...], tuple[dict[str, ExplainedText], ...]]:
    """Return what each term, and each word, of the texts contributes, row by row."""
    operations = {operation.column: operation for operation in model.preprocessor.text_columns}
    if not operations:
        return (), ()
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
            operation = operations[column.name]
            by_id = embedded_terms(
                features.bags[column.place],
                tables[column.place][1],
                tables[column.place][0].reduce,
                row,
                slopes[row, column.first : column.first + column.width],
            )
            named = [(term_name(operation, place), value) for place, value in by_id.items()]
            terms[row][column.name] = sorted(named, key=lambda pair: -abs(pair[1]))
            text = documents[column.name][row] or ""
            texts[row][column.name] = explained_text(operation, text, by_id)
    return tuple(terms), tuple(texts)
