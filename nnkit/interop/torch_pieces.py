"""A network as PyTorch constructs it: a tree of modules with their arguments and tensors, without torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.engine.places import Place
from nnkit.errors import ConfigError
from nnkit.model import Model
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

__all__ = ["ACTIVATIONS", "Piece", "piece_of"]

# nnkit's name, and torch's class.
ACTIVATIONS: Mapping[str, str] = {
    "identity": "Identity",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "relu": "ReLU",
    "leaky_relu": "LeakyReLU",
    "elu": "ELU",
    "gelu": "GELU",
    "silu": "SiLU",
    "selu": "SELU",
    "mish": "Mish",
    "softplus": "Softplus",
}


@dataclass(frozen=True, eq=False)
class Piece:
    """A module: how it is constructed, and what its tensors are.

    Parameters
    ----------
    kind : str
        A class of `torch.nn`, or of `nnkit.interop.torch_layers` if `own`.
    pieces : tuple of Piece
        For a container: its modules, the first arguments.
    arguments : tuple
        Further positional arguments.
    options : mapping
        Keyword arguments.
    tensors : mapping of str to ndarray
        Its own parameters and buffers, by torch's names, in torch's layout.
    own : bool
        Whether the class is nnkit's.
    """

    kind: str
    pieces: tuple[Piece, ...] = ()
    arguments: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, NDArray] = field(default_factory=dict)
    own: bool = False

    def named_tensors(self, prefix: str = "") -> Iterator[tuple[str, NDArray]]:
        """Yield all tensors by their names in a state_dict, such as ``0.weight``."""
        for name, tensor in self.tensors.items():
            yield prefix + name, np.ascontiguousarray(tensor)
        for number, piece in enumerate(self.pieces):
            yield from piece.named_tensors(f"{prefix}{number}.")

    def outline(self) -> tuple[Any, ...]:
        """Return all but the tensors, to compare."""
        inner = tuple(piece.outline() for piece in self.pieces)
        return self.kind, self.arguments, dict(self.options), inner

    def kinds(self) -> set[str]:
        """Return the names of nnkit's classes that it needs."""
        inner = set().union(*(piece.kinds() for piece in self.pieces))
        return inner | {self.kind} if self.own else inner


def piece_of(model: Model | Network) -> Piece:
    """Return the description of a model's network, or of several members whose predictions are averaged.

    Raises
    ------
    ConfigError
        If the network has no parameters yet, or torch has no counterpart of an activation.
    """
    members = model.members if isinstance(model, Model) else (model,)
    pieces = tuple(map(_network, members))
    if len(pieces) == 1:
        return pieces[0]
    link = model.loss.link if isinstance(model, Model) else "identity"
    return Piece("Ensemble", pieces, options={"link": link}, own=True)


def _network(network: Network) -> Piece:
    values = network.parameters()
    tables = tuple(_embedding(place, values) for place in network.places if place.layer.bags)
    layers = _chain([place for place in network.places if not place.layer.bags], values)
    if tables:
        return Piece("WithBags", (Piece("Lookup", tables, own=True), *layers), own=True)
    return Piece("Sequential", layers)


Values = Mapping[str, NDArray]


def _chain(places: Sequence[Place], values: Values) -> tuple[Piece, ...]:
    found: list[Piece] = []
    for place in places:
        try:
            convert = _CONVERTERS[type(place.layer)]
        except KeyError:
            raise ConfigError(f"PyTorch has no counterpart of the layer {place.layer.title()}") from None
        found += convert(place, values)
    return tuple(found)


def _own(place: Place, values: Values) -> dict[str, NDArray]:
    """Return a layer's own parameters by their short names."""
    return {name: values[place.parameter_name(name)] for name in place.layer.parameters(place.inputs)}


def _flat(place: Place) -> list[Piece]:
    """Return what makes one row of a row for each member."""
    return [Piece("Flatten")] if len(place.inputs) > 1 else []


def _after(layer: Any) -> list[Piece]:
    """Return the activation and the dropout at the end of a layer."""
    found = [] if layer.activation == "identity" else [_activation(layer.activation)]
    return [*found, Piece("Dropout", arguments=(layer.dropout,))] if layer.dropout else found


def _activation(name: str) -> Piece:
    if name not in ACTIVATIONS:
        raise ConfigError(f"PyTorch has no counterpart of the activation {name!r}")
    return Piece(ACTIVATIONS[name])


def _dense(place: Place, values: Values) -> list[Piece]:
    layer, own = place.layer, _own(place, values)
    tensors = {**own, "weight": own["weight"].T}
    linear = Piece(
        "Linear",
        arguments=own["weight"].shape,
        options={} if layer.bias else {"bias": False},
        tensors=tensors,
    )
    numbers = [] if layer.numbers is None else [_bins(layer.numbers)]
    return [*_flat(place), *numbers, linear, *_after(layer)]


def _bins(layer: Any) -> Piece:
    if layer.edges is None:
        raise ConfigError("PiecewiseLinear has no edges yet: train the network, or give them")
    edges = np.array([edge for column in layer.edges for edge in column], np.float64)
    counts = [len(column) for column in layer.edges]
    return Piece("PiecewiseLinear", arguments=(counts,), tensors={"edges": edges}, own=True)


def _batch_ensemble(place: Place, values: Values) -> list[Piece]:
    layer, own = place.layer, _own(place, values)
    inputs, units = own["weight"].shape
    is_flat = own["input_scale"].size != np.prod(place.inputs) and len(place.inputs) > 1
    piece = Piece(
        "BatchEnsemble",
        arguments=(inputs, units, layer.members),
        options={} if layer.bias else {"bias": False},
        tensors={**own, "weight": own["weight"].T},
        own=True,
    )
    return [*(_flat(place) if is_flat else []), piece, *_after(layer)]


def _periodic(place: Place, values: Values) -> list[Piece]:
    own = _own(place, values)
    columns, lines, frequencies = own["weight"].shape
    piece = Piece("Periodic", arguments=(columns, frequencies, lines), tensors=own, own=True)
    return [*_flat(place), piece]


def _layer_norm(place: Place, values: Values) -> list[Piece]:
    own, layer = _own(place, values), place.layer
    options = {"eps": layer.epsilon} | ({} if layer.bias else {"bias": False})
    return [Piece("LayerNorm", arguments=own["weight"].shape, options=options, tensors=own)]


def _scale(place: Place, values: Values) -> list[Piece]:
    own = _own(place, values)
    return [Piece("Scale", arguments=own["weight"].shape, tensors=own, own=True)]


def _residual(place: Place, values: Values) -> list[Piece]:
    return [Piece("Residual", _chain(place.children, values), own=True)]


def _ensemble(place: Place, values: Values) -> list[Piece]:
    own = place.layer.inner_shape(place.inputs) != place.inputs
    members = tuple(Piece("Sequential", _chain(branch, values)) for branch in place.branches)
    options = {"link": place.layer.link} | ({"own": True} if own else {})
    return [Piece("Ensemble", members, options=options, own=True)]


def _embedding(place: Place, values: Values) -> Piece:
    own, layer = _own(place, values), place.layer
    options = {"mode": layer.reduce, "include_last_offset": True}
    return Piece("EmbeddingBag", arguments=(layer.size, layer.width), options=options, tensors=own)


# How each kind of layer becomes modules; the layers that a network fuses are taken apart again.
_CONVERTERS: Mapping[type, Callable[[Place, Values], list[Piece]]] = {
    Activation: lambda place, values: _after(place.layer),
    BatchEnsemble: _batch_ensemble,
    Dense: _dense,
    Dropout: lambda place, values: _after(place.layer),
    Embedding: lambda place, values: [_embedding(place, values)],
    Ensemble: _ensemble,
    LayerNorm: _layer_norm,
    Periodic: _periodic,
    PiecewiseLinear: lambda place, values: [*_flat(place), _bins(place.layer)],
    Residual: _residual,
    Scale: _scale,
}
