"""Scale: each input times a factor that is learnt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from nnkit.backends.operations import Array, Operation
from nnkit.checks import Number
from nnkit.engine.layer_pass import LayerPass
from nnkit.engine.places import Parameter, Shape, width_of
from nnkit.nn.layers.base import Drawn, Layer

__all__ = ["Scale"]


@dataclass(frozen=True)
class Scale(Layer):
    """``x · weight``, column by column: in front of a network, a soft selection of its inputs.

    RealMLP's, which gives it six times the learning rate: Holzmüller et al. 2024 (arXiv:2407.04491).

    Parameters
    ----------
    rate : float
        The factor of the learning rate. Weights begin at one; weight decay does not apply.
    """

    rate: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate", Number(above=0)("Scale: rate", self.rate))

    def parameters(self, shape: Shape) -> Mapping[str, Parameter]:
        return {"weight": Parameter((width_of(shape),), "scale", decays=False, rate=self.rate)}

    def draw(self, shape: Shape, seed: int, number: int, dtype: DTypeLike) -> Iterator[Drawn]:
        yield "weight", 0, np.ones(width_of(shape), dtype)

    def forward(self, at: LayerPass, x: Array) -> tuple[list[Operation], Array]:
        out = at.buffer("out", at.width, at.output_dtype)
        arguments = {"x": at.cut(x), "weight": at.value("weight"), "out": at.cut(out)}
        return [at.kernel("scale_columns", {}, {}, arguments)], out

    def backward(self, at: LayerPass, delta: Array) -> tuple[list[Operation], Array]:
        parameters = {"weight": at.value("weight"), "weight_gradient": at.gradient("weight")}
        arguments = {"x": at.cut(at.x), "delta": at.cut(delta), **parameters}
        return [at.kernel("scale_columns_gradient", {}, {}, arguments)], delta

    def describe(self) -> str:
        return "scale"
