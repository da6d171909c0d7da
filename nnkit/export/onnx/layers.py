"""A network's layers as nodes: one function for each kind of layer, one for each activation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.engine.places import Place, width_of
from nnkit.errors import ConfigError
from nnkit.export.onnx.graph import Graph
from nnkit.nn.layers import (
    Activation,
    BatchEnsemble,
    Dense,
    Dropout,
    Embedding,
    Ensemble,
    LayerNorm,
    Periodic,
    PiecewiseLinear,
    Residual,
    Scale,
)
from nnkit.nn.network import Network

__all__ = ["network_outputs"]


@dataclass(frozen=True)
class Emitter:
    """What the functions of layers share: the graph, the parameters by name, the type of numbers."""

    graph: Graph
    values: Mapping[str, NDArray[Any]]
    dtype: np.dtype
    bags: Sequence[Any]

    def parameter(self, place: Place, name: str) -> NDArray[Any]:
        """Return a parameter of a layer."""
        return self.values[place.parameter_name(name)]

    def number(self, value: float) -> str:
        """Return a constant in the network's type."""
        return self.graph.constant(value, self.dtype)

    def shape(self, *lengths: int) -> str:
        """Return a shape as a constant."""
        return self.graph.constant(lengths, np.int64)


def network_outputs(graph: Graph, network: Network, inputs: str, bags: Sequence[Any]) -> list[str]:
    """Return the outputs of each member, shape (samples, outputs); one for a network that is no ensemble."""
    to = Emitter(graph, network.parameters(), network.arena.dtype, bags)
    return _through(to, network.places, inputs)


def _through(to: Emitter, places: Sequence[Place], x: str) -> list[str]:
    """Return the outputs of a chain of layers; of an `Ensemble` at its end those of each member."""
    for place in places:
        if isinstance(place.layer, Ensemble):
            return _members(to, place, x)
        emit = next((emit for kind, emit in _LAYERS.items() if type(place.layer) is kind), None)
        if emit is None:
            raise ConfigError(
                f"the layer {type(place.layer).__name__} of {place.name} cannot be exported to ONNX"
            )
        x = emit(to, place, x)
    return [x]


def _members(to: Emitter, place: Place, x: str) -> list[str]:
    found = []
    for member, branch in enumerate(place.branches):
        own = x
        if len(place.inputs) == 2 and place.inputs[0] == place.layer.copies:  # each member has its own rows
            width = place.inputs[1]
            ends = (to.shape(member * width), to.shape((member + 1) * width), to.shape(1))
            own = to.graph.add("Slice", x, *ends)
        found += _through(to, branch, own)
    return found


def _dense(to: Emitter, place: Place, x: str) -> str:
    layer = place.layer
    if layer.numbers is not None:
        x = _with_shares(to, layer.numbers, x)
    weight = to.graph.constant(to.parameter(place, "weight"))
    if layer.bias:
        z = to.graph.add("Gemm", x, weight, to.graph.constant(to.parameter(place, "bias")))
    else:
        z = to.graph.add("MatMul", x, weight)
    return activated(to, layer.activation, z)


def _with_shares(to: Emitter, layer: PiecewiseLinear, x: str) -> str:
    """Return the inputs, followed by the shares of their bins: the kernels look the same sums up."""
    edges = [(column, np.array(found)) for column, found in enumerate(layer.edges or ()) if found]
    if not edges:
        return x
    columns = np.repeat([column for column, _ in edges], [len(found) - 1 for _, found in edges])
    lows = np.concatenate([found[:-1] for _, found in edges]).astype(to.dtype)
    inverses = (1 / np.concatenate([np.diff(found) for _, found in edges])).astype(to.dtype)
    taken = to.graph.add("Gather", x, to.graph.constant(columns, np.int64), axis=1)
    apart = to.graph.add("Sub", taken, to.graph.constant(lows))
    share = to.graph.add("Mul", apart, to.graph.constant(inverses))
    return to.graph.add("Concat", x, to.graph.add("Clip", share, to.number(0), to.number(1)), axis=1)


def _piecewise(to: Emitter, place: Place, x: str) -> str:
    return _with_shares(to, place.layer, x)


def _periodic(to: Emitter, place: Place, x: str) -> str:
    columns = len(to.parameter(place, "frequency"))
    lines = place.layer.width - 1
    if not columns:
        return x
    numbers = to.graph.add("Slice", x, to.shape(0), to.shape(columns), to.shape(1))
    spread = to.graph.add("Unsqueeze", numbers, to.shape(2))
    frequency = (2 * np.pi * to.parameter(place, "frequency").astype(np.float64)).astype(to.dtype)
    angle = to.graph.add("Mul", spread, to.graph.constant(frequency))
    angle = to.graph.add("Add", angle, to.graph.constant(to.parameter(place, "phase")))
    wave = to.graph.add("Unsqueeze", to.graph.add("Cos", angle), to.shape(2))
    weight = to.graph.constant(np.ascontiguousarray(to.parameter(place, "weight").swapaxes(1, 2)))
    sums = to.graph.add("Reshape", to.graph.add("MatMul", wave, weight), to.shape(-1, columns * lines))
    bias = to.graph.constant(to.parameter(place, "bias").reshape(-1))
    return to.graph.add("Concat", to.graph.add("Add", sums, bias), x, axis=1)


def _scale(to: Emitter, place: Place, x: str) -> str:
    return to.graph.add("Mul", x, to.graph.constant(to.parameter(place, "weight")))


def _layer_norm(to: Emitter, place: Place, x: str) -> str:
    arrays = [to.graph.constant(to.parameter(place, "weight"))]
    if place.layer.bias:
        arrays.append(to.graph.constant(to.parameter(place, "bias")))
    return to.graph.add("LayerNormalization", x, *arrays, axis=-1, epsilon=float(place.layer.epsilon))


def _residual(to: Emitter, place: Place, x: str) -> str:
    return to.graph.add("Add", x, *_through(to, place.branches[0], x))


def _batch_ensemble(to: Emitter, place: Place, x: str) -> str:
    layer = place.layer
    members, width = to.parameter(place, "input_scale").shape
    if width_of(place.inputs) == width:
        x = to.graph.add("Unsqueeze", x, to.shape(1))
    else:
        x = to.graph.add("Reshape", x, to.shape(-1, members, width))
    x = to.graph.add("Mul", x, to.graph.constant(to.parameter(place, "input_scale")))
    z = to.graph.add("MatMul", x, to.graph.constant(to.parameter(place, "weight")))
    z = to.graph.add("Mul", z, to.graph.constant(to.parameter(place, "output_scale")))
    if layer.bias:
        z = to.graph.add("Add", z, to.graph.constant(to.parameter(place, "bias")))
    z = to.graph.add("Reshape", z, to.shape(-1, members * layer.units))
    return activated(to, layer.activation, z)


def _embedding(to: Emitter, place: Place, x: str) -> str:
    """Append a row's vectors to its inputs."""
    table, bag = to.parameter(place, "weight"), to.bags[place.first_bag]
    if isinstance(bag, str):  # a category's codes, -1 for none
        rows = to.graph.constant(np.vstack([table, np.zeros_like(table[:1])]))
        code = to.graph.add("Squeeze", bag, to.shape(1))
        none = to.graph.add("Less", code, to.graph.constant(0, np.int64))
        place_of = to.graph.add("Where", none, to.graph.constant(len(table), np.int64), code)
        vectors = to.graph.add("Gather", rows, place_of, axis=0)
    else:
        vectors = _reduced(to, place.layer.reduce, table, *bag)
    return to.graph.add("Concat", x, vectors, axis=1) if x else vectors


def _reduced(to: Emitter, reduce: str, table: NDArray[Any], ids: str, starts: str, weights: str) -> str:
    """Return the mean or the sum of each row's vectors, shape (samples, width)."""
    if reduce == "max":
        raise ConfigError(
            "text that is reduced by its maximum cannot be exported to ONNX: train with reduce = mean"
        )
    graph, one = to.graph, to.number(1)
    zero = graph.constant(np.zeros(1, to.dtype))
    count = graph.add("Shape", ids)
    rows = graph.add("Sub", graph.add("Shape", starts), to.shape(1))
    # The row of each id: a mark where each row but the first begins, summed up.
    begins = graph.add("Slice", starts, to.shape(1), to.shape(-1), to.shape(0))
    marks = graph.add("Expand", graph.constant(np.zeros(1, np.int64)), graph.add("Add", count, to.shape(1)))
    ones = graph.add("Expand", to.shape(1), graph.add("Shape", begins))
    marked = graph.add("ScatterElements", marks, begins, ones, axis=0, reduction="add")
    taken = graph.add("Slice", marked, to.shape(0), count, to.shape(0))
    row = graph.add("CumSum", taken, graph.constant(0, np.int64))
    vectors = graph.add("Gather", graph.constant(table), ids, axis=0)
    if weights:
        vectors = graph.add("Mul", vectors, graph.add("Unsqueeze", weights, to.shape(1)))
    size = graph.add("Concat", rows, to.shape(table.shape[1]), axis=0)
    empty = graph.add("Expand", zero, size)
    # Not ScatterND: onnxruntime's threads add to the same row at once.
    place = graph.add("Expand", graph.add("Unsqueeze", row, to.shape(1)), graph.add("Shape", vectors))
    sums = graph.add("ScatterElements", empty, place, vectors, axis=0, reduction="add")
    if reduce == "sum":
        return sums
    each = weights or graph.add("Expand", graph.constant(np.ones(1, to.dtype)), count)
    total = graph.add("ScatterElements", graph.add("Expand", zero, rows), row, each, axis=0, reduction="add")
    nothing = graph.add("Equal", total, to.number(0))
    divisor = graph.add("Unsqueeze", graph.add("Where", nothing, one, total), to.shape(1))
    mean = graph.add("Div", sums, divisor)
    return graph.add("Where", graph.add("Unsqueeze", nothing, to.shape(1)), to.number(0), mean)


def _nothing(to: Emitter, place: Place, x: str) -> str:
    return x


def _activation(to: Emitter, place: Place, x: str) -> str:
    return activated(to, place.layer.activation, x)


_LAYERS: dict[type, Callable[[Emitter, Place, str], str]] = {
    Dense: _dense,
    Activation: _activation,
    Dropout: _nothing,
    LayerNorm: _layer_norm,
    Scale: _scale,
    PiecewiseLinear: _piecewise,
    Periodic: _periodic,
    Embedding: _embedding,
    Residual: _residual,
    BatchEnsemble: _batch_ensemble,
}


def activated(to: Emitter, name: str, z: str) -> str:
    """Return an activation of z."""
    if name not in _ACTIVATIONS:
        raise ConfigError(f"the activation {name!r} is your own: it cannot be exported to ONNX")
    return _ACTIVATIONS[name](to, z)


def _operator(kind: str) -> Callable[[Emitter, str], str]:
    return lambda to, z: to.graph.add(kind, z)


def _below_zero(to: Emitter, z: str, below: str, above: str) -> str:
    return to.graph.add("Where", to.graph.add("Less", z, to.number(0)), below, above)


def _leaky_relu(to: Emitter, z: str) -> str:
    return _below_zero(to, z, to.graph.add("Mul", z, to.number(0.01)), z)


def _elu(to: Emitter, z: str, below: float = 1.0, above: float = 1.0) -> str:
    """Return above · z, or below zero below · (e^z − 1)."""
    graph = to.graph
    e = graph.add("Exp", graph.add("Min", z, to.number(0)))
    negative = graph.add("Mul", graph.add("Sub", e, to.number(1)), to.number(below))
    return _below_zero(to, z, negative, z if above == 1 else graph.add("Mul", z, to.number(above)))


def _selu(to: Emitter, z: str) -> str:
    return _elu(to, z, 1.7580993408473766, 1.0507009873554805)


def _gelu(to: Emitter, z: str) -> str:
    graph = to.graph
    if to.dtype != np.float32:
        raise ConfigError(
            "gelu in float64 cannot be exported to ONNX: its runtimes have erf in float32 alone"
        )
    erf = graph.add("Erf", graph.add("Mul", z, to.number(0.7071067811865476)))
    return graph.add("Mul", graph.add("Mul", z, to.number(0.5)), graph.add("Add", erf, to.number(1)))


def _silu(to: Emitter, z: str) -> str:
    return to.graph.add("Mul", z, to.graph.add("Sigmoid", z))


def _softplus(to: Emitter, z: str) -> str:
    graph = to.graph
    e = graph.add("Exp", graph.add("Neg", graph.add("Abs", z)))
    return graph.add("Add", graph.add("Relu", z), graph.add("Log", graph.add("Add", e, to.number(1))))


def _mish(to: Emitter, z: str) -> str:
    return to.graph.add("Mul", z, to.graph.add("Tanh", _softplus(to, z)))


_ACTIVATIONS: dict[str, Callable[[Emitter, str], str]] = {
    "identity": lambda to, z: z,
    "sigmoid": _operator("Sigmoid"),
    "tanh": _operator("Tanh"),
    "relu": _operator("Relu"),
    "leaky_relu": _leaky_relu,
    "elu": _elu,
    "selu": _selu,
    "gelu": _gelu,
    "silu": _silu,
    "mish": _mish,
    "softplus": _softplus,
}
