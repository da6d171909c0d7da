"""Write predictions as CSV, Parquet or NPY, or print them."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nnkit.data.messages import reason
from nnkit.data.targets.encoding import TargetEncoder
from nnkit.errors import ConfigError, DataError
from nnkit.files import write_whole
from nnkit.working import working

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["check_predictions_file", "prediction_lines", "write_predictions"]

_SUFFIXES = (".csv", ".parquet", ".npy")


@working("writing predictions")
def write_predictions(
    values: NDArray,
    target: TargetEncoder,
    proba: bool,
    path: Path | None,
    kept: Mapping[str, pa.Array | pa.ChunkedArray] | None = None,
) -> int:
    """Write one row for each prediction, and return the number of rows.

    Parameters
    ----------
    values : ndarray of shape (samples,) or (samples, columns)
        Labels, values, or with `proba` probabilities of classes.
    target : TargetEncoder
        Names the columns.
    path : Path or None
        A .csv, .parquet or .npy file, written whole or not at all; None prints CSV.
    kept : mapping of str to column, optional
        Columns to write before the predictions, such as an id or a picture's path. A prediction with the name
        of one of them becomes ``predicted_NAME``. A .npy file holds the predictions alone.
    """
    if path is not None:
        check_predictions_file(path)
    buffer = io.BytesIO()
    if path is not None and path.suffix == ".npy":
        if kept:
            raise ConfigError(
                f"{path}: a .npy file holds predictions alone: write a .csv or .parquet to keep "
                f"{', '.join(kept)}"
            )
        np.save(buffer, values.astype(str) if values.dtype == object else values, allow_pickle=False)
    else:
        _write_table(_table(values, target, proba, kept or {}), buffer, path)
    if path is None:
        sys.stdout.write(buffer.getvalue().decode())
    else:
        write_whole(path, buffer.getvalue())
    return len(values)


def check_predictions_file(path: Path) -> None:
    """Raise a ConfigError unless predictions can be written to a file with this suffix."""
    if path.suffix not in _SUFFIXES:
        raise ConfigError(
            f"{path}: predictions are written as {', '.join(_SUFFIXES)}; end the name with one of them"
        )


def prediction_lines(
    values: NDArray, probabilities: NDArray[np.float64] | None, target: TargetEncoder
) -> list[str]:
    """Return a line for each prediction: the label and its probability, or a regression's values.

    The probabilities are those of `TargetEncoder.probabilities`; None for a regression.
    """
    if probabilities is None:
        return [", ".join(f"{value:g}" for value in row) for row in values.reshape(len(values), -1).tolist()]
    if target.task == "multilabel":
        names = target.output_names or tuple(map(str, range(probabilities.shape[1])))
        answers = target.transform(values, np.int64) if target.labels else values
        return [
            ", ".join(f"{name} {label} {share:.4f}" for name, label, share in zip(names, *row, strict=True))
            for row in zip(answers.tolist(), probabilities.tolist(), strict=True)
        ]
    columns = target.codes(values)
    said = probabilities[np.arange(len(values)), columns]
    return [f"{label} {share:.4f}" for label, share in zip(values.tolist(), said.tolist(), strict=True)]


def _write_table(table: pa.Table, buffer: io.BytesIO, path: Path | None) -> None:
    from pyarrow import ArrowException, csv, parquet

    try:
        if path is not None and path.suffix == ".parquet":
            parquet.write_table(table, buffer)
        else:
            csv.write_csv(table, buffer)
    except ArrowException as error:
        why = reason(error)
        raise DataError(f"the columns kept cannot be written as CSV: {why}; write a .parquet") from None


def _names(target: TargetEncoder, proba: bool, count: int) -> list[str]:
    """Return the names of the columns of predictions."""
    if proba and target.classes is not None and target.task != "multilabel":
        return [f"probability_{label}" for label in target.classes.tolist()]
    if proba and target.labels:
        return [f"probability_{label}" for label in target.labels]
    if len(target.names) == count:
        return [f"probability_{name}" if proba else name for name in target.names]
    return [f"prediction_{place}" for place in range(count)] if count > 1 else ["prediction"]


def _table(
    values: NDArray, target: TargetEncoder, proba: bool, kept: Mapping[str, pa.Array | pa.ChunkedArray]
) -> pa.Table:
    from pyarrow import Table, array

    from nnkit.data.tables.arrow import arrow_array

    columns = values[:, None] if values.ndim == 1 else values
    names = _names(target, proba, columns.shape[1])
    # Labels may be texts or booleans, which Arrow does not lay out as NumPy does.
    plain = columns.dtype.kind in "iuf"
    arrays = [arrow_array(column) if plain else array(column.tolist()) for column in columns.T]
    names = [f"predicted_{name}" if name in kept else name for name in names]
    for name in names:
        if name in kept:
            raise ConfigError(f"a column kept and the predictions would both be named {name!r}: leave it out")
    return Table.from_arrays([*kept.values(), *arrays], names=[*kept, *names])
