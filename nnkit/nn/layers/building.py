"""The assembly of a network: layers read from JSON, fused, and put at their places.

A new kind of layer is one file and one name in `_KINDS`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nnkit.engine.places import Place, Shape, width_of
from nnkit.errors import ConfigError, ModelFileError, shown
from nnkit.nn.activations import ActivationFunction, activation_function
from nnkit.nn.layers.activation import Activation
from nnkit.nn.layers.base import Layer
from nnkit.nn.layers.batch_ensemble import BatchEnsemble
from nnkit.nn.layers.containers import Residual, Sequential
from nnkit.nn.layers.dense import Dense
from nnkit.nn.layers.dropout import Dropout
from nnkit.nn.layers.embedding import Embedding
from nnkit.nn.layers.ensemble import Ensemble
from nnkit.nn.layers.norm import LayerNorm
from nnkit.nn.layers.periodic import Periodic
from nnkit.nn.layers.piecewise import PiecewiseLinear
from nnkit.nn.layers.scale import Scale

__all__ = ["activations_of", "all_layers", "known_width", "layer_from_json", "place_layers"]

_KINDS: dict[str, type[Layer]] = {
    kind.__name__: kind
    for kind in (
        *(Embedding, PiecewiseLinear, Periodic, Scale, Dense, Dropout, Activation, LayerNorm),
        *(Sequential, Residual, Ensemble, BatchEnsemble),
    )
}


def layer_from_json(value: Mapping[str, Any]) -> Layer:
    """Return the layer, or raise `ModelFileError` if the JSON describes none."""
    try:
        fields = dict(value)
        return _KINDS[fields.pop("kind")].from_json(fields, layer_from_json)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        message = f"the model describes a layer that nnkit does not know: {shown(value)} ({error})"
        raise ModelFileError(message) from error


def all_layers(layers: Sequence[Layer]) -> Iterator[Layer]:
    """Yield the layers, with containers replaced by the layers in them."""
    for layer in layers:
        if layer.layers:
            yield from all_layers(layer.layers)
        else:
            yield layer


def known_width(layers: Sequence[Layer]) -> int | None:
    """Return the number of outputs; None if it depends on the number of inputs."""
    shape: Shape | None = None
    for layer in all_layers(layers):
        one, another = layer.output_shape((1,)), layer.output_shape((2,))
        known = one if one == another else None
        shape = known if shape is None or known is not None else layer.output_shape(shape)
    return None if shape is None else width_of(shape)


def activations_of(layers: Sequence[Layer]) -> dict[str, ActivationFunction]:
    """Return the layers' activations by name, as they are registered now."""
    return {layer.activation: activation_function(layer.activation) for layer in all_layers(layers)}


def place_layers(
    layers: Sequence[Layer], inputs: int, activations: Mapping[str, ActivationFunction] | None = None
) -> tuple[Place, ...]:
    """Fuse the layers, and give each its name, its numbers and its shapes.

    `inputs` is the number of inputs without embedded vectors; `activations` are by default those registered
    now.
    """
    functions = activations_of(layers) if activations is None else activations
    with_parameters = others = bags = 0  # the layers so far, in execution order, and the bags that they read

    def placed(layers: Sequence[Layer], shape: Shape, outermost: bool = False) -> tuple[Place, ...]:
        nonlocal with_parameters, others, bags
        found: list[Place] = []
        fused = _fused(layers)
        for layer in fused:
            if layer.copies > 1 and not (outermost and layer is fused[-1]):
                raise ConfigError(
                    "an Ensemble must be the last layer of a network, outside of other containers"
                )
            inner = layer.inner_shape(shape)
            children = tuple(one for _ in range(layer.copies) for one in placed(layer.layers, inner))
            index, outputs = -1 - bags if layer.bags else others, layer.output_shape(shape)
            found.append(Place(layer, with_parameters, index, shape, outputs, functions, bags, children))
            with_parameters += bool(layer.parameters(shape))
            others += not layer.bags
            bags += layer.bags
            shape = outputs
        return tuple(found)

    return placed(layers, (inputs,), outermost=True)


def _fused(layers: Sequence[Layer]) -> list[Layer]:
    """Return equivalent layers: sequences flattened, and layers fused into the ones before them."""
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
