"""The derivative of a network's outputs with respect to its inputs, by a backward pass down to the inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from nnkit.engine.inference import Inference
from nnkit.engine.parameters import Arena
from nnkit.engine.passes import Passes
from nnkit.engine.places import Place, leaves, width_of
from nnkit.feed.batch import Batch, Rows
from nnkit.feed.features import Features
from nnkit.kernels.layout import COUNTERS, SCALARS

__all__ = ["InputGradient"]

# Rows of a chunk: the widest buffer takes a few megabytes.
_CHUNK_ELEMENTS, _FEWEST_ROWS, _MOST_ROWS = 2**20, 64, 4096


def weighted_output(y, t):  # type: ignore[no-untyped-def]
    return y * t


def weighted_output_derivative(y, t):  # type: ignore[no-untyped-def]
    return t


class _WeightedOutputs:
    """A loss that is the sum of the outputs times their weights."""

    kernel: ClassVar[str] = "elementwise_loss"
    formulas: ClassVar[dict[str, Callable]] = {
        "value": weighted_output,
        "derivative": weighted_output_derivative,
    }
    kernel_constants: ClassVar[dict[str, bool | float]] = {"SUMMED": True, "CEILED": False}


class InputGradient:
    """Outputs and their derivatives, as functions of the first layer's inputs.

    These are the dense inputs, one-hot columns included, followed by the embedded vectors.

    Parameters
    ----------
    places, arena
        The network and its parameters, which are read at each call.

    Attributes
    ----------
    inputs, output_count : int
        The number of inputs of the first layer, and of the network's outputs.
    epsilon : float
        The rounding of the network's dtype.
    """

    def __init__(self, places: Sequence[Place], arena: Arena) -> None:
        backend = arena.backend
        # Embedded vectors are inputs here, so that a path of integration may lead through them.
        self._places = [place for place in places if not place.layer.bags]
        self._arena = arena
        self.epsilon = float(np.finfo(arena.dtype).eps)
        self.inputs = width_of(self._places[0].inputs)
        widest = max(self.inputs, *(width_of(place.outputs) for place in leaves(self._places)))
        self._chunk = min(max(_CHUNK_ELEMENTS // widest, _FEWEST_ROWS), _MOST_ROWS)
        self.output_count = width_of(places[-1].outputs)
        buffers = {
            "inputs": backend.zeros((self._chunk, self.inputs), arena.dtype),
            "labels": backend.zeros((self._chunk, self.output_count), arena.dtype),
        }
        self._batch = Batch(buffers, self._chunk, backend.zeros(1, np.int64))
        counters, self._scalars = backend.zeros(COUNTERS, np.int64), backend.zeros(SCALARS, np.float64)
        self._gradient = backend.empty((self._chunk, self.inputs), arena.dtype)
        passes = Passes(self._places, arena, self._chunk, training=True, drops=False, joins=True)
        self._program = backend.compile(
            [
                *passes.forward(self._batch, counters, seed=0),
                # A nominal batch of 1: the gradient of the sum, not of the mean.
                passes.loss(_WeightedOutputs(), self._batch, self._scalars, 1),
                *passes.backward(self._gradient),
            ]
        )

    def outputs(self, inputs: NDArray) -> NDArray:
        """Return the network's outputs, shape (rows, outputs), for inputs of shape (rows, inputs)."""
        dense = np.ascontiguousarray(inputs, self._arena.dtype)
        rows = Rows(self._arena.backend, self._arena.dtype, Features(dense))
        return Inference(self._places, self._arena, rows).run()[0]

    def gradients(self, inputs: NDArray, weights: NDArray) -> NDArray:
        """Return the derivative of a weighted sum of each row's outputs with respect to its inputs.

        It has shape (rows, inputs) and the network's dtype.

        Parameters
        ----------
        inputs : ndarray of shape (rows, inputs)
        weights : ndarray of shape (rows, outputs)
            One-hot for the derivative of one output.
        """
        backend, dtype = self._arena.backend, self._arena.dtype
        found = np.empty((len(inputs), self.inputs), dtype)
        for first in range(0, len(inputs), self._chunk):
            place = slice(first, first + self._chunk)
            count = len(inputs[place])
            backend.write(self._batch.inputs[:count], np.ascontiguousarray(inputs[place], dtype))
            backend.write(self._batch.buffers["labels"][:count], np.ascontiguousarray(weights[place], dtype))
            backend.write(self._batch.count, count)
            backend.write(self._scalars, 0.0)
            self._program.run()
            found[place] = backend.to_host(self._gradient)[:count]
        return found
