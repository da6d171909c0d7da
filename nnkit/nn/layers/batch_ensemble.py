"""BatchEnsemble: the dense layers of an ensemble's members, which share their weights but for scales."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from nnkit.backends.operations import Array, Operation, Product
from nnkit.checks import Whole
from nnkit.engine.layer_pass import LayerPass
from nnkit.engine.places import Parameter, Shape, width_of
from nnkit.errors import ConfigError
from nnkit.kernels import philox
from nnkit.kernels.layout import WEIGHTS
from nnkit.nn.initializers import initialize
from nnkit.nn.layers.base import Drawn, Layer
from nnkit.nn.layers.dense import Dense
from nnkit.nn.layers.pointwise import pointwise_backward, pointwise_forward

__all__ = ["BatchEnsemble"]


@dataclass(frozen=True)
class BatchEnsemble(Dense):
    """``activation(((X ∘ r) @ W) ∘ s + b)`` for each member, with scales r and s and a bias b of its own.

    Wen et al. 2020, "BatchEnsemble", arXiv:2002.06715. These are the hidden layers of TabM (Gorishniy et al.
    2024, arXiv:2410.24210), whose outputs are an `Ensemble` of `Dense`; they begin as TabM's: the first
    layer, which gives the same inputs to all members, with random signs as r, all other scales with ones.

    Rows of the outputs have shape (members, units). Weight decay does not apply to scales.

    Parameters
    ----------
    units, activation, bias
        As for `Dense`.
    initializer : str, mapping or None
        The distribution of W. None draws W and b uniformly within ±1 / √inputs; all members begin with the
        same b.
    members : int
        The number of members, at least 2, that of the `Ensemble` at the end.
    """

    members: int = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "members", Whole(2, 1024)("BatchEnsemble: members", self.members))

    def parameters(self, shape: Shape) -> Mapping[str, Parameter]:
        width = self._width(shape)
        found = {
            "weight": Parameter((width, self.units), "weight", decays=True),
            "input_scale": Parameter((self.members, width), "scale", decays=False),
            "output_scale": Parameter((self.members, self.units), "scale", decays=False),
        }
        bias = {"bias": Parameter((self.members, self.units), "bias", decays=False)} if self.bias else {}
        return found | bias

    def output_shape(self, shape: Shape) -> Shape:
        return (self.members, self.units)

    def draw(self, shape: Shape, seed: int, number: int, dtype: DTypeLike) -> Iterator[Drawn]:
        width = self._width(shape)
        chosen = self.initializer or "fan_in_uniform"
        yield "weight", 0, initialize(chosen, width, self.units, seed, number, dtype)
        yield "output_scale", 0, np.ones((self.members, self.units), dtype)
        scale = np.ones((self.members, width), dtype)
        after = -(-width * self.units // 4)  # the generator returns four numbers at a time
        if self._is_shared(shape):
            drawn = philox.uniform(seed, scale.size, number, 0, WEIGHTS, first=after)
            scale[drawn.reshape(scale.shape) < 0.5] = -1
        yield "input_scale", 0, scale
        if self.bias and self.initializer is None:
            drawn = philox.uniform(seed, self.units, number, 0, WEIGHTS, first=after + scale.size)
            yield "bias", 0, np.tile((2 * drawn - 1) / np.sqrt(width), (self.members, 1)).astype(dtype)

    def _is_shared(self, shape: Shape) -> bool:
        """Whether rows of a shape are inputs of all members."""
        return not (len(shape) == 2 and shape[0] == self.members)

    def _width(self, shape: Shape) -> int:
        """Return the inputs of one member."""
        return width_of(shape) if self._is_shared(shape) else shape[1]

    def reading_numbers(self, numbers: Any) -> Layer | None:
        return None  # each member scales the shares by itself

    def forward(self, at: LayerPass, x: Array) -> tuple[list[Operation], Array]:
        if at.padded(self.units) != self.units:
            raise ConfigError(
                f"BatchEnsemble: units = {self.units} must be a multiple of 8 in 16 bits; or use fp32"
            )
        scaled, product = self._scaled(at), self._product(at)
        z = at.buffer("z", at.width)
        inner = {"x": self._rows(at), "scale": at.value("input_scale"), "out": self._filled(at, scaled)}
        outer = {"x": product, "scale": at.value("output_scale"), "out": self._by_member(at, z)}
        bias = {"bias": at.value("bias")} if self.bias else {}
        pointwise, a = pointwise_forward(at, z, self.activation, self.dropout)
        return [
            at.kernel("scale_members", {}, {"SHARED": self._is_shared(at.place.inputs)}, inner),
            Product(scaled, at.factor("weight"), product),
            at.kernel("scale_members", {}, {"BIAS": self.bias}, {**outer, **bias}),
            *pointwise,
        ], a

    def backward(self, at: LayerPass, delta: Array) -> tuple[list[Operation], Array]:
        operations = pointwise_backward(at, delta, self.activation, self.dropout)
        by_product, scaled = self._by_member(at, delta), self._scaled(at)
        operations.append(self._unscaled(at, "output_scale", by_product, self._product(at), self.bias))
        if at.wants_parameters:
            weight_gradient = at.gradient("weight")
            operations.append(Product(self._filled(at, scaled).T, by_product, weight_gradient))
        if not at.wants_input_gradient and not at.trains("input_scale"):
            return operations, delta
        below = at.take(scaled.size // at.rows)
        by_scaled = self._by_member(at, below)
        operations.append(Product(by_product, at.factor("weight").T, by_scaled))
        operations.append(self._unscaled(at, "input_scale", self._filled(at, by_scaled), self._rows(at)))
        if not self._is_shared(at.place.inputs):
            return operations, below
        if at.wants_input_gradient:
            onto = at.input_gradient()
            columns = slice(None) if at.embedded_columns is None else at.embedded_columns
            operations.append(at.kernel("sum_members", {}, {}, {"x": by_scaled[:, columns], "out": onto}))
        at.release(below)
        return operations, onto if at.wants_input_gradient else delta

    def _unscaled(self, at: LayerPass, scale: str, delta: Array, x: Array, bias: bool = False) -> Operation:
        """Return what goes back through a scale, and the bias after it."""
        arguments = {"delta": delta, "x": x, "scale": at.value(scale), "scale_gradient": at.gradient(scale)}
        if bias:
            arguments["bias_gradient"] = at.gradient("bias")
        shared = scale == "input_scale" and self._is_shared(at.place.inputs)
        return at.kernel("scale_members_gradient", {}, {"BIAS": bias, "SHARED": shared}, arguments)

    # Arrays with a row for each member of each row of the batch.

    def _by_member(self, at: LayerPass, array: Array) -> Array:
        return array.reshape(at.rows * self.members, -1)

    def _scaled(self, at: LayerPass) -> Array:
        """Return the array of the scaled inputs, each member's with padding."""
        width = self.members * at.padded(self._width(at.place.inputs))
        return self._by_member(at, at.buffer("scaled", width))

    def _product(self, at: LayerPass) -> Array:
        return self._by_member(at, at.buffer("product", at.width))

    def _filled(self, at: LayerPass, array: Array) -> Array:
        """Return such an array without its padding."""
        return at.cut(array, self._width(at.place.inputs))

    def _rows(self, at: LayerPass) -> Array:
        """Return the inputs: a row for all members, or for each."""
        if self._is_shared(at.place.inputs):
            return self._filled(at, at.x)
        return self._by_member(at, at.x)

    def shape_in_words(self, before: str, after: str) -> str:
        return f"{before} → {after}"

    def describe(self) -> str:
        return f"{self.members} × {super().describe()}"

    def title(self) -> str:
        return super().title().replace("Dense", "BatchEnsemble", 1)
