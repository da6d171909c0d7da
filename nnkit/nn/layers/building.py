"""A network put together from layers: read from JSON, fused, and each layer at its place.

The registry of the kinds of layers is here: a new kind is one file and one name in `_KINDS`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nnkit.engine.places import Place, Shape, width_of
from nnkit.errors import ModelFileError, shown
from nnkit.nn.activations import ActivationFunction, activation_function
from nnkit.nn.layers.activation import Activation
from nnkit.nn.layers.base import Layer
from nnkit.nn.layers.containers import Residual, Sequential
from nnkit.nn.layers.dense import Dense
from nnkit.nn.layers.dropout import Dropout
from nnkit.nn.layers.embedding import Embedding
from nnkit.nn.layers.norm import LayerNorm

__all__ = ["activations_of", "all_layers", "known_width", "layer_from_json", "place_layers"]

_KINDS: dict[str, type[Layer]] = {
    kind.__name__: kind for kind in (Embedding, Dense, Dropout, Activation, LayerNorm, Sequential, Residual)
}


def layer_from_json(value: Mapping[str, Any]) -> Layer:
    """Return the layer, or raise `ModelFileError` if the JSON describes none."""
    try:
        fields = dict(value)
        return _KINDS[fields.pop("kind")].from_json(fields, layer_from_json)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelFileError(
            f"the model describes a layer that nnkit does not know: {shown(value)} ({error})"
        ) from error


def all_layers(layers: Sequence[Layer]) -> Iterator[Layer]:
    """Yield the layers, and those in containers in place of these."""
    for layer in layers:
        if layer.layers:
            yield from all_layers(layer.layers)
        else:
            yield layer


def known_width(layers: Sequence[Layer]) -> int | None:
    """Return the number of outputs, whatever the number of inputs; None where it depends on that."""
    shape: Shape | None = None
    for layer in all_layers(layers):
        one, another = layer.output_shape((1,)), layer.output_shape((2,))
        known = one if one == another else None
        shape = known if shape is None or known is not None else layer.output_shape(shape)
    return None if shape is None else width_of(shape)


def activations_of(layers: Sequence[Layer]) -> dict[str, ActivationFunction]:
    """Return the activations that the layers name, as they are registered now."""
    names = [layer.activation for layer in all_layers(layers)]
    return {name: activation_function(name) for name in names}


def place_layers(
    layers: Sequence[Layer], inputs: int, activations: Mapping[str, ActivationFunction] | None = None
) -> tuple[Place, ...]:
    """Fuse the layers, and give each its name, its numbers and its shapes.

    Parameters
    ----------
    layers : sequence of Layer
        Those that read bags first.
    inputs : int
        The number of inputs, without what is embedded.
    activations : mapping of str to ActivationFunction, optional
        What the names of the layers' activations mean; by default, what is registered now.
    """
    named = activations_of(layers) if activations is None else activations
    return _Builder(named).places(layers, (inputs,))


@dataclass
class _Builder:
    """Counts the layers of a network, in the order in which they run."""

    functions: Mapping[str, ActivationFunction]
    _numbers: dict[str, int] = field(default_factory=lambda: {"parameters": 0, "index": 0, "bags": 0})

    def places(self, layers: Sequence[Layer], shape: Shape) -> tuple[Place, ...]:
        found = []
        for layer in _fused(layers):
            found.append(self._place(layer, shape))
            shape = found[-1].outputs
        return tuple(found)

    def _place(self, layer: Layer, shape: Shape) -> Place:
        children = self.places(layer.layers, shape)
        number, first_bag = self._numbers["parameters"], self._numbers["bags"]
        named = bool(layer.parameters(shape))
        self._numbers["parameters"] += named
        self._numbers["bags"] += layer.bags
        index = -1 - first_bag if layer.bags else self._numbers["index"]
        self._numbers["index"] += not layer.bags
        outputs = layer.output_shape(shape)
        return Place(layer, number, index, shape, outputs, self.functions, first_bag, children)


def _fused(layers: Sequence[Layer]) -> list[Layer]:
    """Return layers that compute the same: sequences unrolled, and what ends a layer joined to it."""
    found: list[Layer] = []
    for layer in _unrolled(layers):
        whole = found[-1].fused(layer) if found else None
        if whole is not None:
            found[-1] = whole
        elif not layer.does_nothing:
            found.append(layer)
    return found


def _unrolled(layers: Sequence[Layer]) -> Iterator[Layer]:
    for layer in layers:
        if isinstance(layer, Sequential):
            yield from _unrolled(layer.layers)
        else:
            yield layer
