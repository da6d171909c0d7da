"""An embedding within the passes: the lookup of a batch's bags, and the gradient of the rows it saw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.backends.protocol import Array, Operation
from nnkit.core.batch import BagRows, Batch
from nnkit.core.layers import Table
from nnkit.core.parameters import Arena

__all__ = ["Lookup"]


class Lookup:
    """The buffers of a table for batches of up to `capacity` rows, and the operations over them.

    Parameters
    ----------
    table : Table
        The embedding.
    number : int
        Its place among the batch's bags.
    arena : Arena
        With its vectors.
    capacity : int
        The nominal batch.
    tokens : int or None
        The most ids that a batch holds; None where no gradient is wanted.

    Attributes
    ----------
    table : Table
        As given.
    gradient : array of shape (rows, width)
        Of the rows that the last batch saw, in the order in which `rows_seen` names them.
    rows_seen : array of shape (rows,), int32
        The rows of the table that the last batch looked up, each once.
    seen : array of shape (1,), int64
        How many those are.
    """

    def __init__(self, table: Table, number: int, arena: Arena, capacity: int, tokens: int | None) -> None:
        backend = arena.backend
        self.table = table
        self._number = number
        self._arena = arena
        self._capacity = capacity
        self._training = tokens is not None
        self._totals = backend.zeros(capacity, arena.dtype)
        self._peaks: Array | None = None
        self._others = {"partial": backend.zeros(table.width, arena.dtype)}
        if tokens is None:
            return
        tokens = max(1, tokens)
        rows = min(tokens, table.size)
        self.rows_seen = backend.zeros(rows, np.int32)
        self.seen = backend.zeros(1, np.int64)
        self.gradient = backend.zeros((rows, table.width), arena.dtype)
        if table.reduce == "max":
            self._peaks = backend.zeros((capacity, table.width), np.int32)
        # How a batch's tokens are brought together: on the host by places in a list, on a GPU by sorting.
        self._others |= {
            "slots": backend.zeros(table.size, np.int32),
            "places": backend.zeros(tokens, np.int32),
            "owners": backend.zeros(tokens, np.int32),
            "offsets": backend.zeros(tokens, np.int32),
            "runs": backend.zeros(tokens, np.int32),
            "run_starts": backend.zeros(rows + 1, np.int32),
        }

    @property
    def name(self) -> str:
        """The table's name among the parameters."""
        return f"layers.{self.table.layer}.weight"

    def number(self, batch: Batch, counters: Array) -> Operation:
        """Prepare numbering the rows of the table that the batch's bags name."""
        return self._kernel("number", self._arguments(batch, counters), batch)

    def forward(self, batch: Batch, counters: Array) -> Operation:
        """Prepare filling the table's columns of the batch's inputs."""
        arguments = {**self._arguments(batch, counters), "inputs": batch.inputs}
        return self._kernel("embed", {**arguments, "column": self.table.column}, batch)

    def backward(self, batch: Batch, counters: Array, delta: Array, column: int) -> Operation:
        """Prepare the gradient of the rows seen, from the derivative by the inputs.

        Parameters
        ----------
        batch : Batch
            As `number` and `forward` had it.
        counters : array
            The step's.
        delta : array of shape (rows, columns)
            The derivative by the batch's inputs, or by some of them.
        column : int
            Where the table's begin in `delta`.
        """
        arguments = {**self._arguments(batch, counters), "delta": delta, "column": column}
        return self._kernel("embed_gradient", arguments, batch)

    def seen_arguments(self) -> dict[str, Any]:
        """Return what the kernels over the rows seen read: the table, its gradient, and which rows."""
        return {
            "table": self._arena.view(self.name),
            "gradient": self.gradient,
            "rows_seen": self.rows_seen,
            "seen": self.seen,
        }

    def scatter(self, dense: NDArray) -> None:
        """Write the gradient into zeros of the table's shape on the host; waits for the device."""
        backend = self._arena.backend
        count = int(backend.to_host(self.seen)[0])
        dense[backend.to_host(self.rows_seen)[:count]] = backend.to_host(self.gradient)[:count]

    def _arguments(self, batch: Batch, counters: Array) -> dict[str, Any]:
        bags: BagRows = batch.bags[self._number]
        arguments: dict[str, Any] = {
            "table": self._arena.view(self.name),
            "ids": bags.ids,
            "starts": bags.starts,
            "id_weights": bags.weights,
            "order": bags.order,
            "counters": counters,
            "batch_size": self._capacity,
            "totals": self._totals[: batch.capacity],
            "peaks": None if self._peaks is None else self._peaks[: batch.capacity],
            **self._others,
        }
        return {**arguments, **self.seen_arguments()} if self._training else arguments

    def _kernel(self, name: str, arguments: Mapping[str, Any], batch: Batch) -> Operation:
        bags = batch.bags[self._number]
        constants = {
            "GRADIENT": self._training,
            "MAX": self.table.reduce == "max",
            "MEAN": self.table.reduce == "mean",
            "SHUFFLED": bags.order is not None,
            "WEIGHTED": bags.weights is not None,
        }
        return self._arena.backend.kernel(name, self._arena.dtype, {}, constants, arguments)
