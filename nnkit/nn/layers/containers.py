"""Containers: a sequence of layers, and a residual connection around layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nnkit.backends.operations import Array, Copy, Operation
from nnkit.engine.layer_pass import LayerPass
from nnkit.engine.places import Shape
from nnkit.errors import ConfigError
from nnkit.feed.statistics import RowStatistics
from nnkit.nn.layers.base import Layer

__all__ = ["Container", "Residual", "Sequential"]


@dataclass(frozen=True)
class Container(Layer):
    """A layer that contains layers."""

    inner: tuple[Layer, ...]

    def __init__(self, *layers: Layer | Sequence[Layer]) -> None:
        flat = [one for given in layers for one in (given if isinstance(given, list | tuple) else [given])]
        wrong = [one for one in flat if not isinstance(one, Layer) or one.bags]
        if wrong or not flat:
            what = f"not {wrong[0]!r}" if wrong else "and at least one of them"
            raise ConfigError(f"{type(self).__name__} takes layers that read no bags of ids, {what}")
        object.__setattr__(self, "inner", tuple(flat))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.inner))})"

    @property
    def layers(self) -> tuple[Layer, ...]:
        return self.inner

    def prepared(self, statistics: RowStatistics) -> Layer:
        return type(self)([layer.prepared(statistics) for layer in self.inner])

    def output_shape(self, shape: Shape) -> Shape:
        for layer in self.inner:
            shape = layer.output_shape(shape)
        return shape

    def describe(self) -> str:
        return f"[{' → '.join(layer.describe() for layer in self.inner)}]"

    def to_json(self) -> dict[str, Any]:
        return {"kind": type(self).__name__, "layers": [layer.to_json() for layer in self.inner]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], read: Callable[[Mapping[str, Any]], Layer]) -> Layer:
        given = dict(values)
        return cls([read(one) for one in given.pop("layers")], **given)


class Sequential(Container):
    """Layers one after the other, as if they were in the network themselves."""


class Residual(Container):
    """``X + F(X)``: F is the layers; their outputs must have the shape of their inputs.

    He et al. 2015, "Deep residual learning for image recognition", arXiv:1512.03385.
    """

    def output_shape(self, shape: Shape) -> Shape:
        found = super().output_shape(shape)
        if found != shape:
            raise ConfigError(
                f"the layers in a Residual turn rows of shape {shape} into rows of shape {found}, and these "
                "cannot be added; give its last layer as many outputs as the inputs"
            )
        return shape

    def describe(self) -> str:
        return f"x + {super().describe()}"

    def forward(self, at: LayerPass, x: Array) -> tuple[list[Operation], Array]:
        inner, y = at.branches[0].forward(x)
        out = at.buffer("sum", at.width)
        added = at.kernel("add", {}, {}, {"target": at.cut(out), "source": at.cut(y)})
        return [*inner, Copy(x, out), added], out

    def backward(self, at: LayerPass, delta: Array) -> tuple[list[Operation], Array]:
        if not at.wants_input_gradient:
            return at.branches[0].backward(delta, everything=False, parameters=at.wants_parameters)
        # The layers may change the derivative in place, but the identity branch needs it unchanged.
        kept = at.take(at.width)
        inner, onward = at.branches[0].backward(kept, everything=True, parameters=at.wants_parameters)
        added = at.kernel("add", {}, {}, {"target": at.cut(delta), "source": at.cut(onward)})
        at.release(onward)
        return [Copy(delta, kept), *inner, added], delta
