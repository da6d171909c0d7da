"""Preprocessing: statistics of the training rows' columns, and rows encoded as a network's inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, get_args

import numpy as np
from numpy.typing import DTypeLike

from nnkit.checks import Choice
from nnkit.data import json_fields
from nnkit.data.arrays.encoding import encode_array, fit_array
from nnkit.data.json_fields import require
from nnkit.data.operations import (
    ArrayColumns,
    CategoryColumn,
    ColumnOperation,
    NumberColumn,
    Operation,
    PictureColumns,
    PictureSettings,
    PlainRows,
    Rows,
    TextColumn,
    flagged_columns,
    operation_from_json,
)
from nnkit.data.pictures.columns import Pictures, encode_pictures, fit_pictures
from nnkit.errors import ConfigError, DataError
from nnkit.feed.features import Features, features_from
from nnkit.nn.network import PLAIN
from nnkit.working import working

if TYPE_CHECKING:
    import pyarrow as pa

    from nnkit.data.tables.reading import Misfits
    from nnkit.data.tables.schema import Schema
    from nnkit.data.text.options import TextOptions

__all__ = ["SCALINGS", "Preprocessor", "Scaling"]

Scaling = Literal["auto", "standardize", "robust", "unit", "none"]
SCALINGS: tuple[Scaling, ...] = get_args(Scaling)
_DTYPES = ("float32", "float64")
_MOST_NAMED = 10
_Kind = TypeVar("_Kind")


@dataclass(frozen=True, eq=False)
class Preprocessor:
    """Declared operations that turn rows into a network's inputs.

    Parameters
    ----------
    operations : tuple
        A `NumberColumn`, a `CategoryColumn` or a `TextColumn` for each column of a table, in the table's
        order; or one `ArrayColumns`, one `PictureColumns`, or one `PlainRows`.
    dtype : {"float32", "float64"}
        The type in which numbers are stored; pixels stay uint8.
    notes : tuple of str
        Notes for the user on what was dropped or filled in.
    constant : tuple of str
        Columns of a table that were dropped because they have one value; a saved model does not keep them.
    schema : Schema or None
        How a table's columns are read; None reads them as the operations need them.
    """

    operations: tuple[Operation, ...]
    dtype: str = "float32"
    notes: tuple[str, ...] = ()
    constant: tuple[str, ...] = ()
    schema: Schema | None = None

    @classmethod
    @working("analysing columns")
    def fit(
        cls,
        features: Any,
        *,
        rows: Rows = None,
        scaling: str = "auto",
        dtype: DTypeLike = np.float32,
        text: TextOptions | None = None,
        categories: str = "onehot",
        missing_flags: bool = True,
    ) -> Preprocessor:
        """Read the statistics of the training rows.

        Parameters
        ----------
        features : array of shape (samples, p), or a table (Arrow, pandas, Polars)
            Missing numbers of a table become the median, beside a flag; texts, categories and booleans become
            codes; empty and constant columns and identifiers are dropped; free text becomes bags of ids if
            `text` says how. Or `Pictures`.
        rows : ndarray of integers, optional
            The training rows; without it, all. This is cheaper than to take them out first, and errors name
            the row in the whole.
        scaling : {"auto", "standardize", "robust", "unit", "none"}
            "standardize" to mean 0 and standard deviation 1, "unit" to between 0 and 1, "none" not at all.
            "robust", for a table: x, the value less the median, divided by the interquartile range (by half
            of the range if that is 0), then x / √(1 + (x / 3)²), between -3 and 3 (Holzmüller et al. 2024,
            arXiv:2407.04491). "auto" divides uint8 pixels by 255 (by 16 where none is larger, as in digits;
            by 1 where all are 0 or 1) and standardises everything else, `Pictures` by channel.
        dtype : numpy dtype
            float32 or float64.
        text : TextOptions, optional
            How free text is encoded, for a network that begins with an `Embedding` for each such column.
        categories : {"auto", "onehot", "embed"}
            Whether categories are one-hot inputs, or rows of an `Embedding` for each such column; "auto"
            takes one-hot inputs for up to fifty values, missing ones included.
        missing_flags : bool
            Whether a table's column of numbers or dates with missing values in the training rows has another
            input, which is 1 where the value is missing.

        Raises
        ------
        DataError
            Where a value is infinite, NaN in an array or a text among numbers, or no column is left.
        """
        Choice(SCALINGS)("scaling", scaling)
        name = np.dtype(dtype).name
        if name not in _DTYPES:
            raise ConfigError(f"features are stored as float32 or float64, not {name}")
        if scaling == "robust" and isinstance(features, Pictures | np.ndarray):
            kind = "pictures" if isinstance(features, Pictures) else "an array"
            raise ConfigError(f'scaling = "robust" is for tables, not for {kind}: set "standardize"')
        if isinstance(features, Pictures):
            return cls((fit_pictures(features, rows, scaling),), name)
        if isinstance(features, np.ndarray):
            return cls((fit_array(features, rows, scaling),), name)
        from nnkit.data.tables.encoding import fit_table
        from nnkit.data.tables.frames import as_read_table

        table, schema = as_read_table(features)
        fitted = fit_table(table, schema, rows, scaling, text, categories, missing_flags)
        operations, notes, constant = fitted
        return cls(operations, name, notes, constant, schema)

    @working("encoding rows")
    def transform(
        self, features: Any, rows: Rows = None, *, strict: bool = False, quiet: bool = False
    ) -> Features:
        """Encode rows.

        A table's cells are read by the schema. Cells that do not fit are taken as missing, and categories
        that the training had not as none; they are logged, as a warning where they are more than a tenth of
        a column.

        Parameters
        ----------
        features : array of shape (samples, p), or a table
            A table's columns are matched by name, in any order, and others are ignored. A model trained on
            an array without names takes a table of as many columns of numbers, in their order. A model of
            pictures takes paths, Pillow's images, and arrays of shape (samples, height, width) or (samples,
            height, width, channels); a model of a single column of text takes a list of texts.
        rows : ndarray of integers, optional
            The rows to encode; without it, all.
        strict : bool
            Whether more than a tenth of a column is a DataError.
        quiet : bool
            Whether nothing is logged.

        Raises
        ------
        DataError
            Where columns are missing, their number differs, or a value cannot be encoded.
        """
        dtype = np.dtype(self.dtype)
        if isinstance(self._first, PictureColumns):
            from nnkit.data.pictures.sources import as_pictures

            return encode_pictures(as_pictures(features, self._first.settings), self._first, rows)
        if isinstance(features, Pictures):
            raise DataError("the model was not trained on pictures")
        if isinstance(self._first, PlainRows):
            plain = features_from(features, dtype)
            return plain if rows is None else plain.take(rows)
        texts = _texts_of(features)
        if texts is not None:
            features = self.table_of_texts(texts)
        if not isinstance(features, np.ndarray):
            return self._transform_table(features, rows, dtype, strict, quiet)
        if self._array is None:
            wanted = _quoted(self.input_names or ())
            raise DataError(
                f"the model was trained on a table with named columns ({wanted}), not on an array"
            )
        return encode_array(features, self._array, rows, dtype)

    def _transform_table(
        self, features: Any, rows: Rows, dtype: np.dtype, strict: bool, quiet: bool
    ) -> Features:
        from nnkit.data.tables.encoding import encode_table, table_as_array
        from nnkit.data.tables.frames import as_table
        from nnkit.data.tables.reading import report_misfits

        array = self._array
        if array is not None:
            numbers = table_as_array(as_table(features), array.count, array.names)
            return encode_array(numbers, array, rows, dtype)
        table, misfits = self.read_table(features)
        encoded, unseen = encode_table(table, cast("Sequence[ColumnOperation]", self.operations), rows, dtype)
        if not quiet:
            report_misfits([*misfits, *unseen], strict)
        return encoded

    def read_table(self, features: Any) -> tuple[pa.Table, list[Misfits]]:
        """Return a table's columns as the schema reads them, and the cells that do not fit."""
        from nnkit.data.tables.encoding import check_present
        from nnkit.data.tables.frames import as_table
        from nnkit.data.tables.reading import read_columns, was_read

        table: pa.Table = as_table(features)
        schema = self.schema or _schema_of(self.operations)
        if was_read(table, schema):
            return table, []
        check_present(table.column_names, self.input_names or ())
        return read_columns(table, schema, self.input_names or ())

    @property
    def _array(self) -> ArrayColumns | None:
        return self._first if isinstance(self._first, ArrayColumns) else None

    @property
    def _first(self) -> Operation:
        return self.operations[0]

    def _of_kind(self, kind: type[_Kind]) -> tuple[_Kind, ...]:
        return tuple(operation for operation in self.operations if isinstance(operation, kind))

    @property
    def _one_hot(self) -> tuple[CategoryColumn, ...]:
        return tuple(category for category in self._of_kind(CategoryColumn) if not category.embedded)

    @property
    def pictures(self) -> PictureSettings | None:
        """The settings of pictures; None for a model without pictures."""
        return self._first.settings if isinstance(self._first, PictureColumns) else None

    @property
    def input_names(self) -> tuple[str, ...] | None:
        """The names of the columns to take from a table; None for pictures or unnamed columns."""
        if isinstance(self._first, ArrayColumns):
            return self._first.names or None
        if isinstance(self._first, PictureColumns | PlainRows):
            return None
        return _columns_of(self.operations)

    @property
    def text_columns(self) -> tuple[TextColumn, ...]:
        """The columns of text."""
        return self._of_kind(TextColumn)

    def table_of_texts(self, texts: Sequence[str]) -> pa.Table:
        """Return texts as the table that a model of one column of text takes.

        Raises
        ------
        DataError
            If the model has other columns too, or none of text.
        """
        import pyarrow as pa

        columns = _columns_of(self.text_columns)
        if not columns:
            raise DataError("the model has no columns of text: give rows such as it was trained on")
        if len(columns) > 1:
            raise DataError(
                f"the model has several columns of text ({_quoted(columns)}): give a table with them"
            )
        names = self.input_names or ()
        if len(names) > 1:
            others = _quoted([name for name in names[:_MOST_NAMED] if name not in columns])
            raise DataError(f"the model takes other columns beside the text ({others}): give a table of all")
        try:
            return pa.table({columns[0]: pa.array(texts, pa.string())})
        except UnicodeEncodeError:
            raise DataError("a text is not UTF-8: correct its bytes, or the terminal's encoding") from None

    @property
    def embedded(self) -> tuple[TextColumn | CategoryColumn, ...]:
        """The columns that become bags of ids, in the order of their embeddings."""
        columns = (op for op in self.operations if isinstance(op, TextColumn | CategoryColumn))
        return tuple(op for op in columns if isinstance(op, TextColumn) or op.embedded)

    @property
    def embedding_sizes(self) -> tuple[int, ...]:
        """The number of rows of each embedding's table."""
        if isinstance(self._first, PlainRows):
            return self._first.tables
        return tuple(op.size if isinstance(op, TextColumn) else op.places for op in self.embedded)

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names of the columns in which rows are stored: numbers, flags, then category codes."""
        if self.input_names is None:
            return ()
        return _columns_of((*self._of_kind(NumberColumn), *self.flagged, *self._one_hot))

    @property
    def flagged(self) -> tuple[NumberColumn, ...]:
        """The columns whose missing values have flags, in the order of these, which follow all numbers."""
        return flagged_columns(self.operations)

    @property
    def output_names(self) -> tuple[str, ...]:
        """A name for each of the network's inputs: the numbers, their flags, then the one-hot places."""
        first = self._first
        if isinstance(first, PictureColumns):
            channels = ("red", "green", "blue") if first.settings.channels == 3 else ("grey",)
            pixels = [f"{y},{x}" for y, x in np.ndindex(first.settings.height, first.settings.width)]
            return tuple(f"{channel} {pixel}" for channel in channels for pixel in pixels)
        if isinstance(first, ArrayColumns | PlainRows):
            names = first.names if isinstance(first, ArrayColumns) else ()
            return names or tuple(str(column) for column in range(first.count))
        places = (f"{op.column}={name}" for op in self._one_hot for name in op.names)
        flags = (f"{op.column}=(missing)" for op in self.flagged)
        return (*_columns_of(self._of_kind(NumberColumn)), *flags, *places)

    @property
    def width(self) -> int:
        """The number of the network's inputs, without those that its embeddings add."""
        first = self._first
        if isinstance(first, ArrayColumns | PictureColumns | PlainRows):
            return first.count
        numbers = len(self._of_kind(NumberColumn)) + len(self.flagged)
        return numbers + sum(op.places for op in self._one_hot)

    def to_json(self) -> dict[str, Any] | str:
        """Return all fields as JSON values; plain rows follow from the network."""
        operations = [op.to_json() for op in self.operations if not isinstance(op, PlainRows)]
        if not operations:
            return PLAIN
        schema = {} if self.schema is None else {"schema": self.schema.to_json()}
        return {"dtype": self.dtype, "operations": operations, "notes": list(self.notes), **schema}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Preprocessor:
        """Read what `to_json` wrote; anything else is a ModelFileError."""
        data = json_fields.mapping(data, "preprocessing")
        operations = tuple(operation_from_json(item) for item in json_fields.sequence(data, "operations"))
        columns = _columns_of(operations)
        tabular = len(columns) == len(operations) and len(set(columns)) == len(columns)
        fits = bool(operations) and (tabular or len(operations) == 1)
        require(fits, "its preprocessing names no columns, or one twice")
        dtype = json_fields.choice(data, "dtype", _DTYPES)
        schema = _schema_from_json(data, operations) if columns else None
        return cls(operations, dtype, json_fields.texts(data, "notes"), schema=schema)


def _columns_of(operations: Sequence[Operation]) -> tuple[str, ...]:
    """Return the names of the columns of a table that operations take."""
    return tuple(operation.column for operation in operations if isinstance(operation, ColumnOperation))


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:_MOST_NAMED]))


def _schema_from_json(data: dict[str, Any], operations: Sequence[Operation]) -> Schema:
    """Return the schema; for an older model without one, the schema that its operations need."""
    from nnkit.data.tables.schema import Schema

    if "schema" not in data:
        return _schema_of(operations)
    schema = Schema.from_json(data["schema"])
    require(
        set(_columns_of(operations)) <= schema.by_name.keys(), "its schema lacks a column that is encoded"
    )
    return schema


def _schema_of(operations: Sequence[Operation]) -> Schema:
    """Return the schema by which columns are read as operations need them."""
    from nnkit.data.tables.dates import ISO
    from nnkit.data.tables.schema import Column, Schema

    columns = []
    for operation in operations:
        if isinstance(operation, NumberColumn):
            is_date = operation.kind == "time"
            columns.append(
                Column(operation.column, "date", pattern=ISO)
                if is_date
                else Column(operation.column, "number")
            )
        elif isinstance(operation, CategoryColumn | TextColumn):
            columns.append(
                Column(operation.column, "text" if isinstance(operation, TextColumn) else "category")
            )
    # Columns without names were called by their numbers.
    return Schema(tuple(columns), named=not all(column.name.isdigit() for column in columns))


def _texts_of(features: Any) -> list[Any] | None:
    """Return a list, a tuple or one column of texts as a list; None for anything else."""
    if isinstance(features, str):
        raise DataError("a text by itself is not a list of rows: give [text]")
    if getattr(features, "ndim", None) == 1 and hasattr(features, "tolist"):
        features = features.tolist()
    is_texts = isinstance(features, list | tuple) and all(isinstance(text, str) for text in features)
    return list(features) if is_texts and features else None
