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
    # Neighbours that the network fuses into this layer: the rate of a following `Dropout`, and a preceding
    # `PiecewiseLinear`, whose shares it looks up.
    dropout: float = field(default=0.0, init=False, repr=False)
    numbers: Any = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "units", Whole(1)(f"{type(self).__name__}: units", self.units))
        Flag()(f"{type(self).__name__}: bias", self.bias)  # it becomes a constant of the generated source
        activation_function(self.activation)
        if self.initializer is not None:
            initializer_from(self.initializer)

    def parameters(self, shape: Shape) -> Mapping[str, Parameter]:
        weight = Parameter((self._weight_rows(shape), self.units), "weight", decays=True)
        bias = Parameter((self.units,), "bias", decays=False)
        return {"weight": weight, "bias": bias} if self.bias else {"weight": weight}

    def _weight_rows(self, shape: Shape) -> int:
        """Return the number of rows of W."""
        return width_of(shape if self.numbers is None else self.numbers.output_shape(shape))

    def output_shape(self, shape: Shape) -> Shape:
        return (self.units,)

    def draw(self, shape: Shape, seed: int, number: int, dtype: DTypeLike) -> Iterator[Drawn]:
        chosen = self.initializer or default_initializer(self.activation)
        yield "weight", 0, initialize(chosen, self._weight_rows(shape), self.units, seed, number, dtype)

    def fused(self, after: Layer) -> Layer | None:
        if self.dropout or not isinstance(after, Activation | Dropout):
            return None
        if isinstance(after, Activation):
            return self._with(activation=after.name) if self.activation == "identity" else None
        return self._with(dropout=after.rate)

    def reading_numbers(self, numbers: Any) -> Layer | None:
        return self._with(numbers=numbers)

    def _with(self, **changed: Any) -> Dense:
        """Return the layer with other values, of fields that only fusing sets too."""
        copy = replace(self)
        for name, value in {"dropout": self.dropout, "numbers": self.numbers, **changed}.items():
            object.__setattr__(copy, name, value)
        return copy

    def forward(self, at: LayerPass, x: Array) -> tuple[list[Operation], Array]:
        z = at.buffer("z", self.units, at.output_dtype)
        if self.numbers is None:
            operations: list[Operation] = [Product(x, at.factor("weight"), z)]
        else:
            inputs = width_of(at.place.inputs)
            x, of_bins = at.cut(x, inputs), at.value("weight")[inputs:]
            operations = [Product(x, at.factor("weight")[:inputs], z)]
            operations += self.numbers.forward_lookup(at, x, of_bins, at.cut(z))
        if self._leaves_bias_to_loss(at):
            at.deferred_bias = "bias"
            return operations, z
        bias = "bias" if self.bias else None
        pointwise, a = pointwise_forward(at, z, self.activation, self.dropout, bias, at.output_dtype)
        return [*operations, *pointwise], a

    def backward(self, at: LayerPass, delta: Array) -> tuple[list[Operation], Array]:
        operations: list[Operation] = []
        inputs = width_of(at.place.inputs)
        if not self._leaves_bias_to_loss(at):
            bias = "bias" if self.bias else None
            operations += pointwise_backward(at, delta, self.activation, self.dropout, bias)
        if at.wants_parameters:
            gradient = at.gradient("weight")
            operations.append(Product(at.cut(at.x, inputs).T, at.cut(delta), gradient[:inputs]))
            if self.numbers is not None:
                operations.append(self.numbers.backward_lookup(at, at.cut(delta), gradient[inputs:]))
        if not at.wants_input_gradient:
            return operations, delta
        onto = at.input_gradient()
        weight = at.factor("weight")
        if self.numbers is None or at.embedded_columns is not None:
            # None: all columns of the inputs need a gradient.
            weight = weight if at.embedded_columns is None else weight[at.embedded_columns]
            return [*operations, Product(delta, weight.T, onto)], onto
        rows = self._weight_rows(at.place.inputs)
        of_shares = at.take(rows - inputs)
        operations += [
            Product(delta, weight[:inputs].T, at.cut(onto, inputs)),
            Product(delta, weight[inputs:rows].T, at.cut(of_shares, rows - inputs)),
            self.numbers.backward_shares(at, at.cut(of_shares, rows - inputs), onto),
        ]
        at.release(of_shares)
        return operations, onto

    def _leaves_bias_to_loss(self, at: LayerPass) -> bool:
        plain = self.activation == "identity" and not (at.drops and self.dropout)
        return self.bias and plain and at.loss_adds_bias

    def shape_in_words(self, before: str, after: str) -> str:
        return f"{before} → {after}"

    def describe(self) -> str:
        return f"{self.units}" if self.activation == "identity" else f"{self.units} {self.activation}"

    def title(self) -> str:
        return "Dense" if self.activation == "identity" else f"Dense, {self.activation}"
