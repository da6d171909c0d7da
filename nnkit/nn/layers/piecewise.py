"""PiecewiseLinear: each number also as its shares of the bins of its column."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.backends.operations import Array, Copy, Operation
from nnkit.checks import Whole
from nnkit.engine.layer_pass import LayerPass
from nnkit.engine.places import Shape, width_of
from nnkit.errors import ConfigError
from nnkit.feed.statistics import RowStatistics
from nnkit.nn.layers.base import Layer

__all__ = ["PiecewiseLinear"]

_MOST_BINS = 1024


@dataclass(frozen=True)
class PiecewiseLinear(Layer):
    """The inputs, followed by each number's shares of its column's bins: 0 below a bin, 1 above it.

    A matrix of weights after it gives each unit a piecewise-linear function of every number. Gorishniy et al.
    2022, "On embeddings for numerical features in tabular deep learning", arXiv:2203.05556, section 3.2;
    here the numbers themselves stay, and no share leaves the range from 0 to 1. A `Dense` that follows looks
    up the two knots around a number, which costs the same for any number of bins.

    Parameters
    ----------
    bins : int
        The maximum number of bins of a column. Half of their edges are quantiles of the training rows, half
        of the distinct values, so that neither a frequent value nor an outlier takes most bins. A column of
        fewer distinct values has an edge at each.
    edges : sequence of sequences of float, optional
        The edges of each column of numbers, ascending; none for a column without bins. By default, they are
        chosen when a training begins, from its rows.
    """

    bins: int = 16
    edges: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "bins", Whole(1, _MOST_BINS)("PiecewiseLinear: bins", self.bins))
        if self.edges is not None:
            columns = tuple(tuple(map(float, column)) for column in self.edges)
            for number, column in enumerate(columns):
                if len(column) == 1 or not np.all(np.isfinite(column)) or np.any(np.diff(column) <= 0):
                    raise ConfigError(
                        f"PiecewiseLinear: the edges of column {number} must be two or more finite numbers, "
                        "each greater than the one before, or none"
                    )
            object.__setattr__(self, "edges", columns)

    def prepared(self, statistics: RowStatistics) -> Layer:
        if self.edges is not None:
            return self
        columns = range(statistics.columns)
        return PiecewiseLinear(self.bins, tuple(self._edges_of(statistics, column) for column in columns))

    def _edges_of(self, statistics: RowStatistics, column: int) -> tuple[float, ...]:
        """Return the edges of a column; none for one or two distinct numbers, which need no bins."""
        values = statistics.distinct(column, self.bins + 1)
        if values is None:
            half = (self.bins + 1) // 2
            of_rows = statistics.quantiles(column, np.linspace(0, 1, half + 1))
            of_values = statistics.distinct_quantiles(column, np.linspace(0, 1, self.bins - half + 2)[1:-1])
            values = np.concatenate([of_rows, of_values])
        edges = np.unique(values.astype(np.float32))
        return tuple(edges.tolist()) if len(edges) > 2 else ()

    def output_shape(self, shape: Shape) -> Shape:
        return (width_of(shape) + self.bin_count,)

    @property
    def bin_count(self) -> int:
        """The number of bins of all columns; 0 before the edges are known."""
        return sum(max(0, len(column) - 1) for column in self.edges or ())

    @property
    def does_nothing(self) -> bool:
        return self.edges is not None and not self.bin_count

    def fused(self, after: Layer) -> Layer | None:
        return after.reading_numbers(self) if self.bin_count else None

    # What the kernels read: an element for each bin, each column of numbers that has bins, or each knot.

    @cached_property
    def _binned(self) -> list[tuple[int, NDArray[np.float64]]]:
        """The columns that have bins, each with its edges."""
        return [(column, np.array(edges)) for column, edges in enumerate(self.edges or ()) if edges]

    def arrays(self, at: LayerPass) -> dict[str, Array]:
        """Return the column, the lower end and the inverse width of each bin, and where a column's begin."""
        inputs = width_of(at.place.inputs)
        if self.edges is None:
            raise ConfigError(
                "PiecewiseLinear has no edges yet: give them, or leave out the network's `inputs`, so that a "
                "training chooses them by its rows"
            )
        if len(self.edges) > inputs:
            raise ConfigError(f"PiecewiseLinear has edges of {len(self.edges)} columns, and {inputs} inputs")
        counts = [len(edges) - 1 for _, edges in self._binned]
        columns = np.repeat([column for column, _ in self._binned], counts)
        lows = np.concatenate([edges[:-1] for _, edges in self._binned])
        inverses = 1 / np.concatenate([np.diff(edges) for _, edges in self._binned])
        return {
            "columns": at.constant("columns", columns.astype(np.int32)),
            "starts": at.constant("starts", np.cumsum([0, *counts]).astype(np.int32)),
            "lows": at.constant("lows", lows.astype(at.dtype)),
            "inverses": at.constant("inverses", inverses.astype(at.dtype)),
        }

    def forward(self, at: LayerPass, x: Array) -> tuple[list[Operation], Array]:
        out = at.buffer("out", at.width, at.output_dtype)
        arguments = {"x": at.cut(x, width_of(at.place.inputs)), "out": at.cut(out), **self.arrays(at)}
        return [at.kernel("expand", {}, {}, arguments)], out

    def backward(self, at: LayerPass, delta: Array) -> tuple[list[Operation], Array]:
        # Embedded columns are among those that were copied.
        if not at.wants_input_gradient or at.embedded_columns is not None:
            return [], delta
        inputs = width_of(at.place.inputs)
        onto = at.input_gradient()
        copied = Copy(delta[:, :inputs], at.cut(onto, inputs))
        return [copied, self.backward_shares(at, delta[:, inputs : at.width], onto)], onto

    def backward_shares(self, at: LayerPass, delta: Array, onto: Array) -> Operation:
        """Return what adds to the derivative by the inputs the part through the shares."""
        inputs = width_of(at.place.inputs)
        arguments = {"delta": delta, "x": at.cut(at.x, inputs), "onto": at.cut(onto, inputs)}
        return at.kernel("expand_gradient", {}, {}, {**arguments, **self.arrays(at)})

    def forward_lookup(self, at: LayerPass, x: Array, weight: Array, z: Array) -> list[Operation]:
        """Return what adds to z, (rows, units), the shares' product with their weights, (bins, units)."""
        bins, units = weight.shape
        count = len(self._binned)
        knots = at.scratch("knots", (bins + count, units), at.dtype)
        arguments = {"x": x, "weight": weight, "z": z, "knots": knots, **self._found(at), **self.arrays(at)}
        names = ("find_bins", "sum_knots", "interpolate")
        return [at.kernel(name, {}, {}, arguments) for name in names]

    def backward_lookup(self, at: LayerPass, delta: Array, gradient: Array) -> Operation:
        """Return what computes the gradient of the weights, (bins, units), from the derivative by z."""
        bins, units = gradient.shape
        knots = bins + len(self._binned)
        owners = np.repeat(np.arange(len(self._binned)), [len(edges) for _, edges in self._binned])
        arguments = {
            "delta": delta,
            "gradient": gradient,
            "owners": at.constant("owners", owners.astype(np.int32)),
            "slopes": at.scratch("slopes", (knots, units), at.dtype),
            **self._found(at),
            **self.arrays(at),
        }
        return at.kernel("interpolate_gradient", {}, {}, arguments)

    def _found(self, at: LayerPass) -> dict[str, Array]:
        shape = (len(self._binned),)
        return {
            "places": at.exact_buffer("places", shape, np.int32),
            "fractions": at.exact_buffer("fractions", shape, at.dtype),
        }

    def describe(self) -> str:
        return f"numbers in {self.bins} bins"

    def to_json(self) -> dict[str, Any]:
        edges = None if self.edges is None else [list(column) for column in self.edges]
        return {"kind": type(self).__name__, "bins": self.bins, "edges": edges}
