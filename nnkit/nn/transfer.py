"""Carry a network's parameters over to one with more inputs, larger tables, or other outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from nnkit.engine.places import Parameter, Place, head_places, width_of
from nnkit.nn.layers import Layer, layer_from_json
from nnkit.nn.network import Network

__all__ = ["resized_layers", "transferred"]

Moves = NDArray[np.int64]
"""Where each column or row of an array is in a larger one."""


def resized_layers(
    layers: Sequence[Layer], outputs: int, link: str, tables: Sequence[int] = ()
) -> list[Layer]:
    """Return layers with another number of outputs, another link of an ensemble, and tables of other sizes.

    Parameters
    ----------
    layers : sequence of Layer
        Of a network.
    outputs : int
        The units of the last layer that has units.
    link : str
        That of the loss.
    tables : sequence of int
        The number of rows of each embedding's table.
    """
    described = [layer.to_json() for layer in layers]
    for description, size in zip(described, tables, strict=False):
        description["size"] = size
    inner = described
    while "layers" in inner[-1]:
        if "link" in inner[-1]:
            inner[-1]["link"] = link
        inner = inner[-1]["layers"]
    last = next(description for description in reversed(inner) if "units" in description)
    last["units"] = outputs
    return [layer_from_json(description) for description in described]


def transferred(
    network: Network,
    layers: Sequence[Layer],
    inputs: int,
    moved_inputs: Moves,
    moved_rows: Sequence[Moves] = (),
    moved_outputs: Moves | None = None,
    seed: int = 0,
) -> Network:
    """Return a network with the parameters of another one; it predicts the same for what that one knew.

    What is new has weights of zero, so that a new category counts for nothing until it is learnt.

    Parameters
    ----------
    network : Network
        With its parameters.
    layers : sequence of Layer
        As those of `network`, from `resized_layers`.
    inputs : int
        The number of inputs, without embedded vectors.
    moved_inputs : ndarray of int64
        The place of each of `network`'s inputs among the new ones.
    moved_rows : sequence of ndarray of int64
        For each embedding, the place of each row of its table in the new table.
    moved_outputs : ndarray of int64, optional
        The place of each of `network`'s outputs among the new ones; by default the parameters of the last
        layer are drawn anew.
    seed : int
        The seed of what is drawn.
    """
    new = Network(layers, activations=network.activations)
    new.initialize(inputs, seed, network.arena.dtype)
    old_values, values = network.parameters(), new.parameters()
    heads = {place.number for place in head_places(network.places)}
    moved: dict[str, NDArray] = {}
    for old, current, columns in _pairs(network.places, new.places, moved_inputs):
        is_head = old.number in heads
        if is_head and moved_outputs is None:
            continue
        outputs = moved_outputs if is_head else None
        rows = moved_rows[old.first_bag] if old.layer.bags else columns
        added = width_of(current.inputs) - width_of(old.inputs)
        for (name, before), after in zip(old.parameters.items(), current.parameters.values(), strict=True):
            axes = [_moves(axis, before, after, rows, outputs, added) for axis in range(len(before.shape))]
            target = np.zeros_like(values[name]) if before.role != "scale" else values[name]
            target[np.ix_(*axes)] = old_values[name]
            moved[name] = target
    new.set_parameters(moved)
    return new


def _pairs(
    old: Sequence[Place], new: Sequence[Place], columns: Moves
) -> Iterator[tuple[Place, Place, Moves]]:
    """Yield each layer of both networks with the moves of its inputs; for a container, the layers in it."""
    for before, after in zip(old, new, strict=True):
        if before.children:
            for inside, inside_after in zip(before.branches, after.branches, strict=True):
                yield from _pairs(inside, inside_after, columns)
        else:
            yield before, after, columns
        columns = _after(before, after, columns)


def _after(old: Place, new: Place, columns: Moves) -> Moves:
    """Return the moves of a layer's outputs, given those of its inputs."""
    first, count = old.layer.first_copied(old.inputs), width_of(old.outputs)
    if first is None:
        return np.arange(count)
    added = width_of(new.outputs) - count
    following = np.arange(first + len(columns), count) + added
    return np.concatenate([np.arange(first), columns + first, following])


def _moves(
    axis: int, old: Parameter, new: Parameter, columns: Moves, outputs: Moves | None, added: int
) -> Moves:
    """Return the place of each element of an axis of a parameter on that axis of the new one."""
    length = old.shape[axis]
    if length == new.shape[axis]:
        return np.arange(length)
    if outputs is not None and axis == len(old.shape) - 1:
        return outputs
    # The shares of bins follow the inputs.
    return np.concatenate([columns, np.arange(len(columns), length) + added])
