"""The history of a training: one row of numbers for each epoch, accessible by column, stored as JSON."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.errors import DataError, FileError, shown, unknown_name
from nnkit.files import write_whole

__all__ = ["History"]

_WHOLE = ("epoch", "step", "skipped_steps")
_SHOWN = 12
_WHOLE_NUMBERS = range(-(2**63), 2**63)  # those of a column


class History:
    """The losses, metrics and speed of a training, one row for each epoch.

    ``history["loss"]`` is a column, ``history.rows[-1]`` the last row; iterating yields the rows.

    Parameters
    ----------
    monitor : str, optional
        The column that decides which epoch is best; by default validation_loss if there is one, else loss.
    greater_is_better : bool
        Whether higher is better in that column.

    Attributes
    ----------
    rows : list of dict
        Each has "epoch" (counted from 1), "step", "loss", "learning_rate", "seconds", "samples_per_second";
        with validation, "validation_loss" and each metric as "validation_<name>"; in fp16, "loss_scale" at
        the end of the epoch and "skipped_steps", the number of steps so far whose gradient overflowed.
    """

    def __init__(self, monitor: str | None = None, greater_is_better: bool = False) -> None:
        self.monitor = monitor
        self.greater_is_better = greater_is_better
        self.rows: list[dict[str, float]] = []

    def append(self, row: Mapping[str, float]) -> None:
        """Add a row: numbers by name, including "epoch".

        Raises
        ------
        DataError
            If the epoch does not come after the last one, or a value is not a number.
        """
        self.rows.append(_row(row, self.rows[-1]["epoch"] if self.rows else 0))

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns, in the order of their first occurrence."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row))

    def __getitem__(self, column: str) -> NDArray:
        """Return a column of shape (epochs,), int64 for counts, else float64 with NaN for missing values.

        Raises
        ------
        KeyError
            If no row has it.
        """
        if column not in self.columns:
            raise KeyError(str(unknown_name("column of the history", str(column), self.columns)))
        values = [row.get(column, math.nan) for row in self.rows]
        whole = column in _WHOLE and all(isinstance(value, int) for value in values)
        return np.array(values, dtype=np.int64 if whole else np.float64)

    def __contains__(self, column: object) -> bool:
        return column in self.columns

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, float]]:
        return iter(self.rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, History) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]

    @property
    def best_epoch(self) -> int | None:
        """The epoch (counted from 1) with the best value, the last of equals; None without any value."""
        name = self._monitored()
        if name not in self:
            return None
        values = self[name] * (-1.0 if self.greater_is_better else 1.0)
        if np.all(np.isnan(values)):
            return None
        return int(self["epoch"][np.flatnonzero(values == np.nanmin(values))[-1]])

    def to_json(self) -> dict[str, Any]:
        """Return the history as a JSON object; NaN and infinity become null."""
        return {
            "monitor": self.monitor,
            "greater_is_better": self.greater_is_better,
            "rows": [_json_row(row) for row in self.rows],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> History:
        """Invert `to_json`; null becomes NaN. Raise `DataError` for anything else."""
        rows = value.get("rows") if isinstance(value, Mapping) else None
        if not isinstance(rows, list) or not isinstance(value.get("monitor"), (str, type(None))):
            raise DataError('not a history: "rows" or "monitor" is missing or of the wrong type')
        history = cls(value.get("monitor"), bool(value.get("greater_is_better", False)))
        for row in rows:
            history.append(_from_json_row(row))
        return history

    def append_jsonl(self, path: str | os.PathLike[str]) -> None:
        """Append the last row to a file with one JSON object per line, and flush it to the disk.

        Raises
        ------
        FileError
            If the file cannot be written.
        """
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(_line(self.rows[-1]))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise FileError(f"{path}: cannot be written: {error.strerror or error}") from error

    def write_jsonl(self, path: str | os.PathLike[str]) -> None:
        """Write all rows, whole or not at all.

        Raises
        ------
        FileError
            If the file cannot be written.
        """
        write_whole(path, "".join(_line(row) for row in self.rows).encode())

    @classmethod
    def from_jsonl(
        cls, path: str | os.PathLike[str], monitor: str | None = None, greater_is_better: bool = False
    ) -> History:
        """Read a file of `append_jsonl`, without an incomplete last line.

        Raises
        ------
        FileError
            If the file cannot be read.
        DataError
            If a line is not a row; the message names the file and the line.
        """
        try:
            lines = Path(path).read_bytes().splitlines(keepends=True)
        except OSError as error:
            raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error
        history = cls(monitor, greater_is_better)
        for number, line in enumerate(lines, start=1):
            try:
                history.append(_from_json_row(json.loads(line)))
            except (ValueError, RecursionError) as error:
                if number == len(lines) and not line.endswith(b"\n"):
                    break
                raise DataError(f"{path}, line {number}: not a row of a history: {error}") from None
        return history

    def _monitored(self) -> str:
        return self.monitor or ("validation_loss" if "validation_loss" in self else "loss")

    def __repr__(self) -> str:
        if not self.rows:
            return "History(no epochs)"
        head = f"History({len(self)} epoch{'s' if len(self) > 1 else ''}"
        best = self.best_epoch
        if best is not None:
            name = self._monitored()
            value = self[name][list(self["epoch"]).index(best)]
            head += f", best {best}: {name.replace('_', ' ')} {value:.4g}"
        columns = [name for name in self.columns if name not in ("step", "seconds", "samples_per_second")]
        rows: list[list[str]] = [[_cell(row.get(name)) for name in columns] for row in self.rows]
        if len(rows) > _SHOWN:
            half = _SHOWN // 2
            rows = [*rows[:half], ["..."] * len(columns), *rows[-half:]]
        table = [[name.replace("_", " ") for name in columns], *rows]
        widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
        lines = [
            "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in table
        ]
        return "\n".join([head + ")", *lines])


def _row(row: Mapping[str, float], last_epoch: float) -> dict[str, float]:
    """Return a row of plain Python numbers, or raise `DataError`."""
    epoch = row.get("epoch")
    if not isinstance(epoch, (int, np.integer)) or epoch <= last_epoch:
        raise DataError(
            f"the epoch of a row must be a whole number greater than {last_epoch}, not {shown(epoch)}"
        )
    plain: dict[str, float] = {}
    for name, value in row.items():
        try:
            plain[name] = int(value) if isinstance(value, (int, np.integer)) else float(value)
        except (TypeError, ValueError):
            raise DataError(f"{shown(name)} of epoch {epoch} is not a number: {shown(value)}") from None
        if isinstance(plain[name], int) and plain[name] not in _WHOLE_NUMBERS:
            raise DataError(f"{shown(name)} of epoch {epoch} does not fit in 64 bits")
    return plain


def _json_row(row: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in row.items()}


def _from_json_row(row: Any) -> dict[str, float]:
    if not isinstance(row, dict):
        raise DataError("a row must be a JSON object")
    for name, value in row.items():
        if isinstance(value, bool) or not isinstance(value, (int, float, type(None))):
            raise DataError(f"{shown(name)} is not a number")
    return {name: math.nan if value is None else value for name, value in row.items()}


def _line(row: Mapping[str, float]) -> str:
    return json.dumps(_json_row(row), allow_nan=False) + "\n"


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.4g}"
