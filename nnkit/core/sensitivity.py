"""The derivative of a network's outputs by its inputs: the backward pass, carried on to what went in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nnkit.core.batch import Batch, Rows
from nnkit.core.features import Features
from nnkit.core.inference import Inference
from nnkit.core.layers import Stage
from nnkit.core.losses import Loss
from nnkit.core.parameters import Arena
from nnkit.core.passes import Passes
from nnkit.kernels.layout import COUNTERS, SCALARS

__all__ = ["Sensitivity"]

# As many rows at once as keep the widest buffer to some megabytes.
_CHUNK_ELEMENTS, _FEWEST_ROWS, _MOST_ROWS = 2**20, 64, 4096


def weighted_output(y, t):  # type: ignore[no-untyped-def]
    """Return an output times its weight: as a loss, summed over the outputs, what is differentiated."""
    return y * t


def weighted_output_derivative(y, t):  # type: ignore[no-untyped-def]
    """Return its derivative by the output."""
    return t


_WEIGHTED = Loss("weighted_output", "identity", weighted_output, weighted_output_derivative, reduction="sum")


class Sensitivity:
    """Outputs and their derivatives, as functions of what enters the first stage.

    Those are the dense inputs, one-hot places among them, and after them what the bags are embedded in.

    Parameters
    ----------
    stages : sequence of Stage
        The network.
    arena : Arena
        Its parameters, read anew at each call.

    Attributes
    ----------
    inputs : int
        The number of inputs of the first stage.
    output_count : int
        The number of the network's outputs.
    epsilon : float
        The rounding of the network's dtype.
    """

    def __init__(self, stages: Sequence[Stage], arena: Arena) -> None:
        backend = arena.backend
        # What is embedded is given as numbers here, so that a path may lead through them.
        self._stages = [replace(stage, dropout=0.0, tables=()) for stage in stages]
        self._arena = arena
        self.epsilon = float(np.finfo(arena.dtype).eps)
        self.inputs = stages[0].inputs
        widest = max(self.inputs, *(max(stage.inputs, stage.outputs) for stage in stages))
        self._chunk = min(max(_CHUNK_ELEMENTS // widest, _FEWEST_ROWS), _MOST_ROWS)
        outputs = self.output_count = stages[-1].outputs
        buffers = {
            "inputs": backend.zeros((self._chunk, self.inputs), arena.dtype),
            "labels": backend.zeros((self._chunk, outputs), arena.dtype),
        }
        self._batch = Batch(buffers, self._chunk, backend.zeros(1, np.int64))
        counters, self._scalars = backend.zeros(COUNTERS, np.int64), backend.zeros(SCALARS, np.float64)
        self._gradient = backend.empty((self._chunk, self.inputs), arena.dtype)
        passes = Passes(self._stages, arena, self._chunk, training=True)
        self._program = backend.program(
            [
                *passes.forward(self._batch, counters, seed=0),
                # A nominal batch of 1: the gradient of the sum, and not of the mean.
                passes.loss(_WEIGHTED, self._batch, self._scalars, 1),
                *passes.backward(self._batch, counters, self._gradient),
            ]
        )

    def outputs(self, inputs: NDArray) -> NDArray:
        """Return the network's outputs, shape (rows, outputs), for inputs of shape (rows, inputs)."""
        dense = np.ascontiguousarray(inputs, self._arena.dtype)
        rows = Rows(self._arena.backend, self._arena.dtype, Features(dense))
        return Inference(self._stages, self._arena, rows).run()[0]

    def gradients(self, inputs: NDArray, weights: NDArray) -> NDArray:
        """Return the derivative by each row's inputs of its outputs' weighted sum.

        Parameters
        ----------
        inputs : ndarray of shape (rows, inputs)
        weights : ndarray of shape (rows, outputs)
            One-hot for the derivative of one output.

        Returns
        -------
        ndarray of shape (rows, inputs), in the network's dtype
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
