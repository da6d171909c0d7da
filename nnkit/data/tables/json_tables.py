"""Read JSON: one object a line, its keys the columns, or a document that holds a table.

Order: the file, Arrow's reader, the rows of a document, values of several types.
"""

from __future__ import annotations

import io
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json

from nnkit.data.examples import RawTable
from nnkit.data.files.text import read_text
from nnkit.data.limits import check_size
from nnkit.data.messages import about, shortened
from nnkit.data.tables.decoding import check_utf8
from nnkit.data.tables.frames import as_table
from nnkit.errors import DataError
from nnkit.nesting import is_too_deep

__all__ = ["read_json"]

_CHUNK = 1 << 20
_LONGEST_REASON = 160
_MARK = b"\xef\xbb\xbf"
# A number or a null of two characters becomes eight bytes, a key of few rows a column for all.
_MOST_GROWTH = 8
_OBJECT_GROWTH = 32  # the same, as Python's objects
# Arrow ends the process where a block that it reads begins with null; it begins blocks after either sign.
_NULL = re.compile(rb"(?:^|\r)(?:\xef\xbb\xbf)?\s*null")

Row = dict[str, Any]


@dataclass(frozen=True)
class _Rows:
    """The rows of a JSON text, whether it names the columns, and the columns that number the rows."""

    rows: list[Row]
    named: bool = True
    index: tuple[str, ...] = ()


class _SeveralTypes(Exception):
    """A key has values of several types, which Arrow does not read."""


def read_json(path: Path) -> RawTable:
    """Read a file of JSON Lines, or a JSON document, compressed or not; what a row lacks is missing.

    A document is a list of objects, a list of lists, an object with one list of objects among its values, or
    what pandas' `to_json` writes for any `orient`. A key with values of several types in different rows
    becomes a column of texts.
    """
    text = read_text(path, _MOST_GROWTH)
    check_utf8(text, str(path), "convert the file, for example with iconv -f LATIN1 -t UTF-8")
    if not text.removeprefix(_MARK).strip():
        raise DataError(f"{path}: the file is empty")
    read: Callable[..., _Rows | None] = _document_rows
    found = read(text, path)
    if found is None:
        try:
            return RawTable(_table(text, path))
        except _SeveralTypes:
            read = _line_rows
            found = _line_rows(text, path)
    if not found.rows:
        raise DataError(f"{path}: there is not a single row of data")
    lines = _as_lines(found.rows, partial(read, text, path, literal=True))
    return RawTable(_table(lines, path), named=found.named, index=found.index)


def _table(text: bytes, path: Path) -> pa.Table:
    """Read JSON Lines by Arrow.

    From memory of Arrow's own: with a stream, or with Python's memory, Arrow's threads would call Python,
    which ends the process where an error has meanwhile stopped Python.
    """
    block = max(_CHUNK, 2 * _longest_line(text, path))
    memory = pa.BufferOutputStream()
    memory.write(text)
    try:
        table = pyarrow.json.read_json(
            pa.BufferReader(memory.getvalue()), read_options=pyarrow.json.ReadOptions(block_size=block)
        )
        table.validate(full=True)
    except pa.ArrowException as error:
        if "changed from" in str(error):
            raise _SeveralTypes from None
        raise _mistake(path, str(error), len(text) <= block) from None
    if table.num_rows == 0:
        raise DataError(f"{path}: there is not a single row of data")
    with about(path):
        return as_table(table)


def _longest_line(text: bytes, path: Path) -> int:
    longest = 0
    for number, line in enumerate(io.BytesIO(text), 1):
        if _NULL.search(line):
            raise DataError(f"{path}: line {number} is null: write one object per line")
        longest = max(longest, len(line))
    return longest


def _mistake(path: Path, message: str, one_block: bool) -> DataError:
    """Return the error for Arrow's message; its row counts only if it does not restart in each block."""
    message = " ".join(message.split()).removeprefix("JSON parse error: ")
    message = re.sub(r" in row (\d+)", r" in row \1 (counting from 0)" if one_block else "", message)
    shown = shortened(message, _LONGEST_REASON)
    return DataError(
        f"{path}: not readable as JSON Lines: {shown}: write one object a line, for example with jq -c ."
    )


# --- the rows of a document ---


def _document_rows(text: bytes, path: Path, literal: bool = False) -> _Rows | None:
    """Return the rows of a document, with numbers as texts if `literal`; None for one object a line."""
    start = text.removeprefix(_MARK).lstrip()
    if not start.startswith(b"["):
        first, _, rest = start.partition(b"\n")
        if rest.strip() and _is_json(first):
            return None
    check_size(_OBJECT_GROWTH * len(text), str(path))
    try:
        document = _parse(text.decode("utf-8-sig"), literal)
    except ValueError as error:
        if not start.startswith(b"["):
            return None  # it may be lines, and the first damaged
        raise DataError(f"{path}: not valid JSON: {error}") from None
    with about(path):
        if isinstance(document, list):
            return _list_rows(document)
        return _object_rows(document) if isinstance(document, dict) else None


def _line_rows(text: bytes, path: Path, literal: bool = False) -> _Rows:
    """Return the rows of JSON Lines, with numbers as texts if `literal`."""
    check_size(_OBJECT_GROWTH * len(text), str(path))
    rows = []
    for number, line in enumerate(text.decode("utf-8-sig").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = _parse(line, literal)
        except ValueError as error:
            raise DataError(f"{path}: line {number} is not valid JSON: {error}") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}: line {number} is not an object: write one object per line")
        rows.append(row)
    return _Rows(rows)


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _parse(text: str, literal: bool) -> Any:
    """Parse JSON; every failure is a ValueError that says where."""
    number = str if literal else None
    try:
        value = json.loads(text, parse_int=number, parse_float=number, parse_constant=number)
    except RecursionError:
        raise ValueError("the values are nested too deeply") from None
    if is_too_deep(value):
        raise ValueError("the values are nested too deeply")
    return value


def _list_rows(items: list[Any]) -> _Rows:
    if all(isinstance(item, dict) for item in items):
        return _Rows(items)
    if all(isinstance(item, list) for item in items):
        width = len(items[0])
        for number, item in enumerate(items):
            if len(item) != width:
                raise DataError(f"row {number} (counting from 0) has {len(item)} values and row 0 {width}")
        return _Rows([dict(zip(map(str, range(width)), item, strict=True)) for item in items], named=False)
    number = next(number for number, item in enumerate(items) if not isinstance(item, dict))
    raise DataError(
        f"item {number} (counting from 0) of the list is {_kind(items[number])}: write each row "
        'as an object like {"column": value}'
    )


def _object_rows(document: Row) -> _Rows | None:
    """Return the rows of a table that is written as one object; None where the object is a row itself."""
    values = list(document.values())
    columns, data = document.get("columns"), document.get("data")
    split = set(document) <= {"columns", "index", "data"}
    if split and isinstance(columns, list) and isinstance(data, list) and _is_list_of(data, list):
        return _Rows(_split_rows(columns, data))
    tables = [value for value in values if _is_list_of(value, dict)]
    if len(tables) == 1:
        return _Rows(tables[0], index=_primary_key(document))
    if values and all(isinstance(value, dict) and value for value in values):
        if any(value.keys() != values[0].keys() for value in values):
            return None
        labels = list(values[0])
        if _counts(list(document)) and not _counts(labels):
            return _Rows(values)
        return _Rows([{name: document[name][label] for name in document} for label in labels])
    if values and all(_is_list_of(value, object) for value in values):
        if any(len(value) != len(values[0]) for value in values):
            return None
        return _Rows([dict(zip(document, row, strict=True)) for row in zip(*values, strict=True)])
    return None


def _is_list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, kind) for item in value)


def _counts(labels: list[str]) -> bool:
    return labels == [str(number) for number in range(len(labels))]


def _split_rows(columns: list[Any], data: list[list[Any]]) -> list[Row]:
    names = [str(name) for name in columns]
    if len(set(names)) != len(names):
        raise DataError("two of its columns have the same name: rename one of them")
    for number, row in enumerate(data):
        if len(row) != len(names):
            raise DataError(
                f"row {number} (counting from 0) has {len(row)} values where {len(names)} columns are named"
            )
    return [dict(zip(names, row, strict=True)) for row in data]


def _primary_key(document: Row) -> tuple[str, ...]:
    """Return the columns that number the rows, as pandas' `to_json(orient="table")` names them."""
    schema = document.get("schema")
    key = schema.get("primaryKey") if isinstance(schema, dict) else None
    return tuple(name for name in key if isinstance(name, str)) if isinstance(key, list) else ()


# --- values of several types ---


def _as_lines(rows: list[Row], literal: Callable[[], _Rows | None]) -> bytes:
    """Write rows as JSON Lines in which no key has values of several types: they become texts.

    `literal` returns the same rows with each number as its text in the file.
    """
    mixed = [key for key, values in _grouped(rows).items() if not _are_alike(values)]
    if mixed and (again := literal()):
        rows = [
            row | {key: _as_text(row[key], texts[key]) for key in mixed if key in row}
            for row, texts in zip(rows, again.rows, strict=True)
        ]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "a boolean"
    names: dict[type, str] = {int: "a number", float: "a number", str: "a text", list: "a list"}
    return names.get(type(value), "null" if value is None else "an object")


def _grouped(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the values of each key, without null."""
    groups: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        for key, value in row.items():
            if value is not None:
                groups[key].append(value)
    return groups


def _are_alike(values: list[Any]) -> bool:
    """Tell whether values, none of them None, have one type, and so do the values within them."""
    kinds = {_kind(value) for value in values}
    if len(kinds) > 1:
        return False
    if kinds == {"a list"}:
        return _are_alike([item for value in values for item in value if item is not None])
    if kinds == {"an object"}:
        return all(map(_are_alike, _grouped(values).values()))
    return True


def _as_text(value: Any, literal: Any) -> str | None:
    if value is None or isinstance(literal, str):
        return literal
    return json.dumps(value, ensure_ascii=False)
