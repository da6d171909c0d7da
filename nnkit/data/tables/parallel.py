"""Work on the columns of a table, by several threads where the columns are long."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from nnkit.backends.blas import usable_cores

__all__ = ["each_column"]

# Arrow and NumPy work without Python's lock; on shorter columns they are done before another thread begins.
_FEWEST_ROWS = 20_000
_Column = TypeVar("_Column")
_Result = TypeVar("_Result")


def each_column(
    function: Callable[[_Column], _Result], columns: Sequence[_Column], rows: int
) -> list[_Result]:
    """Return what a function makes of each column, of which each has so many rows."""
    if rows < _FEWEST_ROWS or len(columns) < 2:
        return [function(column) for column in columns]
    with ThreadPoolExecutor(usable_cores()) as pool:
        return list(pool.map(function, columns))
