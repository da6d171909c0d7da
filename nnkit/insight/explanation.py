"""What contributes to a model's outputs, column by column, and which output is explained in what unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnkit.errors import ConfigError, unknown_name
from nnkit.model import Model

if TYPE_CHECKING:
    from nnkit.insight.words import ExplainedText

__all__ = ["Explanation", "chosen_outputs", "in_units", "number_words", "output_name"]


@dataclass(frozen=True, eq=False)
class Explanation:
    """Contributions of a model's own input columns to one output of each row.

    ``base + contributions.sum(axis=1)`` is the output, as far as the method promises it; `gap` is what is
    missing.

    Parameters
    ----------
    method : str
        ``gradients``, ``shap`` or ``lime``.
    columns : tuple of str
    contributions : ndarray of shape (rows, columns), float64
    base : ndarray of shape (rows,)
        The output where nothing is known of a row.
    outputs : ndarray of shape (rows,)
        The output explained: log-odds or a logit of a class, or a value in its own unit.
    names : tuple of str
        What that output is, for each row.
    terms : tuple of dict
        For each row, by a text column's name, its terms and their contributions, the greatest first; empty
        where the method does not tell them.
    texts : tuple of dict
        For each row, by a text column's name, the text and what its words contribute; empty as `terms` is.
    """

    method: str
    columns: tuple[str, ...]
    contributions: NDArray[np.float64]
    base: NDArray[np.float64]
    outputs: NDArray[np.float64]
    names: tuple[str, ...]
    terms: tuple[dict[str, list[tuple[str, float]]], ...] = ()
    texts: tuple[dict[str, ExplainedText], ...] = ()

    @property
    def gap(self) -> NDArray[np.float64]:
        """What the contributions leave unexplained, shape (rows,)."""
        return self.outputs - self.base - self.contributions.sum(axis=1)

    @property
    def mean_size(self) -> NDArray[np.float64]:
        """The mean over the rows of each contribution's size, shape (columns,)."""
        return np.abs(self.contributions).mean(axis=0)

    def ranked(self, row: int) -> list[tuple[str, float]]:
        """Return a row's columns and contributions, the greatest in size first."""
        order = np.argsort(-np.abs(self.contributions[row]), kind="stable")
        return [(self.columns[place], float(self.contributions[row, place])) for place in order]

    def row_json(self, row: int) -> dict[str, Any]:
        """Return one row's explanation as JSON values."""
        found: dict[str, Any] = {
            "method": self.method,
            "output": self.names[row],
            "value": float(self.outputs[row]),
            "base": float(self.base[row]),
            "gap": float(self.gap[row]),
            "columns": [{"column": name, "contribution": value} for name, value in self.ranked(row)],
        }
        if self.texts and self.texts[row]:
            found["words"] = {column: text.to_json() for column, text in self.texts[row].items()}
        if self.terms and self.terms[row]:
            found["terms"] = {
                column: [{"term": term, "contribution": value} for term, value in terms]
                for column, terms in self.terms[row].items()
            }
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the columns by the mean size of their contributions, as JSON values."""
        order = np.argsort(-self.mean_size, kind="stable")
        return {
            "method": self.method,
            "output": " or ".join(sorted(set(self.names))) if len(set(self.names)) <= 3 else "each row's own",
            "rows": len(self.outputs),
            "columns": [
                {
                    "column": self.columns[place],
                    "mean_size": float(self.mean_size[place]),
                    "mean": float(self.contributions[:, place].mean()),
                }
                for place in order
            ],
        }


def number_words(value: float, sign: bool = False) -> str:
    """Return a number as a person reads it: four digits, or whole with its thousands apart."""
    plus = "+" if sign else ""
    return f"{value:{plus},.0f}" if 1000 <= abs(value) < 1e15 else f"{value:{plus}.4g}"


def chosen_outputs(model: Model, outputs: NDArray, label: str | None) -> NDArray[np.int64]:
    """Return which output of each row is explained, shape (rows,).

    Parameters
    ----------
    model : Model
    outputs : ndarray of shape (rows, outputs)
        The network's.
    label : str, optional
        A class, or a target column where there are several. Where it is not given, a row's most probable
        class, or the first output of a regression.

    Raises
    ------
    ConfigError
        If the model has no such class or column.
    """
    rows = len(outputs)
    if label is None:
        if model.task in ("binary", "regression"):
            return np.zeros(rows, np.int64)
        return outputs.argmax(axis=1).astype(np.int64)
    if model.task == "binary":
        # There is one output: the log-odds of the second class.
        if label != str(model.target.positive):
            raise ConfigError(
                f"a binary model is explained by the log-odds of {model.target.positive!r}, and those of "
                "the other class are the opposite: leave out `label`"
            )
        return np.zeros(rows, np.int64)
    known = _labels(model)
    if label not in known:
        raise unknown_name("class" if model.task == "multiclass" else "target column", label, known)
    return np.full(rows, known.index(label), np.int64)


def _labels(model: Model) -> list[str]:
    """Return what each output is of."""
    if model.task == "multiclass":
        assert model.classes is not None
        return [str(label) for label in model.classes.tolist()]
    return list(model.target.output_names) or [f"output {place}" for place in range(model.target.outputs)]


def output_name(model: Model, output: int) -> str:
    """Return in words what an output says."""
    if model.task == "binary":
        return f"log-odds of {model.target.positive!r}"
    label = _labels(model)[output]
    if model.task == "multiclass":
        return f"logit of {label!r}"
    if model.task == "multilabel":
        return f"log-odds of {label!r}"
    return f"logarithm of {label!r}" if model.loss.link == "exp" else label


def in_units(model: Model, chosen: NDArray[np.integer]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return by what each row's chosen output is multiplied, and what is added, to be in its own unit."""
    if model.task != "regression" or model.loss.link == "exp":
        return np.ones(len(chosen)), np.zeros(len(chosen))
    assert model.target.scale is not None
    assert model.target.mean is not None
    return model.target.scale[chosen], model.target.mean[chosen]
