"""Activation: a registered function, applied element by element."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from nnkit.backends.operations import Array, Operation
from nnkit.engine.layer_pass import LayerPass
from nnkit.nn.activations import activation_function
from nnkit.nn.layers.base import Layer
from nnkit.nn.layers.dropout import Dropout
from nnkit.nn.layers.pointwise import pointwise_backward, pointwise_forward

__all__ = ["Activation"]


@dataclass(frozen=True)
class Activation(Layer):
    """Apply a registered activation to each input."""

    activates: ClassVar[bool] = True

    name: str
    # The rate of a following `Dropout`, which the network fuses into the same kernel.
    dropout: float = field(default=0.0, init=False, repr=False)

    def __post_init__(self) -> None:
        activation_function(self.name)

    @property
    def activation(self) -> str:
        return self.name

    def fused(self, after: Layer) -> Layer | None:
        if self.dropout or not isinstance(after, Dropout):
            return None
        fused = replace(self)
        object.__setattr__(fused, "dropout", after.rate)
        return fused

    def forward(self, at: LayerPass, x: Array) -> tuple[list[Operation], Array]:
        return pointwise_forward(at, x, self.name, self.dropout)

    def backward(self, at: LayerPass, delta: Array) -> tuple[list[Operation], Array]:
        return pointwise_backward(at, delta, self.name, self.dropout), delta

    def describe(self) -> str:
        return self.name

    def title(self) -> str:
        return f"Activation, {self.name}"
