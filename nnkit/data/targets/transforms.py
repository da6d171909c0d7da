"""Transformations of a regression's target before it is standardised, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from nnkit.data import json_fields
from nnkit.data.json_fields import require
from nnkit.data.targets.values import called
from nnkit.errors import DataError
from nnkit.nn.links import inverse_link

__all__ = ["TRANSFORMS", "TargetTransform", "TransformName"]

TransformName = Literal["none", "log", "quantile"]
TRANSFORMS: tuple[TransformName, ...] = get_args(TransformName)
# As many as scikit-learn's QuantileTransformer has by default.
_MOST_QUANTILES = 1000


@dataclass(frozen=True, eq=False)
class TargetTransform:
    """The logarithm of each value, or its normal score by the quantiles of the training rows.

    Parameters
    ----------
    name : {"log", "quantile"}
    knots : tuple of pairs of ndarray
        For "quantile", of each target: values and their normal scores, both strictly ascending. Between two
        knots the score is linear, and beyond the last ones it is theirs: so are the predictions.
    """

    name: TransformName
    knots: tuple[tuple[NDArray[np.float64], NDArray[np.float64]], ...] = ()

    @classmethod
    def fit(cls, name: TransformName, values: NDArray[np.float64]) -> TargetTransform:
        """Return the transformation of training values, shape (rows, targets)."""
        return cls(name, tuple(map(_knots, values.T)) if name == "quantile" else ())

    def forward(self, values: NDArray[np.float64], names: Sequence[str] = ()) -> NDArray[np.float64]:
        """Transform values, shape (rows, targets); raise a DataError for one that has no logarithm."""
        if self.name == "quantile":
            pairs = zip(values.T, self.knots, strict=True)
            return np.stack([np.interp(column, *knots) for column, knots in pairs], axis=1)
        if not (values > 0).all():
            row, column = np.argwhere(~(values > 0))[0].tolist()
            raise DataError(
                f"{called(names[column : column + 1])}the target of row {row} (counting from 0) is "
                f"{values[row, column]:g}, and only positive numbers have a logarithm: leave out "
                "`target_transform`, or set it to quantile"
            )
        return np.log(values)

    def inverse(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return transformed values in their own units, shape (rows, targets)."""
        if self.name == "log":
            return inverse_link(values, "exp")
        pairs = zip(values.T, self.knots, strict=True)
        return np.stack([np.interp(column, *knots[::-1]) for column, knots in pairs], axis=1)

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        knots = [{"values": values.tolist(), "scores": scores.tolist()} for values, scores in self.knots]
        return {"name": self.name, "knots": knots}

    @classmethod
    def from_json(cls, data: Any, outputs: int) -> TargetTransform:
        """Read what `to_json` wrote; anything else is a ModelFileError."""
        data = json_fields.mapping(data, "transform")
        name: Any = json_fields.choice(data, "name", ("log", "quantile"))
        knots = []
        for entry in json_fields.sequence(data, "knots"):
            entry = json_fields.mapping(entry, "knots")
            pair = tuple(np.array(json_fields.numbers(entry, key)) for key in ("values", "scores"))
            rising = all(len(numbers) and bool(np.all(np.diff(numbers) > 0)) for numbers in pair)
            require(rising and len(pair[0]) == len(pair[1]), "the knots of its target are not ascending")
            knots.append(pair)
        wanted = outputs if name == "quantile" else 0
        require(len(knots) == wanted, f"its target has {len(knots)} lists of knots for {outputs} outputs")
        return cls(name, tuple(knots))  # type: ignore[arg-type]


def _knots(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return quantiles of a column, and their normal scores; equal ones have the score of their middle.

    The least and the greatest value, of probability 0 and 1, have no finite score: theirs are those of half a
    step from there.
    """
    count = min(len(values), _MOST_QUANTILES)
    quantiles, first = np.unique(np.quantile(values, np.linspace(0, 1, count)), return_index=True)
    last = np.append(first[1:], count) - 1
    middle = (first + last) / 2 / max(1, count - 1)
    scores = [
        NormalDist().inv_cdf(probability) for probability in np.clip(middle, 0.5 / count, 1 - 0.5 / count)
    ]
    return quantiles, np.array(scores)
