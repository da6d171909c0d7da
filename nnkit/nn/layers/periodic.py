"""Periodic: each number as sums of waves whose frequencies are learnt, beside itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import pi, prod, sqrt
from typing import Any

from numpy.typing import DTypeLike

from nnkit.backends.operations import Array, Operation
from nnkit.checks import Number, Whole
from nnkit.engine.layer_pass import LayerPass
from nnkit.engine.places import Parameter, Shape, width_of
from nnkit.errors import ConfigError
from nnkit.feed.statistics import RowStatistics
from nnkit.kernels import philox
from nnkit.kernels.formulas import identity_derivative
from nnkit.kernels.layout import WEIGHTS
from nnkit.nn.layers.base import Drawn, Layer

__all__ = ["Periodic"]


@dataclass(frozen=True)
class Periodic(Layer):
    """``cos(2πx · frequency + phase) · weight + bias`` for each number x of a row, then the row as it is.

    RealMLP's numeric embedding PBLD (periodic, bias, linear, DenseNet): Holzmüller et al. 2024
    (arXiv:2407.04491). The outputs are, for each number in turn, its `width` − 1 sums of waves, and then all
    inputs. Inputs that are not numbers come after the numbers.

    Parameters
    ----------
    frequencies : int
        The number of waves of each number.
    width : int
        The numbers in place of one, itself included.
    std : float
        The standard deviation of the initial frequencies. Phases begin uniform in [−π, π], weights and biases
        in ±1/√frequencies.
    columns : int, optional
        How many of the inputs are numbers; by default as many as the training rows have, or all.
    """

    frequencies: int = 16
    width: int = 4
    std: float = 0.1
    columns: int | None = None

    def __post_init__(self) -> None:
        checks = {"frequencies": Whole(1), "width": Whole(2), "std": Number(above=0)}
        for name, check in checks.items():
            object.__setattr__(self, name, check(f"Periodic: {name}", getattr(self, name)))
        if self.columns is not None:
            object.__setattr__(self, "columns", Whole(0)("Periodic: columns", self.columns))

    @property
    def does_nothing(self) -> bool:
        return self.columns == 0

    def prepared(self, statistics: RowStatistics) -> Layer:
        return replace(self, columns=statistics.columns) if self.columns is None else self

    def parameters(self, shape: Shape) -> Mapping[str, Parameter]:
        columns, lines = self._columns(shape), self.width - 1
        return {
            "frequency": Parameter((columns, self.frequencies), "weight", decays=True),
            "phase": Parameter((columns, self.frequencies), "bias", decays=False),
            "weight": Parameter((columns, lines, self.frequencies), "weight", decays=True),
            "bias": Parameter((columns, lines), "bias", decays=False),
        }

    def first_copied(self, shape: Shape) -> int | None:
        return self._columns(shape) * (self.width - 1)

    def output_shape(self, shape: Shape) -> Shape:
        return (self._columns(shape) * (self.width - 1) + width_of(shape),)

    def _columns(self, shape: Shape) -> int:
        return width_of(shape) if self.columns is None else self.columns

    def draw(self, shape: Shape, seed: int, number: int, dtype: DTypeLike) -> Iterator[Drawn]:
        if self._columns(shape) > width_of(shape):
            embeds = f"Periodic embeds {self.columns} numbers, and a row has {width_of(shape)} inputs"
            raise ConfigError(f"{embeds}; put it first, or give it another number of columns")
        bounds = {"phase": pi, "weight": 1 / sqrt(self.frequencies), "bias": 1 / sqrt(self.frequencies)}
        for which, (name, parameter) in enumerate(self.parameters(shape).items()):
            draw = philox.normal if name == "frequency" else philox.uniform
            drawn = draw(seed, prod(parameter.shape), number, which, WEIGHTS)
            values = self.std * drawn if name == "frequency" else bounds[name] * (2 * drawn - 1)
            yield name, 0, values.reshape(parameter.shape).astype(dtype)

    def forward(self, at: LayerPass, x: Array) -> tuple[list[Operation], Array]:
        out = at.buffer("out", at.width, at.output_dtype)
        given = {"out": at.cut(out), "bias": at.value("bias").reshape(-1), **self._arguments(at)}
        return [at.kernel("periodic", {}, {}, given)], out

    def backward(self, at: LayerPass, delta: Array) -> tuple[list[Operation], Array]:
        given = {"delta": at.cut(delta), **self._arguments(at)}
        operations = self._gradients(at, given) if at.wants_parameters else []
        if not at.wants_input_gradient:
            return operations, delta
        onto = at.input_gradient()
        columns = at.embedded_columns or slice(0, width_of(at.place.inputs))
        width = columns.stop - columns.start
        by_inputs = {"onto": at.cut(onto, width), "first": columns.start, **given}
        return [*operations, at.kernel("periodic_inputs", {}, {}, by_inputs)], onto

    def _gradients(self, at: LayerPass, given: Mapping[str, Any]) -> list[Operation]:
        names = self.parameters(at.place.inputs)
        gradients = {f"{name}_gradient": at.gradient(name).reshape(-1) for name in names}
        # The biases' as those of a layer without an activation.
        lines = slice(0, len(gradients["bias_gradient"]))
        out = at.cut(at.buffer("out", at.width, at.output_dtype))
        sums = {"delta": given["delta"][:, lines], "a": out[:, lines], **gradients}
        formulas = {"activation_derivative": identity_derivative}
        return [
            at.kernel("backward", formulas, {"BIAS": True, "DROPOUT": False, "FROM_Z": False}, sums),
            at.kernel("periodic_gradient", {}, {}, {**given, **gradients}),
        ]

    def _arguments(self, at: LayerPass) -> dict[str, Any]:
        """Return what all three kernels read, and room for the waves of a number and their derivatives."""
        flat = {name: at.value(name).reshape(-1) for name in ("frequency", "phase", "weight")}
        waves = at.scratch("waves", 2 * self.frequencies, at.dtype)
        x = at.cut(at.x, width_of(at.place.inputs))
        return {"x": x, "columns": self._columns(at.place.inputs), "waves": waves, **flat}

    def shape_in_words(self, before: str, after: str) -> str:
        return f"{before} → {after}"

    def describe(self) -> str:
        return f"{self.frequencies} waves a number"
