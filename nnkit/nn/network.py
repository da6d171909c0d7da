"""A network: a list of layers and, once the number of inputs is known, its parameters on a device."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from nnkit.backends import select
from nnkit.backends.protocol import Backend
from nnkit.engine.full_batch import FullBatch
from nnkit.engine.inference import Predictors
from nnkit.engine.objective import Penalty
from nnkit.engine.parameters import Arena
from nnkit.engine.places import Place, leaves, width_of
from nnkit.engine.segments import segments_for
from nnkit.errors import ConfigError, DataError, ModelFileError
from nnkit.feed.batch import Rows
from nnkit.feed.features import Features, features_from
from nnkit.feed.statistics import RowStatistics
from nnkit.nn.activations import ActivationFunction
from nnkit.nn.layers import (
    Layer,
    activations_of,
    all_layers,
    known_width,
    layer_from_json,
    layers_table,
    place_layers,
)
from nnkit.nn.losses import Loss, loss_from
from nnkit.nn.targets import loss_targets, loss_weights
from nnkit.tensorfile import write_tensors

__all__ = ["MODEL_KIND", "MODEL_VERSION", "PLAIN", "Network"]

MODEL_KIND = "nnkit.model"
MODEL_VERSION = 1
PLAIN = "plain"  # in a model file: no preprocessing, or no encoding of the target


class Network:
    """A network: layers one after the other, and their parameters.

    Parameters
    ----------
    layers : sequence of Layer
        From the inputs to the outputs, embeddings first. The outputs are raw: softmax and sigmoid belong to
        the loss.
    inputs : int, optional
        The number of inputs, without embedded vectors: with an embedding it may be 0. By default, it is taken
        from the data at the first training.
    seed : int
        The seed of the initial weights, which are drawn now if `inputs` is given.
    activations : mapping of str to ActivationFunction, optional
        The layers' activations by name, such as another network's `activations`. Any other name refers to the
        function that is registered when the network is created, and keeps it.

    Attributes
    ----------
    layers : tuple of Layer
        As given.
    activations : dict of str to ActivationFunction
        The layers' activations by name. A pickle holds their names, a deep copy the functions.

    Raises
    ------
    ConfigError
        If there is no layer with weights, or an `Embedding` follows another layer.

    Examples
    --------
    >>> from nnkit import Network, Dense, Dropout
    >>> net = Network([Dense(512, "relu"), Dropout(0.2), Dense(10)], inputs=784)
    >>> net.parameters()["layers.0.weight"].shape
    (784, 512)
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        inputs: int | None = None,
        seed: int = 0,
        *,
        activations: Mapping[str, ActivationFunction] | None = None,
    ) -> None:
        self.layers = tuple(layers)
        self.activations = {**activations_of(self.layers), **(activations or {})}
        parameters = (one for layer in all_layers(self.layers) for one in layer.parameters((1,)).values())
        if not any(parameter.role == "weight" for parameter in parameters):
            raise ConfigError("a network needs at least one layer with a matrix of weights, such as Dense")
        if any(layer.bags for layer in self.layers[len(self.embeddings) :]):
            raise ConfigError("embeddings read the data's ids: they must come first in a network")
        self._inputs: int | None = None
        self._places: tuple[Place, ...] = ()
        self._arena: Arena | None = None
        self._predictors: Predictors | None = None
        if inputs is not None:
            self.initialize(inputs, seed)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_predictors": None}  # compiled programs, prepared again on demand

    def __repr__(self) -> str:
        inputs = "" if self._inputs is None else f", inputs={self._inputs}"
        return f"Network([{', '.join(map(repr, self.layers))}]{inputs})"

    @property
    def embeddings(self) -> tuple[Any, ...]:
        """The layers that read a row's bags of ids."""
        return tuple(layer for layer in self.layers if layer.bags)

    def tables(self) -> list[tuple[Any, NDArray]]:
        """Return the embeddings, each with a copy of its table, (size, width), on the host."""
        values = self.parameters()
        return [
            (place.layer, values[place.parameter_name("weight")]) for place in self.places if place.layer.bags
        ]

    @property
    def inputs(self) -> int | None:
        """The number of inputs without embedded vectors, or None before it is known."""
        return self._inputs

    @property
    def output_width(self) -> int:
        """The number of outputs."""
        width = width_of(self._places[-1].outputs) if self._places else known_width(self.layers)
        if width is None:
            raise ConfigError("the number of outputs depends on the inputs: give the network its `inputs`")
        return width

    @property
    def places(self) -> tuple[Place, ...]:
        """The layers at their places, fused; empty before the number of inputs is known."""
        return self._places

    @property
    def arena(self) -> Arena:
        """The parameters on their device; raises `ConfigError` before they exist."""
        if self._arena is None:
            raise ConfigError("the network has no parameters yet: train it, or call net.initialize(inputs)")
        return self._arena

    def initialize(
        self,
        inputs: int,
        seed: int = 0,
        dtype: DTypeLike = np.float32,
        backend: Backend | None = None,
        values: Mapping[str, ArrayLike] | None = None,
    ) -> None:
        """Draw new weights and put them on a device; biases begin at zero.

        Parameters
        ----------
        inputs : int
            The number of inputs, without embedded vectors.
        seed : int
            In [0, 2**64).
        dtype : dtype
            float32 or float64.
        backend : Backend, optional
            The device; by default the CPU.
        values : mapping of str to array_like, optional
            Initial parameters by name, in place of random ones; all others begin at zero.
        """
        self._inputs = inputs
        self._places = place_layers(self.layers, inputs, self.activations)
        # Allocated first: a network that does not fit into memory fails before any weight is drawn.
        self._create({}, dtype, backend)
        if values is not None:
            self.set_parameters(values)
            return
        for place in leaves(self._places):
            for name, first, values in place.layer.draw(place.inputs, seed, place.number, dtype):
                whole = self.arena.view(place.parameter_name(name))
                self.arena.backend.write(whole[first : first + len(values)], values)

    def prepare(self, statistics: RowStatistics) -> None:
        """Let each layer adapt to statistics of the training rows, before its parameters are drawn."""
        self.layers = tuple(layer.prepared(statistics) for layer in self.layers)

    def place(self, backend: Backend, dtype: DTypeLike) -> None:
        """Move the parameters to a device and a dtype."""
        arena = self.arena
        if arena.backend.name != backend.name or arena.dtype != np.dtype(dtype):
            self._create(arena.to_host(), dtype, backend)
        else:
            arena.backend = backend  # the same device, perhaps with another precision of products
            self._predictors = None

    def _create(self, values: Mapping[str, NDArray], dtype: DTypeLike, backend: Backend | None) -> None:
        self._arena = Arena(segments_for(self._places), backend or select("cpu").backend, dtype)
        self._predictors = None
        self._write(values)

    def _write(self, values: Mapping[str, NDArray]) -> None:
        for name, value in values.items():
            self.arena.backend.write(self.arena.view(name), np.asarray(value, self.arena.dtype))

    def parameters(self) -> dict[str, NDArray]:
        """Return copies on the host: ``layers.0.weight`` (in, out), ``layers.0.bias`` (out,), ..."""
        return self.arena.to_host()

    def set_parameters(self, values: Mapping[str, ArrayLike]) -> None:
        """Copy values into parameters by name; all others stay.

        Raises
        ------
        ConfigError
            If a name is unknown or a shape differs.
        """
        shapes = {segment.name: segment.shape for segment in self.arena.segments}
        arrays = {name: np.asarray(value) for name, value in values.items()}
        for name, array in arrays.items():
            if name not in shapes:
                raise ConfigError(f"the network has no parameter {name!r}; it has {', '.join(shapes)}")
            if array.shape != shapes[name]:
                raise ConfigError(f"parameter {name!r} has shape {shapes[name]}, not {array.shape}")
        self._write(arrays)

    def outputs(self, X: ArrayLike | Features, *, reproducible: bool = False) -> NDArray:
        """Return the raw outputs (logits), shape (samples, outputs), in the network's dtype.

        Parameters
        ----------
        X : array_like, SciPy sparse matrix or data frame of shape (samples, inputs), or Features
            As in training: a uint8 array holds pixels and is divided by 255. A network with embeddings takes
            Features with bags.
        reproducible : bool
            Whether a row's outputs have the same bits in any batch, at any position in it, and with any
            number of BLAS threads; otherwise they agree to rounding. Only on the CPU. Products are then
            computed by a loop on one core: as fast as the BLAS for ten rows; for a thousand rows it takes 1.3
            to 4 times as long as the BLAS on one core.

        Raises
        ------
        ConfigError
            If the network has no parameters yet, or `reproducible` is requested on a GPU.
        DataError
            If the rows do not match the network.
        """
        arena = self.arena
        features = features_from(X, arena.dtype)
        self.check_width(features)
        if not len(features):
            return np.empty((0, self.output_width), arena.dtype)
        if self._predictors is None:
            self._predictors = Predictors(self._places, arena)
        return self._predictors.run(features, reproducible)

    def gradients(
        self,
        X: ArrayLike | Features,
        y: ArrayLike,
        loss: str | Mapping[str, Any] | Loss,
        *,
        sample_weight: ArrayLike | None = None,
        l1: float = 0.0,
        l2: float = 0.0,
    ) -> dict[str, NDArray]:
        """Return the gradient of the mean loss over all rows, without dropout, in the form of `parameters`.

        Parameters
        ----------
        X : array_like of shape (samples, inputs), or Features
            The inputs.
        y : array_like
            Class indices of shape (samples,), or targets of shape (samples,) or (samples, outputs).
        loss : str, mapping or Loss
            As for `Trainer`.
        sample_weight : array_like of shape (samples,), optional
            The weights of the mean.
        l1, l2 : float
            Penalties, as for `Trainer`.
        """
        arena = self.arena
        features = features_from(X, arena.dtype)
        self.check_width(features)
        chosen = loss_from(loss)
        targets = loss_targets(y, chosen, self.output_width, len(features), arena.dtype)
        weights = loss_weights(sample_weight, len(features), arena.dtype)
        rows = Rows(arena.backend, arena.dtype, features, targets, weights)
        _, gradient = FullBatch(self._places, arena, chosen, Penalty(l1, l2), rows).run()
        return {
            segment.name: np.array(arena.view(segment.name, gradient), arena.dtype)
            for segment in arena.segments
        }

    def check_width(self, features: Features) -> None:
        """Raise `DataError` unless the features have the inputs and bags that the network reads."""
        bags, embeddings = features.bags, self.embeddings
        if len(bags) != len(embeddings):
            raise DataError(
                f"the data have {len(bags)} bags of ids a row, and the network begins with {len(embeddings)} "
                "Embedding layers; give Features with as many Bags"
            )
        for number, (held, embedding) in enumerate(zip(bags, embeddings, strict=True)):
            embedding.check_bags(number, held)
        if features.width != self._inputs:
            raise DataError(f"the data have {features.width} features, and the network takes {self._inputs}")

    def save(
        self,
        path: str | os.PathLike[str],
        loss: str | Mapping[str, Any] | Loss,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a model file for `nnkit.load`: one safetensors file without code.

        The model takes rows like `outputs`, and its targets are class indices or plain values.

        Parameters
        ----------
        path : path-like
            The file, written whole or not at all.
        loss : str, mapping or Loss
            The loss of the training, which determines the task and the results of `Model.predict`.
        details : mapping, optional
            Further JSON values.

        Raises
        ------
        ConfigError
            If the loss is unknown, or the network has no parameters yet.
        FileError
            If the file cannot be written.
        """
        metadata = {
            "network": self.to_json(),
            "dtype": self.arena.dtype.name,
            "preprocessing": PLAIN,
            "target": PLAIN,
            "loss": loss_from(loss).to_json(),
            "details": dict(details or {}),
        }
        write_tensors(path, MODEL_KIND, MODEL_VERSION, self.parameters(), metadata)

    def summary(self) -> str:
        """Return a table of the layers with their shapes, as far as known, and numbers of parameters."""
        return layers_table(self.layers, self._inputs, "" if self._arena is None else self._arena.dtype.name)

    def to_json(self) -> dict[str, Any]:
        """Return the description, without the parameters."""
        return {"inputs": self._inputs, "layers": [layer.to_json() for layer in self.layers]}

    @classmethod
    def from_json(
        cls, value: Mapping[str, Any], parameters: Mapping[str, NDArray], dtype: DTypeLike
    ) -> Network:
        """Return the network described, with these parameters."""
        network = cls([layer_from_json(layer) for layer in value["layers"]])
        network._inputs = int(value["inputs"])
        if network._inputs < 0:
            raise ModelFileError(f"the model has {network._inputs} inputs")
        network._places = place_layers(network.layers, network._inputs, network.activations)
        # Checked before allocating: the layers in a hostile file may claim more memory than any machine has.
        segments = segments_for(network._places)
        described = {segment.name: (segment.shape, np.dtype(dtype)) for segment in segments}
        found = {name: (array.shape, array.dtype) for name, array in parameters.items()}
        names = {*described, *found}
        differing = sorted(name for name in names if described.get(name) != found.get(name))
        if differing:
            raise ModelFileError(f"the parameters do not match the layers: {', '.join(differing)}")
        network._create(parameters, dtype, None)
        return network
