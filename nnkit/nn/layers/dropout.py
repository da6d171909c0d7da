"""Dropout: zero some of the inputs at random while training."""

from __future__ import annotations

from dataclasses import dataclass

from nnkit.backends.operations import Array, Operation
from nnkit.checks import Number
from nnkit.engine.layer_pass import LayerPass
from nnkit.nn.layers.base import Layer
from nnkit.nn.layers.pointwise import pointwise_backward, pointwise_forward

__all__ = ["Dropout"]


@dataclass(frozen=True)
class Dropout(Layer):
    """Zero each input with probability `rate` while training, and scale the others by 1 / (1 − rate).

    Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting".
    """

    rate: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate", Number(0, below=1)("Dropout: rate", self.rate))

    @property
    def dropout(self) -> float:
        return self.rate

    @property
    def does_nothing(self) -> bool:
        return self.rate == 0

    def forward(self, at: LayerPass, x: Array) -> tuple[list[Operation], Array]:
        return pointwise_forward(at, x, "identity", self.rate)

    def backward(self, at: LayerPass, delta: Array) -> tuple[list[Operation], Array]:
        return pointwise_backward(at, delta, "identity", self.rate), delta

    def describe(self) -> str:
        return f"dropout {self.rate:g}"

    def title(self) -> str:
        return f"Dropout, {self.rate:g}"
