"""An explanation: the contribution of each column to a model's outputs, and which output in what unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnkit.errors import ConfigError, unknown_name
from nnkit.insight.columns import Column
from nnkit.model import Model

if TYPE_CHECKING:
    from nnkit.insight.words import ExplainedText

__all__ = ["Explanation", "chosen_outputs", "explained", "number_words", "output_labels", "output_units"]


@dataclass(frozen=True, eq=False)
class Explanation:
    """Contributions of a model's own input columns to one output of each row.

    ``base + contributions.sum(axis=1)`` approximates the output, as closely as the method allows.

    Parameters
    ----------
    method : str
        ``gradients``, ``shap`` or ``lime``.
    columns : tuple of str
    contributions : ndarray of shape (rows, columns), float64
    base : ndarray of shape (rows,)
        The output at the baseline, from which contributions are counted.
    outputs : ndarray of shape (rows,)
        The output explained: log-odds or a logit of a class, or a value in its own unit.
    names : tuple of str
        The name of that output, for each row.
    terms : tuple of dict
        For each row, by text column, its terms and their contributions, the largest first; empty if the
        method has none.
    texts : tuple of dict
        For each row, by text column, the text and the contributions of its words; empty if the method has
        none.
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
        """The output less base and contributions, shape (rows,)."""
        return self.outputs - self.base - self.contributions.sum(axis=1)

    @property
    def mean_size(self) -> NDArray[np.float64]:
        """The mean absolute contribution of each column, shape (columns,)."""
        return np.abs(self.contributions).mean(axis=0)

    def ranked(self, row: int) -> list[tuple[str, float]]:
        """Return a row's columns and contributions, the largest absolute ones first."""
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
        """Return the columns by their mean absolute contribution, as JSON values."""
        order = np.argsort(-self.mean_size, kind="stable")
        names = sorted(set(self.names))
        return {
            "method": self.method,
            "output": " or ".join(names) if len(names) <= 3 else "each row's own",
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
    """Return a number with four digits, or without decimals from 1,000 on; `sign` shows a plus too."""
    plus = "+" if sign else ""
    return f"{value:{plus},.0f}" if 1000 <= abs(value) < 1e15 else f"{value:{plus}.4g}"


def chosen_outputs(model: Model, outputs: NDArray, label: str | None) -> NDArray[np.int64]:
    """Return the place of the output to explain, for each row of the outputs (rows, outputs).

    `label` is a class, or a target column where there are several; if not given, it is each row's most
    probable class, or the first output of a regression.

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
    known = output_labels(model)
    if label not in known:
        raise unknown_name("class" if model.task == "multiclass" else "target column", label, known)
    return np.full(rows, known.index(label), np.int64)


def output_labels(model: Model) -> list[str]:
    """Return the name of each class; of each label for multilabel; of each output for a regression."""
    if model.task in ("binary", "multiclass") and model.classes is not None:
        return [str(label) for label in model.classes.tolist()]
    return list(model.target.output_names) or [f"output {place}" for place in range(model.target.outputs)]


def _output_name(model: Model, output: int) -> str:
    if model.task == "binary":
        return f"log-odds of {model.target.positive!r}"
    label = output_labels(model)[output]
    if model.task == "multiclass":
        return f"logit of {label!r}"
    if model.task == "multilabel":
        return f"log-odds of {label!r}"
    warp = model.target.warp
    if warp is not None and warp.name == "quantile":
        return f"normal score of {label!r}"
    return label if warp is None and model.loss.link != "exp" else f"logarithm of {label!r}"


def explained(
    model: Model,
    method: str,
    columns: Sequence[Column],
    chosen: NDArray[np.int64],
    contributions: NDArray[np.float64],
    base: NDArray[np.float64],
    outputs: NDArray[np.float64],
) -> Explanation:
    """Return an explanation of the chosen outputs; a regression's in its own unit, not as it is scaled."""
    scale, mean = output_units(model, chosen)
    return Explanation(
        method,
        tuple(column.name for column in columns),
        contributions * scale[:, None],
        base * scale + mean,
        outputs * scale + mean,
        tuple(_output_name(model, output) for output in chosen.tolist()),
    )


def output_units(model: Model, chosen: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return scale and mean of each row's chosen output: ``output * scale + mean`` is in its own unit."""
    if model.task != "regression" or model.loss.link == "exp":
        return np.ones(len(chosen)), np.zeros(len(chosen))
    assert model.target.scale is not None
    assert model.target.mean is not None
    return model.target.scale[chosen], model.target.mean[chosen]
