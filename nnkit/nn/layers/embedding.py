"""Embedding: vectors that are looked up by a row's bag of ids and reduced to one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import DTypeLike

from nnkit.backends.operations import Array, Kernel, Operation
from nnkit.checks import Choice, Whole
from nnkit.engine.layer_pass import LayerPass
from nnkit.engine.places import Parameter, Shape, width_of
from nnkit.errors import DataError
from nnkit.feed.features import Bags
from nnkit.nn.initializers import initialize_table, initializer_from
from nnkit.nn.layers.base import Drawn, Layer

__all__ = ["Embedding", "Reduction"]

Reduction = Literal["mean", "sum", "max"]


@dataclass(frozen=True)
class Embedding(Layer):
    """A table of vectors: each row's bag of ids selects some of them, which are reduced to one.

    Embeddings come first in a network, one for each of `Features.bags`, and their vectors follow a row's
    other inputs. An empty bag gives zeros. A step updates only the rows of the table that its batch looks up.
    For SGD, AdaGrad and RMSprop this equals an update of the whole table, to rounding; Momentum, Nesterov,
    Adam and AdamW neither decay the moments of the other rows nor move these rows. Penalties and weight decay
    also apply only to the rows looked up.

    Parameters
    ----------
    size : int
        The number of rows of the table.
    width : int
        The number of columns.
    reduce : {"mean", "sum", "max"}
        With the weights w of a bag's ids: Σ w x / Σ w (0 if Σ w = 0), Σ w x, or, without weights, the maximum
        of each element.
    initializer : str, mapping or None
        The distribution of the table, as of a matrix of `size` inputs and `width` outputs. None draws normal
        with standard deviation 1 / √width: a row's expected squared length is 1, as in the program of Vaswani
        et al. 2017, arXiv:1706.03762, which then scales the vectors by √width.
    """

    bags: ClassVar[int] = 1

    size: int
    width: int
    reduce: Reduction = "mean"
    initializer: str | Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", Whole(1, 2**31)("Embedding: size", self.size))  # 32-bit ids
        object.__setattr__(self, "width", Whole(1)("Embedding: width", self.width))
        Choice(get_args(Reduction))("Embedding: reduce", self.reduce)
        if self.initializer is not None:
            initializer_from(self.initializer)

    def check_bags(self, number: int, bags: Bags) -> None:
        if bags.size != self.size:
            sizes = f"their ids are for a table of {bags.size} rows, and the Embedding has {self.size}"
            raise DataError(f"bags {number}: {sizes}")
        if bags.weights is not None and self.reduce == "max":
            raise DataError(f"bags {number} have weights, which reduce = 'max' cannot take; use 'mean'")

    def parameters(self, shape: Shape) -> Mapping[str, Parameter]:
        return {"weight": Parameter((self.size, self.width), "table", decays=True)}

    def output_shape(self, shape: Shape) -> Shape:
        return (width_of(shape) + self.width,)

    def draw(self, shape: Shape, seed: int, number: int, dtype: DTypeLike) -> Iterator[Drawn]:
        for first, vectors in initialize_table(self.initializer, self.size, self.width, seed, number, dtype):
            yield "weight", first, vectors

    def forward(self, at: LayerPass, x: Array) -> tuple[list[Operation], Array]:
        """Number the table's rows that the batch looks up, and fill the embedded columns of its inputs."""
        column = width_of(at.place.inputs)
        lookup = self._kernel(at, "embed", {"inputs": x, "column": column})
        return [self._kernel(at, "unique_rows"), lookup] if at.trains("weight") else [lookup], x

    def backward(self, at: LayerPass, delta: Array) -> tuple[list[Operation], Array]:
        """Sum the embedded columns of the derivative into the gradient of the rows looked up."""
        if not at.trains("weight"):
            return [], delta
        column = width_of(at.place.inputs) - at.first_column
        return [self._kernel(at, "embed_gradient", {"delta": delta, "column": column})], delta

    def _kernel(self, at: LayerPass, name: str, others: Mapping[str, Any] | None = None) -> Kernel:
        bag, trains = at.bag, at.trains("weight")
        constants = {
            "GRADIENT": trains,
            "MAX": self.reduce == "max",
            "MEAN": self.reduce == "mean",
            "SHUFFLED": bag.order is not None,
            "WEIGHTED": bag.weights is not None,
        }
        arguments = {
            "ids": bag.ids,
            "starts": bag.starts,
            "id_weights": bag.weights,
            "order": bag.order,
            "counters": at.inputs.counters,
            "batch_size": at.capacity,
            "table": at.value("weight"),
            "totals": at.exact_buffer("totals", (), at.dtype),
            "partial": at.scratch("partial", self.width, at.dtype),
            **(self._gradient_arguments(at) if trains else {}),
            **(others or {}),
        }
        return at.kernel(name, {}, constants, arguments)

    def _gradient_arguments(self, at: LayerPass) -> dict[str, Any]:
        """Return the arrays of the gradient, and those that group equal ids (on a GPU by sorting)."""
        rows = at.row_gradient("weight")
        tokens, most = at.most_tokens, rows.gradient.shape[0]
        sizes = {"slots": self.size, "run_starts": most + 1}
        sizes |= dict.fromkeys(("places", "owners", "offsets", "runs"), tokens)
        arrays = {name: at.scratch(name, size, np.int32) for name, size in sizes.items()}
        peaks = at.exact_buffer("peaks", (self.width,), np.int32) if self.reduce == "max" else None
        return {**arrays, "peaks": peaks, **rows.arguments()}

    def shape_in_words(self, before: str, after: str) -> str:
        return f"{self.size:,} × {self.width:,}"

    def describe(self) -> str:
        return f"{self.reduce} of {self.size:,} × {self.width}"

    def title(self) -> str:
        return f"Embedding, {self.reduce}"
