"""Write predictions as CSV, Parquet or NPY, or print them."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nnkit.data.targets import TargetEncoder
from nnkit.errors import ConfigError
from nnkit.files import write_whole
from nnkit.working import working

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["prediction_lines", "write_predictions"]

_SUFFIXES = (".csv", ".parquet", ".npy")


@working("writing predictions")
def write_predictions(
    values: NDArray,
    target: TargetEncoder,
    proba: bool,
    path: Path | None,
    names: Sequence[str] | None = None,
) -> int:
    """Write one row for each prediction.

    Parameters
    ----------
    values : ndarray of shape (samples,) or (samples, columns)
        Labels, values, or probabilities.
    target : TargetEncoder
        Names the columns.
    proba : bool
        Whether the values are probabilities of classes.
    path : Path or None
        A .csv, .parquet or .npy file, written whole or not at all; None prints CSV.
    names : sequence of str, optional
        What each row is of, such as a file: the first column, but for .npy.

    Returns
    -------
    int
        The number of rows.

    Raises
    ------
    ConfigError
        If the suffix is none of these.
    FileError
        If the file cannot be written.
    """
    if path is not None and path.suffix not in _SUFFIXES:
        raise ConfigError(
            f"{path}: predictions are written as {', '.join(_SUFFIXES)}; end the name with one of them"
        )
    buffer = io.BytesIO()
    if path is not None and path.suffix == ".npy":
        np.save(buffer, values.astype(str) if values.dtype == object else values, allow_pickle=False)
    else:
        from pyarrow import array, csv, parquet

        table = _table(values, target, proba)
        if names is not None:
            table = table.add_column(0, "path", array(names, "string"))
        (parquet.write_table if path is not None and path.suffix == ".parquet" else csv.write_csv)(
            table, buffer
        )
    if path is None:
        sys.stdout.write(buffer.getvalue().decode())
    else:
        write_whole(path, buffer.getvalue())
    return len(values)


def prediction_lines(
    values: NDArray, probabilities: NDArray[np.float64] | None, target: TargetEncoder
) -> list[str]:
    """Return a line to read for each prediction: the label and its probability, or a regression's values.

    Parameters
    ----------
    values : ndarray of shape (samples,) or (samples, outputs)
        Labels or values.
    probabilities : ndarray of shape (samples, classes) or (samples, labels), or None
        As `TargetEncoder.probabilities` returns them; None for a regression.
    target : TargetEncoder
    """
    if probabilities is None:
        return [", ".join(f"{value:g}" for value in row) for row in values.reshape(len(values), -1).tolist()]
    if target.task == "multilabel":
        names = target.names or tuple(map(str, range(probabilities.shape[1])))
        return [
            ", ".join(f"{name} {label} {share:.4f}" for name, label, share in zip(names, *row, strict=True))
            for row in zip(values.tolist(), probabilities.tolist(), strict=True)
        ]
    columns = target.codes(values)
    said = probabilities[np.arange(len(values)), columns]
    return [f"{label} {share:.4f}" for label, share in zip(values.tolist(), said.tolist(), strict=True)]


def _table(values: NDArray, target: TargetEncoder, proba: bool) -> pa.Table:
    from pyarrow import Table, array

    from nnkit.data.columns import arrow_array

    columns = values[:, None] if values.ndim == 1 else values
    if proba and target.classes is not None and target.task != "multilabel":
        names = [f"probability_{label}" for label in target.classes.tolist()]
    elif len(target.names) == columns.shape[1]:
        names = [f"probability_{name}" if proba else name for name in target.names]
    else:
        names = (
            [f"prediction_{i}" for i in range(columns.shape[1])] if columns.shape[1] > 1 else ["prediction"]
        )
    # Labels may be texts or booleans, which Arrow does not lay out as NumPy does.
    plain = columns.dtype.kind in "iuf"
    arrays = [arrow_array(column) if plain else array(column.tolist()) for column in columns.T]
    return Table.from_arrays(arrays, names=names)
