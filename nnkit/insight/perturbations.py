"""SHAP and LIME over a model's own input columns, through the libraries of these names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.checks import Whole
from nnkit.errors import DataError
from nnkit.extras import extra_module
from nnkit.feed.features import Bags, Features
from nnkit.insight.columns import Column, model_columns
from nnkit.insight.explanation import Explanation, chosen_outputs, in_units, output_name
from nnkit.model import Model

__all__ = ["ColumnMatrix", "lime_values", "shap_values"]

# The exact values take 2^columns evaluations; shap's own choice is the same up to here.
_MOST_EXACT = 10
_ROUNDS = 10  # of shap's permutations, each two evaluations a column
_MOST_BACKGROUND = 100  # shap's own limit of a masker
_LIME_SAMPLES = 5000


class ColumnMatrix:
    """Rows as a matrix with a number for each of the user's columns, which SHAP and LIME perturb.

    A number is as it is scaled, a category its code; of what is embedded, it says which row's bag.

    Parameters
    ----------
    model : Model
    rows : array or table
        What is explained.
    background : array or table
        What the perturbed values are taken from.

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
        self.background = self._matrix(parts[0], 0)
        self.rows = self._matrix(parts[1], len(parts[0]))

    def _matrix(self, features: Features, first: int) -> NDArray[np.float64]:
        dense = features.dense if features.rows is None else features.dense[features.rows]
        matrix = np.empty((len(features), len(self.columns)))
        for place, column in enumerate(self.columns):
            if column.part == "dense":
                matrix[:, place] = dense[:, column.place]
            elif column.part == "codes":
                assert features.codes is not None
                matrix[:, place] = features.codes[:, column.place]
            else:
                matrix[:, place] = first + np.arange(len(features))
        return matrix

    def outputs(self, matrix: NDArray) -> NDArray[np.float64]:
        """Return the network's outputs, shape (rows, outputs), for rows of such a matrix."""
        by_part: dict[str, list[NDArray]] = {"dense": [], "codes": [], "bags": []}
        for place, column in enumerate(self.columns):
            by_part[column.part].append(matrix[:, place])
        like, count = self._like, len(matrix)
        # Pixels are no whole numbers any more once they are perturbed: they are scaled here.
        dense = np.empty((count, 0)) if not by_part["dense"] else np.column_stack(by_part["dense"])
        shift, scale = like.shift, like.scale
        dense = dense if shift is None else dense - shift
        dense = dense if scale is None else dense * scale
        codes = None
        if by_part["codes"]:
            codes = np.ascontiguousarray(np.rint(np.column_stack(by_part["codes"])), np.int32)
        bags = tuple(
            pool.take(np.rint(rows).astype(np.int64))
            for pool, rows in zip(self._pools, by_part["bags"], strict=True)
        )
        dtype = np.dtype(self._model.preprocessor.dtype)
        taken = replace(
            like,
            dense=np.ascontiguousarray(dense, dtype),
            shift=None,
            scale=None,
            codes=codes,
            bags=bags,
            rows=None,
            picture=None,
        )
        return self._model.encoded_outputs(taken).astype(np.float64)


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
    """Explain an output of each row by Shapley values of the user's columns, through the package shap.

    A column that is left out takes its values from the background's rows, independently of the others. Up to
    10 columns the values are exact for that background, and beyond estimated from permutations.

    Parameters
    ----------
    model : Model
        A trained one.
    X : array or table
        Rows as `Model.predict` takes them.
    background : array or table, optional
        `X` if not given.
    label : str, optional
        The class, or the target column, whose output is explained; see `chosen_outputs`.
    seed : int
        Of the permutations, and of the background's rows where there are more than are taken.
    most_background : int
        How many rows of the background are taken at most.

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
    taken = _some(matrix.background, Whole(1)("most_background", most_background), seed)
    masker = shap.maskers.Independent(taken, max_samples=len(taken))
    count = len(matrix.columns)
    if count <= _MOST_EXACT:
        found = shap.explainers.Exact(matrix.outputs, masker)(matrix.rows, silent=True)
    else:
        explainer = shap.explainers.Permutation(matrix.outputs, masker, seed=seed)
        found = explainer(matrix.rows, max_evals=_ROUNDS * (2 * count + 1), silent=True)
    outputs = matrix.outputs(matrix.rows)
    chosen = chosen_outputs(model, outputs, label)
    values = np.asarray(found.values).reshape(len(outputs), count, -1)
    bases = np.asarray(found.base_values).reshape(len(outputs), -1)
    rows = np.arange(len(outputs))
    return _explained(
        model,
        "shap",
        matrix.columns,
        chosen,
        values[rows, :, chosen],
        bases[rows, chosen],
        outputs[rows, chosen],
    )


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

    Numbers are cut at the background's quartiles: a contribution is that of a number's lying in the row's own
    quarter, or of a category's being the row's own. It approximates, and `Explanation.gap` says how far off
    it is at the row.

    Parameters
    ----------
    model : Model
        A trained one.
    X : array or table
        Rows as `Model.predict` takes them.
    background : array or table, optional
        `X` if not given.
    label : str, optional
        The class, or the target column, whose output is explained; see `chosen_outputs`.
    seed : int
        Of the perturbed rows.
    samples : int
        How many there are for each row.

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
    matrix = ColumnMatrix(model, X, X if background is None else background)
    outputs = matrix.outputs(matrix.rows)
    chosen = chosen_outputs(model, outputs, label)
    explainer = tabular.LimeTabularExplainer(
        matrix.background,
        mode="regression",
        feature_names=[column.name for column in matrix.columns],
        categorical_features=[k for k, column in enumerate(matrix.columns) if column.part != "dense"],
        random_state=seed,
    )
    contributions = np.zeros(matrix.rows.shape)
    base = np.empty(len(outputs))
    for row, output in enumerate(chosen.tolist()):
        found = explainer.explain_instance(
            matrix.rows[row],
            _one_of(matrix.outputs, output),
            num_features=len(matrix.columns),
            num_samples=Whole(2)("samples", samples),
        )
        # lime keeps a regression's explanation under 1, and its opposite under 0.
        for place, value in found.local_exp[1]:
            contributions[row, place] = value
        base[row] = found.intercept[1]
    rows = np.arange(len(outputs))
    return _explained(model, "lime", matrix.columns, chosen, contributions, base, outputs[rows, chosen])


def _one_of(outputs: Callable[[NDArray], NDArray], place: int) -> Callable[[NDArray], NDArray]:
    return lambda matrix: outputs(matrix)[:, place]


def _some(matrix: NDArray, most: int, seed: int) -> NDArray:
    """Return at most so many rows, drawn without putting back."""
    if len(matrix) <= most:
        return matrix
    return matrix[np.sort(np.random.default_rng(seed).choice(len(matrix), most, replace=False))]


def _explained(
    model: Model,
    method: str,
    columns: tuple[Column, ...],
    chosen: NDArray[np.int64],
    contributions: NDArray[np.float64],
    base: NDArray[np.float64],
    values: NDArray[np.float64],
) -> Explanation:
    scale, shift = in_units(model, chosen)
    return Explanation(
        method,
        tuple(column.name for column in columns),
        contributions * scale[:, None],
        base * scale + shift,
        values * scale + shift,
        tuple(output_name(model, output) for output in chosen.tolist()),
    )
