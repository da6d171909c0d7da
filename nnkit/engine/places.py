"""Layers at their places in a network: names, shapes and parameters, independent of the kind of layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal

__all__ = [
    "Parameter",
    "Place",
    "Role",
    "Shape",
    "head_places",
    "leaves",
    "named_groups",
    "parameter_name",
    "width_of",
]

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
        A matrix of weights, a vector that is added, a vector of factors, or an embedding table, of which a
        batch reads and trains some rows.
    decays : bool
        Whether L1, L2 and weight decay apply.
    trains : bool
        False for a frozen parameter: no update, no penalty, no part of the gradient's norm.
    rate : float
        The factor of the learning rate.
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
    layer : nnkit.nn.layers.Layer
        The description, with the layers that were fused into it.
    number : int
        Its position among the layers with parameters, in execution order. Names and initial values of
        parameters depend on it.
    index : int
        Its position among all layers after fusion; its random draws are a function of it. A container comes
        after its layers. Layers that read bags are counted separately, from -1 downwards.
    inputs, outputs : tuple of int
        The shapes of a row before and after it.
    functions : mapping of str to ActivationFunction
        The activations of the network, by name.
    first_bag : int
        The first of the bags that it reads.
    children : tuple of Place
        For a container: the layers in it, one copy after the other if it has several.
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
        """The layer's own parameters, by their full names."""
        own = self.layer.parameters(self.inputs)
        return {self.parameter_name(name): parameter for name, parameter in own.items()}

    @property
    def branches(self) -> tuple[tuple[Place, ...], ...]:
        """For a container: each copy of the layers in it."""
        copies, children = self.layer.copies, self.children
        size = len(children) // copies
        return tuple(children[number * size : (number + 1) * size] for number in range(copies))

    @property
    def name(self) -> str:
        """The prefix of its parameters' names, such as ``layers.0``."""
        return f"layers.{self.number}"

    def parameter_name(self, name: str) -> str:
        """Return the full name of one of its parameters."""
        return parameter_name(self.number, name)


def parameter_name(number: int, name: str) -> str:
    """Return the full name of a parameter of the layer with that number, such as ``layers.0.weight``."""
    return f"layers.{number}.{name}"


def leaves(places: Sequence[Place]) -> Iterator[Place]:
    """Yield all layers in execution order: the layers of a container, then the container itself."""
    for place in places:
        yield from leaves(place.children)
        yield place


def head_places(places: Sequence[Place]) -> list[Place]:
    """Return the head: the last layer with parameters; in an ensemble, that of each member."""
    for place in reversed(places):
        if place.children:
            return [head for branch in place.branches for head in head_places(branch)]
        if place.parameters:
            return [place]
    return []


def named_groups(
    groups: Mapping[str, Mapping[str, Any]], places: Sequence[Place]
) -> dict[str, dict[str, Any]]:
    """Return parameter groups with layers' names in place of ``head`` and ``rest``.

    The head is that of `head_places`, the rest are all other layers; other names take precedence.
    """
    heads = {place.name for place in head_places(places)}
    rest = {place.name for place in leaves(places) if place.parameters} - heads
    named = [
        (name, groups[key])
        for key, names in (("rest", rest), ("head", heads))
        if key in groups
        for name in names
    ]
    found: dict[str, dict[str, Any]] = {}
    for name, values in [*named, *((key, groups[key]) for key in groups if key not in ("head", "rest"))]:
        found[name] = {**found.get(name, {}), **values}
    return found


def width_of(shape: Shape) -> int:
    """Return the number of elements of a row."""
    return prod(shape)
