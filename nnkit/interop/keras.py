"""Networks as Keras models, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.data.operations import TextColumn
from nnkit.engine.places import Place
from nnkit.errors import ConfigError
from nnkit.extras import extra_module
from nnkit.feed.features import Bags, Features, features_from
from nnkit.interop.assembly import model_like
from nnkit.interop.keras_reading import network_of
from nnkit.interop.rows import dense_rows
from nnkit.model import Model
from nnkit.nn.layers import (
    Activation,
    Dense,
    Dropout,
    Ensemble,
    LayerNorm,
    PiecewiseLinear,
    Residual,
    Scale,
)
from nnkit.nn.network import Network

__all__ = ["from_keras", "keras_inputs", "to_keras"]

_ACTIVATIONS = ("sigmoid", "tanh", "relu", "elu", "gelu", "silu", "selu", "mish", "softplus")


def to_keras(model: Model | Network) -> Any:
    """Return a network as a functional Keras model, with copies of its parameters.

    It takes the network's inputs as they are after preprocessing, (samples, inputs), and for each embedded
    column an array of ids, (samples, ids), where -1 is none, as `keras_inputs` returns them. It returns the
    raw outputs, (samples, outputs): logits, or a regression's standardised values.

    Parameters
    ----------
    model : Model or Network
        Of `Dense`, `Activation`, `Dropout`, `LayerNorm`, `Residual`, `Scale`, `PiecewiseLinear`, `Ensemble`
        and `Embedding`; the last four are layers of `nnkit.interop.keras_layers`.

    Returns
    -------
    keras.Model

    Raises
    ------
    ConfigError
        If Keras is not installed, or has no counterpart of a layer or an activation, which is named.
    """
    keras = _keras()
    if isinstance(model, Model):
        _check_texts(model)
    members = model.members if isinstance(model, Model) else (model,)
    network = members[0]
    rows = [] if not network.inputs else [keras.Input((network.inputs,), dtype=network.arena.dtype.name)]
    bags = [keras.Input((None,), dtype="int32") for _ in network.embeddings]
    outputs = [_Builder(keras, member).outputs(rows, bags) for member in members]
    if len(outputs) > 1:
        from nnkit.interop import keras_layers

        link = model.loss.link if isinstance(model, Model) else "identity"
        outputs = [keras_layers.Ensemble(link, dtype=network.arena.dtype.name)(outputs)]
    return keras.Model([*rows, *bags], outputs[0])


def keras_inputs(model: Model | Network, X: Any) -> list[NDArray]:
    """Return rows as the arrays that the model of `to_keras` takes.

    Parameters
    ----------
    model : Model or Network
    X : array, or table
        As for `Model.predict`, or for `Network.outputs`.
    """
    network = model.network if isinstance(model, Model) else model
    dtype = network.arena.dtype
    rows: Features = model.preprocessor.transform(X) if isinstance(model, Model) else features_from(X, dtype)
    network.check_width(rows)
    dense = [dense_rows(rows, dtype)] if network.inputs else []
    return [*dense, *map(_padded, rows.bags)]


def _padded(bags: Bags) -> NDArray[np.int32]:
    if bags.weights is not None:
        raise ConfigError("Keras has no weights of ids: give bags without weights")
    counts = np.diff(bags.starts)
    ids = np.full((len(bags), max(1, int(counts.max(initial=1)))), -1, np.int32)
    ids[np.arange(ids.shape[1]) < counts[:, None]] = bags.ids
    return ids


def from_keras(model: Any, like: Model | None = None) -> Network | Model:
    """Return the network that a Keras model describes, with copies of its parameters.

    It reads what `to_keras` returns, and models, sequential or functional with residual connections by `Add`,
    of `Dense`, `Activation`, `ReLU`, `LeakyReLU`, `ELU`, `Dropout`, `LayerNormalization` and `Flatten`, with
    an `Embedding` in front that `GlobalAveragePooling1D` or `Flatten` follows.

    Parameters
    ----------
    model : keras.Model
        It stays unchanged.
    like : Model, optional
        A model whose preprocessing, target and loss the network is given, such as the one that the Keras
        model was made from.

    Returns
    -------
    Network, or Model with `like`
        float64 if the model has variables of that type, else float32. The model has no metrics.

    Raises
    ------
    ConfigError
        If the model has an operation that nnkit lacks, its shapes do not chain, or they are not those of
        `like`; if Keras is not installed.
    """
    keras = _keras()
    if not isinstance(model, keras.Model):
        raise ConfigError(f"from_keras takes a keras.Model, not {type(model).__name__}")
    network = network_of(model, keras)
    return network if like is None else model_like(like, network)


def _keras() -> Any:
    try:
        return extra_module("keras")
    except ImportError as error:
        raise ConfigError(
            f"keras cannot load its backend ({error}): set KERAS_BACKEND to torch, jax or tensorflow, "
            "whichever is installed, before Python starts"
        ) from error


def _check_texts(model: Model) -> None:
    for operation in model.preprocessor.operations:
        if isinstance(operation, TextColumn) and operation.counts:
            raise ConfigError(f"Keras has no weights of ids, as TF-IDF gives to {operation.column!r}")


class _Builder:
    """Calls of Keras's layers, with the parameters of a network."""

    def __init__(self, keras: Any, network: Network) -> None:
        from nnkit.interop import keras_layers

        self.keras, self.layers, self.own, self.network = keras, keras.layers, keras_layers, network
        self.values, self.dtype = network.parameters(), network.arena.dtype.name

    def outputs(self, rows: Sequence[Any], bags: Sequence[Any]) -> Any:
        """Return the network's outputs for its inputs."""
        places = self.network.places
        tables = [place for place in places if place.layer.bags]
        found = list(rows)
        for place, ids in zip(tables, bags, strict=True):
            layer = place.layer
            bag = self.own.EmbeddingBag(layer.size, layer.width, layer.reduce, dtype=self.dtype)
            found.append(self.filled(bag, place, ids, "weight"))
        x = self.layers.Concatenate(dtype=self.dtype)(found) if len(found) > 1 else found[0]
        return self.chain([place for place in places if not place.layer.bags], x)

    def chain(self, places: Sequence[Place], x: Any) -> Any:
        """Return the outputs of layers one after the other."""
        for place in places:
            call = _CALLS.get(type(place.layer))
            if call is None:
                raise ConfigError(f"Keras has no counterpart of the layer {place.layer.title()}")
            x = call(self, place, x)
        return x

    def filled(self, layer: Any, place: Place, x: Any, *names: str) -> Any:
        """Return a layer's outputs, after giving it the parameters of these short names that there are."""
        outputs = layer(x)
        full = [place.parameter_name(name) for name in names]
        layer.set_weights([self.values[name] for name in full if name in self.values])
        return outputs

    def after(self, place: Place, x: Any) -> Any:
        """Return the outputs of the activation and the dropout at the end of a layer."""
        name, rate = place.layer.activation, place.layer.dropout
        if name == "leaky_relu":
            x = self.layers.LeakyReLU(0.01, dtype=self.dtype)(x)
        elif name in _ACTIVATIONS:
            x = self.layers.Activation(name, dtype=self.dtype)(x)
        elif name != "identity":
            raise ConfigError(f"Keras has no counterpart of the activation {name!r}")
        return self.layers.Dropout(rate, dtype=self.dtype)(x) if rate else x

    def dense(self, place: Place, x: Any) -> Any:
        if place.layer.numbers is not None:
            x = self.bins(place.layer.numbers, x)
        layer = self.layers.Dense(place.layer.units, use_bias=place.layer.bias, dtype=self.dtype)
        return self.after(place, self.filled(layer, place, x, "weight", "bias"))

    def bins(self, layer: Any, x: Any) -> Any:
        if layer.edges is None:
            raise ConfigError("PiecewiseLinear has no edges yet: train the network, or give them")
        return self.own.PiecewiseLinear(layer.edges, dtype=self.dtype)(x)

    def layer_norm(self, place: Place, x: Any) -> Any:
        options = {"epsilon": place.layer.epsilon, "center": place.layer.bias, "dtype": self.dtype}
        return self.filled(self.layers.LayerNormalization(**options), place, x, "weight", "bias")

    def residual(self, place: Place, x: Any) -> Any:
        return self.layers.Add(dtype=self.dtype)([x, self.chain(place.children, x)])

    def ensemble(self, place: Place, x: Any) -> Any:
        outputs = [self.chain(branch, x) for branch in place.branches]
        return self.own.Ensemble(place.layer.link, dtype=self.dtype)(outputs)


_CALLS: Mapping[type, Callable[[_Builder, Place, Any], Any]] = {
    Activation: _Builder.after,
    Dense: _Builder.dense,
    Dropout: _Builder.after,
    Ensemble: _Builder.ensemble,
    LayerNorm: _Builder.layer_norm,
    PiecewiseLinear: lambda builder, place, x: builder.bins(place.layer, x),
    Residual: _Builder.residual,
    Scale: lambda builder, place, x: builder.filled(
        builder.own.Scale(dtype=builder.dtype), place, x, "weight"
    ),
}
