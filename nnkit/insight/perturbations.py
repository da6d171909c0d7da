"""SHAP and LIME over a model's own input columns, through the libraries of these names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.checks import Whole
from nnkit.data.operations import NumberColumn
from nnkit.errors import DataError
from nnkit.extras import extra_module
from nnkit.feed.features import Bags, Features
from nnkit.insight.columns import model_columns
from nnkit.insight.explanation import Explanation, chosen_outputs, explained
from nnkit.model import Model

__all__ = ["ColumnMatrix", "lime_values", "shap_values"]

# The exact values take 2^columns evaluations; shap's own choice is the same up to here.
_MOST_EXACT = 10
_ROUNDS = 10  # of shap's permutations, each two evaluations a column
_MOST_BACKGROUND = 100  # shap's own limit of a masker
_LIME_SAMPLES = 5000


class ColumnMatrix:
    """Rows and background as matrices with a number for each input column, which SHAP and LIME perturb.

    A number is as it is scaled, or below all others where it is missing and has a flag; a category is its
    code, an embedded text or category the place of its bag among those of background and rows.

    Attributes
    ----------
    columns : tuple of Column
    rows, background : ndarray of shape (rows, columns), float64
    """

    def __init__(self, model: Model, rows: Any, background: Any) -> None:
        self.columns = model_columns(model)
        self._model = model
        parts = [model.preprocessor.transform(some) for some in (background, rows)]
        if any(part.sparse is not None for part in parts):
            raise DataError("rows of a sparse matrix are not explained: give them as an array")
        self._like = parts[0]
        self._pools = tuple(_joined(*pair) for pair in zip(*(part.bags for part in parts), strict=True))
        self._missing = self._missing_numbers(parts)
        self.background = self._matrix(parts[0], 0)
        self.rows = self._matrix(parts[1], len(parts[0]))

    def _missing_numbers(self, parts: Sequence[Features]) -> dict[int, tuple[float, float, float]]:
        """Return what stands for a missing number, by the place of its flag.

        This is a value below all others, as far as these reach; the greatest value that is taken for it; and
        the number that is filled in.
        """
        found = {}
        numbers = [op for op in self._model.preprocessor.operations if isinstance(op, NumberColumn)]
        for column in self.columns:
            if column.flag is not None:
                values = np.concatenate([part.dense[:, column.place] for part in parts]).astype(np.float64)
                least, reach = values.min(), np.ptp(values) + 1
                fill = numbers[column.place].encoded(np.array([np.nan]))
                found[column.flag] = float(least - reach), float(least - reach / 2), float(fill[0])
        return found

    def _matrix(self, features: Features, first: int) -> NDArray[np.float64]:
        dense = features.dense if features.rows is None else features.dense[features.rows]
        if self._missing:
            dense = dense.astype(np.float64)
        for column in self.columns:
            if column.flag is not None:
                dense[dense[:, column.flag] == 1, column.place] = self._missing[column.flag][0]
        values = {"dense": dense.T, "codes": () if features.codes is None else features.codes.T}
        bags = first + np.arange(len(features))
        columns = [bags if c.part == "bags" else values[c.part][c.place] for c in self.columns]
        return np.column_stack(columns).astype(np.float64)

    def outputs(self, matrix: NDArray) -> NDArray[np.float64]:
        """Return the network's outputs, shape (rows, outputs), for rows of such a matrix."""
        by_part: dict[str, list[NDArray]] = {"dense": [], "codes": [], "bags": []}
        flags: dict[int, NDArray] = {}
        for column, values in zip(self.columns, matrix.T, strict=True):
            if column.flag is not None:
                _, most, fill = self._missing[column.flag]
                flags[column.flag] = values <= most
                values = np.where(flags[column.flag], fill, values)
            by_part[column.part].append(
                values if column.part == "dense" else np.rint(values).astype(np.int32)
            )
        like = self._like
        by_part["dense"] += [flags[place] for place in sorted(flags)]
        # Pixels are no whole numbers any more once they are perturbed: they are scaled here.
        dense = np.column_stack(by_part["dense"]) if by_part["dense"] else np.empty((len(matrix), 0))
        dense = dense if like.shift is None else dense - like.shift
        dense = dense if like.scale is None else dense * like.scale
        features = replace(
            like,
            dense=np.ascontiguousarray(dense, np.dtype(self._model.preprocessor.dtype)),
            shift=None,
            scale=None,
            codes=np.column_stack(by_part["codes"]) if by_part["codes"] else None,
            bags=tuple(pool.take(rows) for pool, rows in zip(self._pools, by_part["bags"], strict=True)),
            rows=None,
            picture=None,
        )
        return self._model.encoded_outputs(features).astype(np.float64)


def _joined(first: Bags, second: Bags) -> Bags:
    """Return the bags of both, one after the other."""
    weights = None
    if first.weights is not None and second.weights is not None:
        weights = np.concatenate([first.weights, second.weights])
    starts = np.concatenate([first.starts, second.starts[1:] + first.starts[-1]])
    return Bags(np.concatenate([first.ids, second.ids]), starts, first.size, weights)


def shap_values(
    model: Model,
    X: Any,
    *,
    background: Any = None,
    label: str | None = None,
    seed: int = 0,
    most_background: int = _MOST_BACKGROUND,
) -> Explanation:
    """Explain an output of each row by Shapley values of the input columns, through the package shap.

    A column that is left out takes its values from the background's rows, independently of the others. Up to
    10 columns the values are exact for that background, and beyond estimated from permutations.

    Parameters
    ----------
    model : Model
    X : array or table
        Rows as `Model.predict` takes them.
    background : array or table, optional
        `X` if not given.
    label : str, optional
        The class, or the target column, whose output is explained; see `chosen_outputs`.
    seed : int
        Of the permutations, and of the sample of the background.
    most_background : int
        The number of rows to which the background is sampled.

    Raises
    ------
    ConfigError
        If shap is not installed, or the label is unknown.
    DataError
        If the rows do not match the model.

    References
    ----------
    Lundberg and Lee 2017, "A Unified Approach to Interpreting Model Predictions", arXiv:1705.07874.
    """
    shap = extra_module("shap")
    Whole(0, 2**32 - 1)("seed", seed)
    matrix = ColumnMatrix(model, X, X if background is None else background)
    taken, most = matrix.background, Whole(1)("most_background", most_background)
    if len(taken) > most:
        taken = taken[np.sort(np.random.default_rng(seed).choice(len(taken), most, replace=False))]
    masker = shap.maskers.Independent(taken, max_samples=len(taken))
    count = len(matrix.columns)
    if count <= _MOST_EXACT:
        found = shap.explainers.Exact(matrix.outputs, masker)(matrix.rows, silent=True)
    else:
        explainer = shap.explainers.Permutation(matrix.outputs, masker, seed=seed)
        found = explainer(matrix.rows, max_evals=_ROUNDS * (2 * count + 1), silent=True)
    outputs, rows = matrix.outputs(matrix.rows), np.arange(len(matrix.rows))
    chosen = chosen_outputs(model, outputs, label)
    values = np.asarray(found.values).reshape(len(outputs), count, -1)[rows, :, chosen]
    base = np.asarray(found.base_values).reshape(len(outputs), -1)[rows, chosen]
    return explained(model, "shap", matrix.columns, chosen, values, base, outputs[rows, chosen])


def lime_values(
    model: Model,
    X: Any,
    *,
    background: Any = None,
    label: str | None = None,
    seed: int = 0,
    samples: int = _LIME_SAMPLES,
) -> Explanation:
    """Explain an output of each row by a linear model fitted around it, through the package lime.

    Numbers are cut at the background's quartiles: a contribution is that of the row's own quarter, or of its
    own category. It approximates, and `Explanation.gap` is the error at the row.

    Parameters
    ----------
    model, X, background, label
        As for `shap_values`.
    seed : int
        Of the perturbed rows.
    samples : int
        The number of perturbed rows for each row.

    Raises
    ------
    ConfigError
        If lime is not installed, or the label is unknown.
    DataError
        If the rows do not match the model.

    References
    ----------
    Ribeiro, Singh and Guestrin 2016, "Why Should I Trust You?", arXiv:1602.04938.
    """
    tabular = extra_module("lime.lime_tabular")
    Whole(0, 2**32 - 1)("seed", seed)
    samples = Whole(2)("samples", samples)
    matrix = ColumnMatrix(model, X, X if background is None else background)
    outputs = matrix.outputs(matrix.rows)
    chosen = chosen_outputs(model, outputs, label)
    categories = [k for k, column in enumerate(matrix.columns) if column.part != "dense"]
    explainer = tabular.LimeTabularExplainer(
        matrix.background, mode="regression", categorical_features=categories, random_state=seed
    )
    contributions, base = np.zeros(matrix.rows.shape), np.empty(len(outputs))
    for row, output in enumerate(chosen.tolist()):
        found = explainer.explain_instance(
            matrix.rows[row],
            lambda perturbed, output=output: matrix.outputs(perturbed)[:, output],
            num_features=len(matrix.columns),
            num_samples=samples,
        )
        # lime keeps a regression's explanation under 1, and its opposite under 0.
        for place, value in found.local_exp[1]:
            contributions[row, place] = value
        base[row] = found.intercept[1]
    values = outputs[np.arange(len(outputs)), chosen]
    return explained(model, "lime", matrix.columns, chosen, contributions, base, values)
