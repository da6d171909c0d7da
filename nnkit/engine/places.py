"""Layers at their places in a network, whatever kind they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal

__all__ = ["Parameter", "Place", "Role", "Shape", "leaves", "parameter_name", "width_of"]

Shape = tuple[int, ...]
"""A row's shape: (features,), (channels, height, width) or (steps, width); in memory a row is flat."""

Role = Literal["weight", "bias", "scale", "table"]


@dataclass(frozen=True)
class Parameter:
    """An array that a layer keeps and trains.

    Parameters
    ----------
    shape : tuple of int
        Its shape.
    role : {"weight", "bias", "scale", "table"}
        A matrix of weights, a vector that is added, a vector of factors, or a table that only some rows of
        are read and trained at a time.
    decays : bool
        Whether L1, L2 and weight decay touch it.
    trains : bool
        Whether it is trained; if not, it is frozen: no update, no penalty, no part of the gradient's norm.
    rate : float
        What the learning rate is multiplied by for it.
    """

    shape: Shape
    role: Role
    decays: bool
    trains: bool = True
    rate: float = 1.0


@dataclass(frozen=True)
class Place:
    """A layer at its place in a network.

    Parameters
    ----------
    layer : nnkit.engine.layer_pass.Layer
        The description, with what was fused into it.
    number : int
        Its place among the layers that have parameters, in the order in which they run, by which these are
        named and drawn.
    index : int
        Its place among all layers, once they are fused, which its random draws are a function of; a container
        comes after its layers. Layers that read bags are counted by themselves, from -1 downwards.
    inputs, outputs : tuple of int
        The shapes of a row before and after it.
    functions : mapping of str to ActivationFunction
        What the names of activations mean in this network.
    first_bag : int
        The first of the bags that it reads.
    children : tuple of Place
        Of a container: the layers in it.
    """

    layer: Any
    number: int
    index: int
    inputs: Shape
    outputs: Shape
    functions: Mapping[str, Any] = field(default_factory=dict)
    first_bag: int = 0
    children: tuple[Place, ...] = ()

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """The parameters of its own, by their full names."""
        own = self.layer.parameters(self.inputs)
        return {self.parameter_name(name): parameter for name, parameter in own.items()}

    @property
    def name(self) -> str:
        """What its parameters' names begin with, such as ``layers.0``; of a layer that has some."""
        return f"layers.{self.number}"

    def parameter_name(self, name: str) -> str:
        """Return the full name of one of its parameters."""
        return f"{self.name}.{name}"


def parameter_name(number: int, name: str) -> str:
    """Return the full name of a parameter, such as ``layers.0.weight``, of a layer of that number."""
    return Place(None, number, 0, (), ()).parameter_name(name)


def leaves(places: Sequence[Place]) -> Iterator[Place]:
    """Yield the layers that compute something themselves, in the order in which they run."""
    for place in places:
        if place.children:
            yield from leaves(place.children)
        yield place


def width_of(shape: Shape) -> int:
    """Return how many numbers a row has."""
    return prod(shape)
