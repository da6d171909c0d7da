"""The arrays of a pass: what layers keep from forward to backward, and the derivatives between layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nnkit.backends.operations import Array
from nnkit.engine.parameters import Arena
from nnkit.engine.precision import HalfPrecision, padded

__all__ = ["RowGradient", "Workspace"]


class RowGradient:
    """The gradient of a table's rows that the last batch looked up.

    Attributes
    ----------
    name : str
        The table's full name.
    size : int
        The number of rows of the table.
    gradient : array of shape (rows, width)
        A row for each of `rows_seen`.
    rows_seen : array of shape (rows,), int32
        The table's rows that the last batch looked up, each once.
    seen : array of shape (1,), int64
        The number of valid entries of `rows_seen`.
    """

    def __init__(self, arena: Arena, name: str, rows: int) -> None:
        self._arena = arena
        self.name = name
        self.size, width = arena.view(name).shape
        self.rows_seen = arena.backend.zeros(rows, np.int32)
        self.seen = arena.backend.zeros(1, np.int64)
        self.gradient = arena.backend.zeros((rows, width), arena.dtype)

    def arguments(self) -> Mapping[str, Array]:
        """Return the arguments of the kernels over these rows."""
        return {
            "table": self._arena.view(self.name),
            "gradient": self.gradient,
            "rows_seen": self.rows_seen,
            "seen": self.seen,
        }

    def scatter(self, dense: NDArray) -> None:
        """Write the gradient into zeros of the table's shape on the host; waits for the device."""
        to_host = self._arena.backend.to_host
        count = int(to_host(self.seen)[0])
        dense[to_host(self.rows_seen)[:count]] = to_host(self.gradient)[:count]


class Workspace:
    """The arrays for batches of up to `capacity` rows.

    Parameters
    ----------
    arena, capacity, training, drops, gradients, most_tokens, half
        As for `Passes`.
    widest : int
        The maximum number of columns of a derivative.
    joins : bool
        Whether an ensemble joins its members' outputs.

    Attributes
    ----------
    dtype : dtype
        The type of activations and their derivatives.
    row_gradients : dict of str to RowGradient
        By the table's name.
    homes : dict of int to (int, str) or None
        By a layer's index, the array that holds its outputs: the owner's index and the array's name; None for
        the batch's inputs.
    """

    def __init__(
        self,
        arena: Arena,
        capacity: int,
        training: bool,
        drops: bool,
        gradients: Array | None,
        widest: int,
        most_tokens: Sequence[int],
        half: HalfPrecision | None,
        joins: bool,
    ) -> None:
        self.arena = arena
        self.capacity = capacity
        self.training = training
        self.drops = drops
        self.gradients = gradients
        self.most_tokens = most_tokens
        self.half = half
        self.joins = joins
        self.dtype = arena.dtype if half is None else half.dtype
        self.row_gradients: dict[str, RowGradient] = {}
        self.homes: dict[int, tuple[int, str] | None] = {}
        self._widest = self.padded(widest)
        self._buffers: dict[tuple[int, str], Array] = {}
        self._scratch: dict[tuple[int, str], Array] = {}
        self._free: list[Array] = []
        # Keyed by the id of the view handed out, which stays alive here: no other array can have that id.
        self._taken: dict[int, tuple[Array, Array]] = {}

    def padded(self, width: int) -> int:
        """Return the number of allocated columns."""
        return padded(width, self.half)

    def buffer(
        self, index: int, name: str, columns: tuple[int, ...], dtype: DTypeLike, zeroed: bool = False
    ) -> Array:
        """Return a layer's array of this name, shape (capacity, *columns); the same at each call."""
        key = (index, name)
        if key not in self._buffers:
            allocate = self.arena.backend.zeros if zeroed else self.arena.backend.empty
            self._buffers[key] = allocate((self.capacity, *columns), dtype)
        return self._buffers[key]

    def scratch(self, index: int, name: str, shape: int | tuple[int, ...], dtype: DTypeLike) -> Array:
        """Return a layer's array of this name and shape, initially zero; the same at each call."""
        key = (index, name)
        if key not in self._scratch:
            self._scratch[key] = self.arena.backend.zeros(shape, dtype)
        return self._scratch[key]

    def constant(self, index: int, name: str, values: NDArray) -> Array:
        """Return a layer's read-only array of this name, with these values when it is first asked for."""
        key = (index, name)
        if key not in self._scratch:
            self._scratch[key] = self.arena.backend.from_host(values)
        return self._scratch[key]

    def kept(self, index: int, name: str, rows: int) -> Array | None:
        """Return the first rows of a layer's buffer, None if it has none of that name."""
        found = self._buffers.get((index, name))
        return None if found is None else found[:rows]

    @property
    def nbytes(self) -> int:
        """The memory of the layers' buffers."""
        return sum(int(array.nbytes) for array in self._buffers.values())

    def take(self, rows: int, columns: int) -> Array:
        """Return an array for a derivative, (rows, columns), reserved until it is released."""
        size = self.capacity * max(columns, self._widest)
        fitting = [number for number, array in enumerate(self._free) if array.shape[0] >= rows * columns]
        flat = self._free.pop(fitting[-1]) if fitting else self.arena.backend.empty(size, self.dtype)
        view = flat[: rows * columns].reshape(rows, columns)
        self._taken[id(view)] = (view, flat)
        return view

    def release(self, view: Array) -> None:
        """Let operations that follow reuse an array of `take`; any other array is ignored."""
        _, flat = self._taken.pop(id(view), (None, None))
        if flat is not None:
            self._free.append(flat)

    def release_all(self) -> None:
        """Release all arrays: none of them is needed by the operations that follow."""
        for view, _ in list(self._taken.values()):
            self.release(view)

    def row_gradient(self, name: str, bag: int) -> RowGradient:
        """Return the gradient of the table of this name, which is looked up by the ids of a bag."""
        if name not in self.row_gradients:
            rows = min(max(1, self.most_tokens[bag]), self.arena.view(name).shape[0])
            self.row_gradients[name] = RowGradient(self.arena, name, rows)
        return self.row_gradients[name]
