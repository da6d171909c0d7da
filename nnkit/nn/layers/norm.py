"""LayerNorm: each row standardised, then each feature scaled and shifted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from nnkit.backends.operations import Array, Operation
from nnkit.checks import Flag, Number
from nnkit.engine.layer_pass import LayerPass
from nnkit.engine.places import Parameter, Shape, width_of
from nnkit.errors import ConfigError
from nnkit.nn.layers.base import Drawn, Layer

__all__ = ["LayerNorm"]


@dataclass(frozen=True)
class LayerNorm(Layer):
    """``(x − mean) / √(variance + epsilon) · weight + bias``, with the mean and variance of the row.

    Ba, Kiros and Hinton 2016, "Layer normalization", arXiv:1607.06450.

    Parameters
    ----------
    epsilon : float
        Greater than 0; it keeps a row of equal numbers finite.
    bias : bool
        Whether there is a bias. Weights begin at one and biases at zero; weight decay applies to neither.
    """

    epsilon: float = 1e-5
    bias: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "epsilon", Number(above=0)("LayerNorm: epsilon", self.epsilon))
        Flag()("LayerNorm: bias", self.bias)

    def parameters(self, shape: Shape) -> Mapping[str, Parameter]:
        weight, bias = (Parameter((width_of(shape),), role, decays=False) for role in ("scale", "bias"))
        return {"weight": weight, "bias": bias} if self.bias else {"weight": weight}

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) > 1:
            raise ConfigError(
                f"LayerNorm takes rows of one dimension, not of shape {shape}: it would mix the members of "
                "an ensemble; put it inside the Ensemble"
            )
        return shape

    def draw(self, shape: Shape, seed: int, number: int, dtype: DTypeLike) -> Iterator[Drawn]:
        yield "weight", 0, np.ones(width_of(shape), dtype)

    def forward(self, at: LayerPass, x: Array) -> tuple[list[Operation], Array]:
        out = at.buffer("out", at.width, at.output_dtype)
        arguments = {"out": at.cut(out), "epsilon": self.epsilon, **self._arguments(at)}
        return [at.kernel("layer_norm", {}, {"BIAS": self.bias, "GRADIENT": at.training}, arguments)], out

    def backward(self, at: LayerPass, delta: Array) -> tuple[list[Operation], Array]:
        gradients = {f"{name}_gradient": at.gradient(name) for name in self.parameters(at.place.inputs)}
        arguments = {"delta": at.cut(delta), **gradients, **self._arguments(at)}
        return [at.kernel("layer_norm_gradient", {}, {"BIAS": self.bias}, arguments)], delta

    def _arguments(self, at: LayerPass) -> dict[str, Array]:
        """Return the arguments of both passes: the inputs, the parameters and the statistics of the rows."""
        statistics = {name: at.exact_buffer(name, (), at.dtype) for name in ("mean", "inverse")}
        parameters = {name: at.value(name) for name in self.parameters(at.place.inputs)}
        return {"x": at.cut(at.x), **parameters, **statistics}

    def describe(self) -> str:
        return "layer norm"
