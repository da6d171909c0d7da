"""Preprocessing: what the training rows say about the columns, and how any rows become a network's inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nnkit.checks import Choice
from nnkit.data import json_fields
from nnkit.data.arrays.encoding import encode_array, fit_array
from nnkit.data.operations import (
    ArrayColumns,
    CategoryColumn,
    ColumnOperation,
    NumberColumn,
    Operation,
    PictureColumns,
    PlainRows,
    TextColumn,
    operation_from_json,
)
from nnkit.data.pictures.columns import Pictures, PictureSettings, encode_pictures, fit_pictures, settings_of
from nnkit.errors import ConfigError, DataError, ModelFileError
from nnkit.feed.features import Features, features_from
from nnkit.nn.network import PLAIN
from nnkit.working import working

if TYPE_CHECKING:
    import pyarrow as pa

    from nnkit.data.tables.reading import Misfits
    from nnkit.data.tables.schema import Schema
    from nnkit.data.text.options import TextOptions

__all__ = ["SCALINGS", "Preprocessor", "Scaling"]

Scaling = Literal["auto", "standardize", "unit", "none"]
SCALINGS: tuple[Scaling, ...] = ("auto", "standardize", "unit", "none")
_DTYPES = ("float32", "float64")


@dataclass(frozen=True, eq=False)
class Preprocessor:
    """Declared operations that turn rows into a network's inputs.

    Parameters
    ----------
    operations : tuple
        A `NumberColumn`, a `CategoryColumn` or a `TextColumn` for each column of a table, in the table's
        order; or one `ArrayColumns`, one `PictureColumns`, or one `PlainRows`.
    dtype : {"float32", "float64"}
        In which numbers are stored; pixels stay uint8.
    notes : tuple of str
        Words for the user on what was dropped or filled in.
    constant : tuple of str
        Columns of a table that were dropped because they have one value; a saved model does not keep them.
    schema : Schema or None
        How a table's columns are read; without it, as the operations want them.
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
        rows: NDArray[np.integer] | None = None,
        scaling: str = "auto",
        dtype: DTypeLike = np.float32,
        text: TextOptions | None = None,
        categories: str = "onehot",
    ) -> Preprocessor:
        """Read the statistics of the training rows.

        Parameters
        ----------
        features : array of shape (samples, p), or a table (Arrow, pandas, Polars)
            The numbers of a table are filled in with the median; texts, categories and booleans become codes;
            empty and constant columns and identifiers are dropped; free text becomes bags of ids if `text`
            says how. Or `Pictures`.
        rows : ndarray of integers, optional
            The training rows; without it, all. Cheaper than to take them out first, and mistakes are then
            reported with their place in the whole.
        scaling : {"auto", "standardize", "unit", "none"}
            "standardize" to mean 0 and standard deviation 1, "unit" to between 0 and 1, "none" not at all.
            "auto" divides uint8 pixels by 255 (by 16 where none is larger, as in digits; by 1 where all are 0
            or 1) and standardises everything else, `Pictures` by channel.
        dtype : numpy dtype
            float32 or float64.
        text : TextOptions, optional
            How free text is learnt from, by a network that begins with an `Embedding` for each such column.
        categories : {"onehot", "embed"}
            Whether categories are one-hot inputs, or rows of an `Embedding` for each such column.

        Raises
        ------
        DataError
            Where a value is infinite, NaN in an array or a text among numbers, or no column is left.
        """
        Choice(SCALINGS)("scaling", scaling)
        name = np.dtype(dtype).name
        if name not in _DTYPES:
            raise ConfigError(f"features are stored as float32 or float64, not {name}")
        if isinstance(features, Pictures):
            return cls((fit_pictures(features, rows, scaling),), name)
        if isinstance(features, np.ndarray):
            return cls((fit_array(features, rows, scaling),), name)
        from nnkit.data.tables.encoding import fit_table
        from nnkit.data.tables.frames import as_read_table

        table, schema = as_read_table(features)
        operations, notes, constant = fit_table(table, schema, rows, scaling, text, categories == "embed")
        return cls(operations, name, notes, constant, schema)

    @working("encoding rows")
    def transform(
        self,
        features: Any,
        rows: NDArray[np.integer] | None = None,
        *,
        strict: bool = False,
        quiet: bool = False,
    ) -> Features:
        """Encode rows.

        A table's cells are read by the schema. What does not fit, and categories not seen in training, are
        taken as missing and logged, as a warning where they are more than a tenth of a column.

        Parameters
        ----------
        features : array of shape (samples, p), or a table
            A table's columns are matched by name, in any order, and others are ignored. A model that was
            trained on an array without names takes a table of as many columns of numbers, in their order. One
            that was trained on pictures takes paths, Pillow's images, and arrays of shape (samples, height,
            width) or (samples, height, width, channels); one of a single column of text, a list of texts.
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
            from nnkit.data.pictures.inputs import as_pictures

            return encode_pictures(as_pictures(features, settings_of(self._first)), self._first, rows)
        if isinstance(features, Pictures):
            raise DataError("the model was not trained on pictures")
        if isinstance(self._first, PlainRows):
            plain = features_from(features, dtype)
            return plain if rows is None else plain.take(rows)
        texts = _texts_of(features)
        if texts is not None:
            features = self.table_of_texts(texts)
        array = self._array
        if isinstance(features, np.ndarray):
            if array is None:
                wanted = ", ".join(repr(name) for name in (self.input_names or ())[:10])
                raise DataError(
                    f"the model was trained on a table with named columns ({wanted}), not on an array"
                )
            return encode_array(features, array, rows, dtype)
        from nnkit.data.tables.encoding import check_present, encode_table, table_as_array
        from nnkit.data.tables.frames import as_table
        from nnkit.data.tables.reading import read_columns, tell, was_read

        table: pa.Table = as_table(features)
        if array is not None:
            return encode_array(table_as_array(table, array.count, array.names), array, rows, dtype)
        schema = self.schema or _schema_of(self.operations)
        misfits: list[Misfits] = []
        if not was_read(table, schema):
            check_present(table.column_names, self.input_names or ())
            table, misfits = read_columns(table, schema, self.input_names or ())
        encoded, unseen = encode_table(table, cast("Sequence[ColumnOperation]", self.operations), rows, dtype)
        if not quiet:
            tell([*misfits, *unseen], strict)
        return encoded

    @property
    def _array(self) -> ArrayColumns | None:
        return self._first if isinstance(self._first, ArrayColumns) else None

    @property
    def _first(self) -> Operation:
        return self.operations[0]

    @property
    def pictures(self) -> PictureSettings | None:
        """What pictures are made into; None where it does not want pictures."""
        return settings_of(self._first) if isinstance(self._first, PictureColumns) else None

    @property
    def input_names(self) -> tuple[str, ...] | None:
        """The columns it wants of a table, by name; None where it wants pictures or unnamed columns."""
        if isinstance(self._first, ArrayColumns):
            return self._first.names or None
        if isinstance(self._first, PictureColumns | PlainRows):
            return None
        return tuple(
            operation.column for operation in self.operations if isinstance(operation, ColumnOperation)
        )

    @property
    def text_columns(self) -> tuple[TextColumn, ...]:
        """The columns of text."""
        return tuple(operation for operation in self.operations if isinstance(operation, TextColumn))

    def table_of_texts(self, texts: Sequence[str]) -> pa.Table:
        """Return texts as the table that a model of one column of text takes.

        Raises
        ------
        DataError
            If the model takes other columns too, or none of text.
        """
        import pyarrow as pa

        names = self.input_names or ()
        texts_wanted = ", ".join(repr(column.column) for column in self.text_columns[:10])
        if not texts_wanted:
            raise DataError("the model has no columns of text: give rows such as it was trained on")
        if len(self.text_columns) > 1:
            raise DataError(f"the model has several columns of text ({texts_wanted}): give a table with them")
        [column] = self.text_columns
        if len(names) > 1:
            others = ", ".join(repr(name) for name in names[:10] if name != column.column)
            raise DataError(f"the model takes other columns beside the text ({others}): give a table of all")
        try:
            return pa.table({column.column: pa.array(texts, pa.string())})
        except UnicodeEncodeError:
            raise DataError("a text is not UTF-8: mend its bytes, or the terminal's encoding") from None

    @property
    def embedded(self) -> tuple[TextColumn | CategoryColumn, ...]:
        """The columns that become bags of ids, in the order of their embeddings."""
        return tuple(
            operation
            for operation in self.operations
            if isinstance(operation, TextColumn)
            or (isinstance(operation, CategoryColumn) and operation.embedded)
        )

    @property
    def embedding_sizes(self) -> tuple[int, ...]:
        """The number of rows of each embedding's table."""
        if isinstance(self._first, PlainRows):
            return self._first.tables
        return tuple(
            operation.size if isinstance(operation, TextColumn) else operation.places
            for operation in self.embedded
        )

    @property
    def _one_hot(self) -> tuple[CategoryColumn, ...]:
        return tuple(
            operation
            for operation in self.operations
            if isinstance(operation, CategoryColumn) and not operation.embedded
        )

    @property
    def column_names(self) -> tuple[str, ...]:
        """The columns that rows are stored in, by name: those of numbers, then those of category codes."""
        if self.input_names is None:
            return ()
        numbers = [operation.column for operation in self.operations if isinstance(operation, NumberColumn)]
        return (*numbers, *(operation.column for operation in self._one_hot))

    @property
    def output_names(self) -> tuple[str, ...]:
        """A name for each of the network's inputs, in their order: the numbers, then the one-hot places."""
        if isinstance(self._first, PlainRows):
            return tuple(str(column) for column in range(self._first.count))
        array = self._array
        if array is not None:
            return array.names or tuple(str(column) for column in range(array.count))
        if isinstance(self._first, PictureColumns):
            channels = ("red", "green", "blue") if self._first.channels == 3 else ("grey",)
            pixels = [f"{y},{x}" for y, x in np.ndindex(self._first.height, self._first.width)]
            return tuple(f"{channel} {pixel}" for channel in channels for pixel in pixels)
        numbers = [operation.column for operation in self.operations if isinstance(operation, NumberColumn)]
        places = [
            f"{operation.column}={value}"
            for operation in self._one_hot
            for value in (*operation.values, "(other)")
        ]
        return (*numbers, *places)

    @property
    def width(self) -> int:
        """The number of the network's inputs, without what its embeddings add."""
        first = self._first
        if isinstance(first, ArrayColumns | PictureColumns | PlainRows):
            return first.count
        numbers = sum(isinstance(operation, NumberColumn) for operation in self.operations)
        return numbers + sum(operation.places for operation in self._one_hot)

    def to_json(self) -> dict[str, Any] | str:
        """Return all of it as JSON values; plain rows follow from the network."""
        operations = [
            operation.to_json() for operation in self.operations if not isinstance(operation, PlainRows)
        ]
        if not operations:
            return PLAIN
        schema = {} if self.schema is None else {"schema": self.schema.to_json()}
        return {"dtype": self.dtype, "operations": operations, "notes": list(self.notes), **schema}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Preprocessor:
        """Read what `to_json` wrote; anything else is a ModelFileError."""
        data = json_fields.mapping(data, "preprocessing")
        operations = tuple(operation_from_json(item) for item in json_fields.sequence(data, "operations"))
        columns = [operation.column for operation in operations if isinstance(operation, ColumnOperation)]
        arrays = len(operations) - len(columns)
        if not operations or len(set(columns)) < len(columns) or (arrays and len(operations) > 1):
            raise ModelFileError(
                "the model file is damaged: its preprocessing names no columns, or one twice"
            )
        dtype = json_fields.choice(data, "dtype", _DTYPES)
        schema = _schema_from_json(data, operations) if columns else None
        return cls(operations, dtype, json_fields.texts(data, "notes"), schema=schema)


def _schema_from_json(data: dict[str, Any], operations: Sequence[Operation]) -> Schema:
    """Return the schema; of a model that was written without one, what its operations say."""
    from nnkit.data.tables.schema import Schema

    if "schema" not in data:
        return _schema_of(operations)
    schema = Schema.from_json(data["schema"])
    names = {operation.column for operation in operations if isinstance(operation, ColumnOperation)}
    if not names <= schema.by_name.keys():
        raise ModelFileError("the model file is damaged: its schema lacks a column that is encoded")
    return schema


def _schema_of(operations: Sequence[Operation]) -> Schema:
    """Return how the columns are read that operations want: as whatever they want."""
    from nnkit.data.tables.dates import ISO
    from nnkit.data.tables.schema import Column, Schema

    columns = []
    for operation in operations:
        if isinstance(operation, NumberColumn):
            is_date = operation.kind == "time"
            columns.append(
                Column(operation.column, "date" if is_date else "number", pattern=ISO if is_date else "")
            )
        elif isinstance(operation, CategoryColumn | TextColumn):
            kind: Literal["text", "category"] = "text" if isinstance(operation, TextColumn) else "category"
            columns.append(Column(operation.column, kind))
    # Columns without names were called by their numbers.
    return Schema(tuple(columns), named=not all(column.name.isdigit() for column in columns))


def _texts_of(features: Any) -> list[Any] | None:
    """Return texts that stand by themselves, as a list, a tuple or one column; None where it is not that."""
    if isinstance(features, str):
        raise DataError("a text by itself is not a list of rows: give [text]")
    if getattr(features, "ndim", None) == 1 and hasattr(features, "tolist"):
        features = features.tolist()
    is_texts = isinstance(features, list | tuple) and all(isinstance(text, str) for text in features)
    return list(features) if is_texts and features else None
