"""Dense: ``activation(X @ W + b)``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from numpy.typing import DTypeLike

from nnkit.backends.operations import Array, Operation, Product
from nnkit.checks import Flag, Whole
from nnkit.engine.layer_pass import LayerPass
from nnkit.engine.places import Parameter, Shape, width_of
from nnkit.nn.activations import activation_function
from nnkit.nn.initializers import default_initializer, initialize, initializer_from
from nnkit.nn.layers.activation import Activation
from nnkit.nn.layers.base import Drawn, Layer
from nnkit.nn.layers.dropout import Dropout
from nnkit.nn.layers.pointwise import pointwise_backward, pointwise_forward

__all__ = ["Dense"]


@dataclass(frozen=True)
class Dense(Layer):
    """``activation(X @ W + b)``: X is (samples, inputs), W (inputs, units), b (units,).

    Parameters
    ----------
    units : int
        The number of outputs.
    activation : str
        A registered activation.
    initializer : str, mapping or None
        The distribution of the initial W, such as ``{"name": "normal", "std": 0.02}``. None selects He's for
        the ReLU family and Glorot's for all others. Biases begin at zero.
    bias : bool
        Whether there is a b.
    """

    activates: ClassVar[bool] = True

    units: int
    activation: str = "identity"
    initializer: str | Mapping[str, Any] | None = None
    bias: bool = True
    # The rate of a following `Dropout`, which the network fuses into the same kernel.
    dropout: float = field(default=0.0, init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "units", Whole(1)("Dense: units", self.units))
        Flag()("Dense: bias", self.bias)  # it becomes a constant of the generated source
        activation_function(self.activation)
        if self.initializer is not None:
            initializer_from(self.initializer)

    def parameters(self, shape: Shape) -> Mapping[str, Parameter]:
        weight = Parameter((width_of(shape), self.units), "weight", decays=True)
        bias = Parameter((self.units,), "bias", decays=False)
        return {"weight": weight, "bias": bias} if self.bias else {"weight": weight}

    def output_shape(self, shape: Shape) -> Shape:
        return (self.units,)

    def draw(self, shape: Shape, seed: int, number: int, dtype: DTypeLike) -> Iterator[Drawn]:
        chosen = self.initializer or default_initializer(self.activation)
        yield "weight", 0, initialize(chosen, width_of(shape), self.units, seed, number, dtype)

    def fused(self, after: Layer) -> Layer | None:
        if self.dropout or not isinstance(after, Activation | Dropout):
            return None
        if isinstance(after, Activation):
            return replace(self, activation=after.name) if self.activation == "identity" else None
        fused = replace(self)
        object.__setattr__(fused, "dropout", after.rate)
        return fused

    def forward(self, at: LayerPass, x: Array) -> tuple[list[Operation], Array]:
        z = at.buffer("z", self.units, at.output_dtype)
        product = Product(x, at.factor("weight"), z)
        if self._leaves_bias_to_loss(at):
            at.deferred_bias = "bias"
            return [product], z
        bias = "bias" if self.bias else None
        pointwise, a = pointwise_forward(at, z, self.activation, self.dropout, bias, at.output_dtype)
        return [product, *pointwise], a

    def backward(self, at: LayerPass, delta: Array) -> tuple[list[Operation], Array]:
        operations: list[Operation] = []
        if not self._leaves_bias_to_loss(at):
            bias = "bias" if self.bias else None
            operations += pointwise_backward(at, delta, self.activation, self.dropout, bias)
        if at.wants_parameters:
            x = at.cut(at.x, width_of(at.place.inputs))
            operations.append(Product(x.T, at.cut(delta), at.gradient("weight")))
        if not at.wanted:
            return operations, delta
        onto = at.input_gradient()
        weight = at.factor("weight")
        weight = weight if at.embedded is None else weight[at.embedded]
        return [*operations, Product(delta, weight.T, onto)], onto

    def _leaves_bias_to_loss(self, at: LayerPass) -> bool:
        plain = self.activation == "identity" and not (at.drops and self.dropout)
        return self.bias and plain and at.loss_adds_bias

    def shape_in_words(self, before: str, after: str) -> str:
        return f"{before} → {after}"

    def describe(self) -> str:
        return f"{self.units}" if self.activation == "identity" else f"{self.units} {self.activation}"

    def title(self) -> str:
        return "Dense" if self.activation == "identity" else f"Dense, {self.activation}"
