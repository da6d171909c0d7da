"""What every layer is: a frozen description that serialises as it stands, and says what it computes."""

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
from nnkit.feed.statistics import Statistics

__all__ = ["Drawn", "Layer"]

Drawn = tuple[str, int, NDArray[np.floating]]
"""A parameter's name, the first of some of its rows, and their values."""


@dataclass(frozen=True)
class Layer:
    """A layer of a network.

    A kind of layer is one file: its description, the parameters that it needs for rows of a shape, its
    forward and its backward operations side by side, and how it is shown.
    """

    bags: ClassVar[int] = 0
    """How many of a row's bags of ids it reads; such layers stand first in a network."""
    activates: ClassVar[bool] = False
    """Whether its outputs are those of units: of an activation, be it the identity."""

    @property
    def activation(self) -> str:
        """The name of the activation that its outputs have gone through."""
        return "identity"

    @property
    def dropout(self) -> float:
        """The share of its outputs that is zeroed at random while training."""
        return 0.0

    @property
    def does_nothing(self) -> bool:
        """Whether a network may leave it out."""
        return False

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Of a container: the layers in it."""
        return ()

    def parameters(self, shape: Shape) -> Mapping[str, Parameter]:
        """Return its parameters by name, for rows of a shape.

        Raises
        ------
        ConfigError
            If the layer cannot take rows of that shape.
        """
        return {}

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of its outputs, for rows of a shape."""
        return shape

    def check_bags(self, number: int, bags: Bags) -> None:
        """Raise `DataError` unless a layer that reads bags can read such, the data's of that number."""

    def draw(self, shape: Shape, seed: int, number: int, dtype: DTypeLike) -> Iterator[Drawn]:
        """Yield initial values of its parameters; what is left out begins at zero.

        Parameters
        ----------
        shape : tuple of int
            Of its inputs' rows.
        seed, number : int
            The draws are a function of both; `number` tells the layers of a network apart.
        dtype : dtype
            Of the values.
        """
        yield from ()

    def prepared(self, statistics: Statistics) -> Layer:
        """Return the layer as it is once statistics of the training rows are known.

        It is asked once, before its parameters are drawn, and what it returns is what a model file keeps.
        """
        return self

    def fused(self, after: Layer) -> Layer | None:
        """Return one layer that computes this one and the next, or None where there is none."""
        return None

    def forward(self, at: LayerPass, x: Array) -> tuple[list[Operation], Array]:
        """Return the operations that compute its outputs from its inputs, and the array of the outputs."""
        raise NotImplementedError

    def backward(self, at: LayerPass, delta: Array) -> tuple[list[Operation], Array]:
        """Return the operations from the derivative by its outputs to that by its inputs, and its array.

        They also compute the gradients of its parameters. `delta` may be changed in place and returned.
        """
        raise NotImplementedError

    def describe(self) -> str:
        """Return the layer in a word or two, as in ``128 relu``."""
        return type(self).__name__

    def title(self) -> str:
        """Return the layer's name in a table of layers, as in ``Dense, relu``."""
        return type(self).__name__

    def shape_in_words(self, before: str, after: str) -> str:
        """Return what a table of layers shows of its shapes; those of its rows are given in words."""
        return before if before == after else f"{before} → {after}"

    def to_json(self) -> dict[str, Any]:
        """Return the description as JSON."""
        shown = [field.name for field in fields(self) if field.repr]
        return {"kind": type(self).__name__, **{name: getattr(self, name) for name in shown}}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], read: Callable[[Mapping[str, Any]], Layer]) -> Layer:
        """Return the layer of such a description, its kind left out; `read` returns a layer in it."""
        return cls(**values)
