"""The base class of layers: a frozen description that is serialised as JSON, with its operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nnkit.backends.operations import Array, Operation
from nnkit.engine.layer_pass import LayerPass
from nnkit.engine.places import Parameter, Shape
from nnkit.feed.features import Bags
from nnkit.feed.statistics import RowStatistics

__all__ = ["Drawn", "Layer"]

Drawn = tuple[str, int, NDArray[np.floating]]
"""A parameter's name, the number of the first row, and the values of a block of rows."""


@dataclass(frozen=True)
class Layer:
    """A layer of a network.

    A kind of layer is one file: its description, its parameters, its forward and its backward operations side
    by side, and its texts.
    """

    bags: ClassVar[int] = 0
    """The number of a row's bags of ids that it reads; such layers come first in a network."""
    activates: ClassVar[bool] = False
    """Whether its outputs are activations of units, the identity included."""

    @property
    def activation(self) -> str:
        """The name of the activation of its outputs."""
        return "identity"

    @property
    def dropout(self) -> float:
        """The probability that an output is set to zero while training."""
        return 0.0

    @property
    def does_nothing(self) -> bool:
        """Whether a network may leave it out."""
        return False

    @property
    def layers(self) -> tuple[Layer, ...]:
        """For a container: the layers in it."""
        return ()

    @property
    def copies(self) -> int:
        """For a container: how many copies of its layers, each with its own parameters, run side by side."""
        return 1

    def inner_shape(self, shape: Shape) -> Shape:
        """For a container: return the shape of the rows that its first layer reads."""
        return shape

    def parameters(self, shape: Shape) -> Mapping[str, Parameter]:
        """Return its parameters by name, for rows of a shape.

        Raises
        ------
        ConfigError
            If the layer does not accept rows of that shape.
        """
        return {}

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of its outputs, for rows of a shape."""
        return shape

    def first_copied(self, shape: Shape) -> int | None:
        """Return the output at which those begin that depend on one input each, in the inputs' order.

        None if there are none. Other outputs may stand before and after them.
        """
        mixes = any(parameter.role == "weight" for parameter in self.parameters(shape).values())
        return None if mixes or self.layers else 0

    def check_bags(self, number: int, bags: Bags) -> None:
        """Raise `DataError` unless the layer can read the data's bags with this number."""

    def check_link(self, link: str) -> None:
        """Raise `ConfigError` unless its outputs, the network's, are for a loss with this link."""

    def draw(self, shape: Shape, seed: int, number: int, dtype: DTypeLike) -> Iterator[Drawn]:
        """Yield the initial values of its parameters, by default zeros, for rows of a shape.

        The draws are a function of `seed` and `number`, which differs between the layers of a network.
        """
        yield from ()

    def prepared(self, statistics: RowStatistics) -> Layer:
        """Return the layer adapted to statistics of the training rows; a model file keeps the result.

        Called once, before the parameters are drawn.
        """
        return self

    def fused(self, after: Layer) -> Layer | None:
        """Return one layer that computes this one and the next, or None if there is none."""
        return None

    def reading_numbers(self, numbers: Any) -> Layer | None:
        """Return this layer with the `PiecewiseLinear` before it fused into it, or None if it cannot be."""
        return None

    def forward(self, at: LayerPass, x: Array) -> tuple[list[Operation], Array]:
        """Return the operations from its inputs to its outputs, and the array of the outputs."""
        raise NotImplementedError

    def backward(self, at: LayerPass, delta: Array) -> tuple[list[Operation], Array]:
        """Return the operations of the backward pass, and the array of the inputs' derivative.

        `delta` is the outputs' derivative; it may be changed in place and returned. The operations also
        compute the gradients of the layer's parameters.
        """
        raise NotImplementedError

    def describe(self) -> str:
        """Return a short text such as ``128 relu``."""
        return type(self).__name__

    def title(self) -> str:
        """Return its name in a table of layers, such as ``Dense, relu``."""
        return type(self).__name__

    def shape_in_words(self, before: str, after: str) -> str:
        """Return its shape for a table of layers, from the texts of its rows' shapes."""
        return before if before == after else f"{before} → {after}"

    def to_json(self) -> dict[str, Any]:
        """Return the description as JSON."""
        shown = [field.name for field in fields(self) if field.repr]
        return {"kind": type(self).__name__, **{name: getattr(self, name) for name in shown}}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], read: Callable[[Mapping[str, Any]], Layer]) -> Layer:
        """Return the layer of a JSON description without its kind; `read` reads a layer inside it."""
        return cls(**values)
