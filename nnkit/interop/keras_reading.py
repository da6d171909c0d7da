"""nnkit's layers for those of a Keras model, which are known by their classes' names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.engine.places import Shape
from nnkit.errors import ConfigError
from nnkit.interop.assembly import Part, Parts, assembled
from nnkit.nn.layers import (
    Activation,
    Dense,
    Dropout,
    Embedding,
    Ensemble,
    LayerNorm,
    PiecewiseLinear,
    Residual,
    Scale,
)
from nnkit.nn.network import Network

__all__ = ["network_of"]

_ACTIVATIONS = {name: name for name in ("sigmoid", "tanh", "relu", "elu", "gelu", "silu", "selu", "mish")}
_ACTIVATIONS |= {"softplus": "softplus", "linear": "identity"}
_LOGITS = "nnkit's outputs are logits: take it out, as by layer.activation = keras.activations.linear"
_INSTEAD = {
    "BatchNormalization": "nnkit has no batch normalisation; use LayerNormalization",
    "Softmax": "nnkit's outputs are logits; leave it out, the loss and predict_proba apply it",
}


def network_of(model: Any, keras: Any) -> Network:
    """Return the network of a Keras model; see `nnkit.interop.keras.from_keras`."""
    if not model.built or not model.inputs:
        raise ConfigError("the Keras model has no shapes yet: give it an Input, or call it on rows")
    wide = any(str(variable.dtype) == "float64" for variable in model.variables)
    if isinstance(model, keras.Sequential):
        parts, inputs = _sequence(model, keras)
    else:
        graph = _Graph(model, keras)
        parts, inputs = graph.front()
        graph.read(model.outputs[0], graph.start, parts)
    return assembled(parts, inputs, np.float64 if wide else np.float32)


def _sequence(model: Any, keras: Any) -> tuple[Parts, int]:
    """Return the layers of a sequential model, and the number of inputs beside embedded ones."""
    layers, inputs = _flat(model.layers, keras), _width(model.input_shape)
    parts = Parts((inputs,))
    if layers and _kind(layers[0]) == "Embedding":
        table, pool, *layers = layers if len(layers) > 1 else [*layers, None]
        parts.shape, inputs = (0,), 0
        parts.add(_table(table, pool))
    for layer in layers:
        _add(layer, parts, keras)
    return parts, inputs


def _flat(layers: Sequence[Any], keras: Any) -> list[Any]:
    """Return the layers of nested sequences."""
    found: list[Any] = []
    for layer in layers:
        found += _flat(layer.layers, keras) if isinstance(layer, keras.Sequential) else [layer]
    return found


def _width(shape: Sequence[int | None]) -> int:
    """Return the number of elements of a row; 0 if it is not known."""
    return prod(length or 0 for length in shape[1:])


class _Graph:
    """A functional model: which layer gives which tensor, and which tensors that takes."""

    def __init__(self, model: Any, keras: Any) -> None:
        self.model, self.keras = model, keras
        self.layers: dict[int, Any] = {}
        for layer in model.layers:
            try:
                self.layers[id(layer.output)] = layer
            except (AttributeError, ValueError):
                raise _several(layer) from None
        if len(model.outputs) != 1:
            raise ConfigError(f"the Keras model has {len(model.outputs)} outputs, and nnkit's one")
        self.start: Any = None  # the tensor after the inputs and embeddings

    def front(self) -> tuple[Parts, int]:
        """Return the embeddings, and the number of inputs beside theirs; find where the layers begin."""
        bags = [layer for layer in self.model.layers if _kind(layer) == "EmbeddingBag"]
        parts, inputs = Parts(), 0
        if not bags:
            self.start = self.model.inputs[0]
        elif len(bags) == 1 and len(self.model.inputs) == 1:
            self.start = bags[0].output
        else:
            joined = next((layer for layer in self.model.layers if _kind(layer) == "Concatenate"), None)
            if joined is None:
                raise ConfigError("the vectors of the Keras model's ids are not joined by a Concatenate")
            self.start = joined.output
            bags = [layer for layer, _ in map(self.before, joined.input) if _kind(layer) == "EmbeddingBag"]
        ids = {id(layer.input) for layer in bags}
        rows = [tensor for tensor in self.model.inputs if id(tensor) not in ids]
        if len(rows) > 1:
            raise ConfigError(f"the Keras model has {len(rows)} inputs of numbers, and nnkit's one")
        inputs = sum(_width(tensor.shape) for tensor in rows)
        parts.shape = (inputs,)
        for layer in bags:
            own = [dict(zip(("weight",), _arrays(layer), strict=True))]
            parts.add(Part(Embedding(layer.size, layer.width, layer.reduce), _words(layer), own))
        return parts, inputs

    def before(self, tensor: Any) -> tuple[Any, list[Any]]:
        """Return the layer that gives a tensor, and what it takes."""
        layer = self.layers.get(id(tensor))
        if layer is None:
            operation = getattr(getattr(tensor, "_keras_history", None), "operation", None)
            if any(one is operation for one in self.model.layers):
                raise _several(operation)
            kind = type(operation).__name__
            raise ConfigError(f"the operation {kind} of the Keras model cannot be imported: use layers alone")
        return layer, list(layer.input) if isinstance(layer.input, list | tuple) else [layer.input]

    def line(self, tensor: Any) -> list[Any]:
        """Return the tensors from one back to the start, on the shorter way at each residual connection."""
        found = [tensor]
        while found[-1] is not self.start:
            layer, given = self.before(found[-1])
            if _kind(layer) == "InputLayer":
                break
            found.append(self._skipped(layer, given)[0] if _kind(layer) == "Add" else given[0])
        return found

    def _skipped(self, layer: Any, given: Sequence[Any]) -> tuple[Any, Any]:
        """Return the tensor that an `Add` adds as it is, and that of the layers beside it."""
        if len(given) == 2:
            for skipped, other in (given, given[::-1]):
                if any(tensor is skipped for tensor in self.line(other)):
                    return skipped, other
        raise ConfigError(f"{_words(layer)} is no residual connection, x + F(x), which nnkit could import")

    def read(self, tensor: Any, stop: Any, parts: Parts) -> None:
        """Append the layers between two tensors."""
        steps: list[tuple[Any, list[Any]]] = []
        while tensor is not stop:
            layer, given = self.before(tensor)
            if _kind(layer) == "InputLayer":
                raise ConfigError("the Keras model's layers are no chain from its inputs to its output")
            steps.append((layer, given))
            kind = _kind(layer)
            if kind == "Add":
                tensor = self._skipped(layer, given)[0]
            else:
                tensor = self._fork(given) if kind == "Ensemble" else given[0]
        for layer, given in reversed(steps):
            if _kind(layer) == "Add":
                parts.add(self._residual(layer, given, parts.shape))
            elif _kind(layer) == "Ensemble":
                parts.add(self._ensemble(layer, given, parts.shape))
            else:
                _add(layer, parts, self.keras)

    def _fork(self, given: Sequence[Any]) -> Any:
        """Return the last tensor that all members read."""
        first, *others = (self.line(tensor) for tensor in given)
        for tensor in first:
            if all(any(tensor is one for one in line) for line in others):
                return tensor
        raise ConfigError("the members of the Keras model's Ensemble read different tensors")

    def _residual(self, layer: Any, given: Sequence[Any], shape: Shape | None) -> Part:
        skipped, other = self._skipped(layer, given)
        inner = Parts(shape)
        self.read(other, skipped, inner)
        return Part(Residual(inner.layers), _words(layer), inner.parameters)

    def _ensemble(self, layer: Any, given: Sequence[Any], shape: Shape | None) -> Part:
        fork, members = self._fork(given), [Parts(shape) for _ in given]
        for tensor, member in zip(given, members, strict=True):
            self.read(tensor, fork, member)
        if any(member.layers != members[0].layers for member in members):
            raise ConfigError(f"{_words(layer)} has members of different layers")
        kind: Any = layer.link
        parameters = [values for member in members for values in member.parameters]
        return Part(Ensemble(members[0].layers, members=len(given), link=kind), _words(layer), parameters)


def _several(layer: Any) -> ConfigError:
    return ConfigError(
        f"{_words(layer)} cannot be imported: it is called several times, or is itself a model"
    )


def _words(layer: Any) -> str:
    return f"layer {layer.name!r}, {type(layer).__name__},"


def _kind(layer: Any) -> str | None:
    """Return the name of a class of Keras's or nnkit's own; None for any other, whatever its name."""
    kind = type(layer)
    is_known = kind.__module__.startswith("keras.src.") or vars(kind).get("library") == "nnkit"
    return kind.__name__ if is_known else None


def _arrays(layer: Any) -> list[NDArray]:
    return [np.asarray(array, np.float64) for array in layer.get_weights()]


def _add(layer: Any, parts: Parts, keras: Any) -> None:
    """Append the layers for one of Keras."""
    kind = _kind(layer)
    if kind in ("InputLayer", "Flatten"):
        return
    if kind is None or kind not in _READERS:
        known = f"nnkit reads {', '.join(sorted([*_READERS, 'Add', 'Embedding', 'Flatten']))}"
        raise ConfigError(f"{_words(layer)} cannot be imported: {_INSTEAD.get(kind or '', known)}")
    for part in _READERS[kind](layer, keras):
        parts.add(part)


def _table(layer: Any, pool: Any) -> Part:
    """Return the embedding of a sequential model, and what reduces its vectors."""
    reduce: Any = {"GlobalAveragePooling1D": "mean", "Flatten": "sum"}.get(_kind(pool) or "")
    if reduce is None or layer.mask_zero:
        instead = "without mask_zero, and GlobalAveragePooling1D or, for one id a row, Flatten after it"
        raise ConfigError(f"{_words(layer)} cannot be imported: nnkit reads one {instead}")
    own = [dict(zip(("weight",), _arrays(layer), strict=True))]
    return Part(Embedding(layer.input_dim, layer.output_dim, reduce), _words(layer), own)


def _activation(layer: Any, keras: Any) -> list[Part]:
    """Return the activation of a layer that has one as a function."""
    function = layer.activation
    name = getattr(function, "__name__", type(function).__name__)
    is_theirs = getattr(keras.activations, name, None) is function
    if not is_theirs or name not in _ACTIVATIONS:
        known = f"nnkit reads {', '.join(_ACTIVATIONS)}"
        raise ConfigError(
            f"{_words(layer)} has the activation {name}: {_LOGITS if name == 'softmax' else known}"
        )
    return [] if name == "linear" else [Part(Activation(_ACTIVATIONS[name]), _words(layer))]


def _dense(layer: Any, keras: Any) -> list[Part]:
    own = dict(zip(("weight", "bias"), _arrays(layer), strict=False))
    dense = Dense(layer.units, bias="bias" in own)
    return [Part(dense, _words(layer), [own], len(own["weight"])), *_activation(layer, keras)]


def _with_default(layer: Any, activation: str, **defaults: Any) -> list[Part]:
    """Return an activation whose arguments must be these."""
    for argument, default in defaults.items():
        given = getattr(layer, argument)
        if given is not None and abs(given - default) > 1e-7:
            raise ConfigError(f"{_words(layer)} has {argument} = {given}, and nnkit's has {default}")
    return [Part(Activation(activation), _words(layer))]


def _relu(layer: Any, keras: Any) -> list[Part]:
    return _with_default(layer, "relu", max_value=np.inf, negative_slope=0.0, threshold=0.0)


def _layer_norm(layer: Any, keras: Any) -> list[Part]:
    own = dict(zip(("weight", "bias"), _arrays(layer), strict=False))
    axis = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    if not layer.scale or list(axis) not in ([-1], [1]):
        raise ConfigError(f"{_words(layer)} must have a scale for each of a row's numbers")
    norm = LayerNorm(layer.epsilon, bias="bias" in own)
    return [Part(norm, _words(layer), [own], len(own["weight"]))]


def _scale(layer: Any, keras: Any) -> list[Part]:
    [weight] = _arrays(layer)
    return [Part(Scale(), _words(layer), [{"weight": weight}], len(weight))]


def _bins(layer: Any, keras: Any) -> list[Part]:
    edges = tuple(map(tuple, layer.edges))
    bins = PiecewiseLinear(max(1, max(map(len, edges)) - 1), edges)
    return [Part(bins, _words(layer), grows=bins.bin_count)]


_READERS: Mapping[str, Callable[[Any, Any], list[Part]]] = {
    "Activation": _activation,
    "Dense": _dense,
    "Dropout": lambda layer, keras: [Part(Dropout(layer.rate), _words(layer))],
    "ELU": lambda layer, keras: _with_default(layer, "elu", alpha=1.0),
    "LayerNormalization": _layer_norm,
    "LeakyReLU": lambda layer, keras: _with_default(layer, "leaky_relu", negative_slope=0.01),
    "PiecewiseLinear": _bins,
    "ReLU": _relu,
    "Scale": _scale,
}
