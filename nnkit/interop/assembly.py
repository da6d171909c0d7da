"""A network put together from another library's layers, whose shapes must chain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nnkit.engine.places import Shape, parameter_name, width_of
from nnkit.errors import ConfigError
from nnkit.interop.torch_pieces import piece_of
from nnkit.model import Model
from nnkit.nn.layers import Layer
from nnkit.nn.network import Network

__all__ = ["Part", "Parts", "assembled", "model_like"]

_OF_TRAINING = ("metrics", "best_threshold")  # details that another network's training makes wrong


@dataclass(frozen=True, eq=False)
class Part:
    """A layer read from another library.

    Parameters
    ----------
    layer : Layer
    where : str
        Its place and kind there, for messages.
    parameters : sequence of mapping of str to ndarray
        Of each layer with parameters in it, in execution order: their values by short names.
    takes : int or None
        The number of its inputs; None for any.
    grows : int
        How many more outputs than inputs it has, where it takes any number.
    """

    layer: Layer
    where: str
    parameters: Sequence[dict[str, NDArray]] = ()
    takes: int | None = None
    grows: int = 0


@dataclass(eq=False)
class Parts:
    """Layers one after the other, with the shape of a row so far; None while any fits."""

    shape: Shape | None = None
    parts: list[Part] = field(default_factory=list)

    @property
    def layers(self) -> list[Layer]:
        """The layers."""
        return [part.layer for part in self.parts]

    @property
    def parameters(self) -> list[dict[str, NDArray]]:
        """The parameters of all layers that have any."""
        return [values for part in self.parts for values in part.parameters]

    @property
    def takes(self) -> int | None:
        """The number of inputs; None for any."""
        grown = 0
        for part in self.parts:
            if part.takes is not None:
                return part.takes - grown
            grown += part.grows
        return None

    def add(self, part: Part) -> None:
        """Append a layer, whose number of inputs must be that of the outputs before it."""
        if self.shape is None and part.takes is not None:
            self.shape = (part.takes,)
        elif part.takes is not None and width_of(self.shape or ()) != part.takes:
            before = width_of(self.shape or ())
            raise ConfigError(f"{part.where} takes {part.takes} inputs, and {before} come before it")
        self.parts.append(part)
        if self.shape is not None:
            try:
                self.shape = part.layer.output_shape(self.shape)
            except ConfigError as error:
                raise ConfigError(f"{part.where}: {error}") from error


def assembled(parts: Parts, inputs: int | None, dtype: DTypeLike) -> Network:
    """Return the network with these layers and parameters.

    Raises
    ------
    ConfigError
        If no layer has weights, or they do not fit together.
    """
    network = Network(parts.layers)
    named = {
        parameter_name(number, name): np.asarray(values)
        for number, of_layer in enumerate(parts.parameters)
        for name, values in of_layer.items()
    }
    if inputs is None:
        raise ConfigError("the number of inputs is unknown: no layer tells how many it takes")
    network.initialize(inputs, dtype=dtype, values=named)
    return network


def model_like(like: Model, network: Network) -> Model:
    """Return a model with a network that was trained elsewhere: without its metrics.

    Raises
    ------
    ConfigError
        If its inputs, embeddings or outputs are not those of the model.
    """
    wanted = (like.preprocessor.width, like.preprocessor.embedding_sizes, like.target.outputs)
    found = (network.inputs, tuple(layer.size for layer in network.embeddings), network.output_width)
    if found != wanted:
        sizes = "{} inputs, tables of {} rows and {} outputs"
        raise ConfigError(
            f"the network has {sizes.format(*found)}; the model of `like` has {sizes.format(*wanted)}"
        )
    for layer in network.layers:
        layer.check_link(like.loss.link)
    dtype = np.dtype(like.preprocessor.dtype)
    network.place(network.arena.backend, dtype)
    if not like.others and piece_of(network).outline() == piece_of(like.network).outline():
        # The same layers, described as they were: with initializers and factors of the learning rate.
        given, network = network, Network(like.network.layers)
        network.initialize(given.inputs or 0, dtype=dtype, values=given.parameters())
    details = {name: value for name, value in like.details.items() if name not in _OF_TRAINING}
    return replace(like, network=network, details=details, estimator=None, others=())
