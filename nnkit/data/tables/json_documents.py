"""Find the rows of a JSON document: a list of objects, or an object that holds a whole table."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnkit.data.limits import check_size
from nnkit.errors import DataError
from nnkit.nesting import is_too_deep

__all__ = ["JsonRows", "document_rows", "json_lines", "line_rows"]

Row = dict[str, Any]

# The Python objects of a number of two characters take this many times as much.
_OBJECT_GROWTH = 32


@dataclass(frozen=True)
class JsonRows:
    """The rows of a JSON text.

    Parameters
    ----------
    rows : list of dict
    named : bool
        Whether the text names the columns; else they are called "0", "1", and so on.
    index : tuple of str
        The columns that number the rows, as pandas' `to_json(orient="table")` says.
    """

    rows: list[Row]
    named: bool = True
    index: tuple[str, ...] = ()


def document_rows(text: bytes, path: Path, literal: bool = False) -> JsonRows | None:
    """Return the rows of a JSON document; None where the text is one object a line.

    Read are a list of objects, a list of lists, an object with one list of objects among its values, and
    what pandas' `to_json` writes for any `orient`.

    Parameters
    ----------
    text : bytes
    path : Path
        What to call it in messages.
    literal : bool
        Whether each number is given as its text.

    Raises
    ------
    DataError
        Where a list is not JSON, its items are of several kinds, or it is nested too deeply.
    """
    start = text.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start.startswith(b"["):
        first, _, rest = start.partition(b"\n")
        if rest.strip() and _is_json(first):
            return None
    check_size(_OBJECT_GROWTH * len(text), str(path))
    try:
        document = _parse(text.decode("utf-8-sig"), literal)
    except ValueError as error:
        if not start.startswith(b"["):
            return None  # it may be lines of which the first is damaged
        raise DataError(f"{path}: not valid JSON: {error}") from None
    try:
        if isinstance(document, list):
            return _list_rows(document)
        return _object_rows(document) if isinstance(document, dict) else None
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def line_rows(text: bytes, path: Path, literal: bool = False) -> JsonRows:
    """Return the rows of JSON Lines, as `document_rows` those of a document."""
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
            raise DataError(f"{path}: line {number} is no object: write one object a line")
        rows.append(row)
    return JsonRows(rows)


def json_lines(rows: list[Row], literal: Callable[[], JsonRows | None]) -> bytes:
    """Write rows as JSON Lines in which no key has values of several types.

    Where a key has, each of its values becomes a text: numbers as they stand in the file.

    Parameters
    ----------
    rows : list of dict
    literal : function
        Returns the same rows with each number as its text.
    """
    mixed = [key for key, values in _grouped(rows).items() if not _are_alike(values)]
    if mixed and (again := literal()):
        rows = [
            row | {key: _as_text(row[key], texts[key]) for key in mixed if key in row}
            for row, texts in zip(rows, again.rows, strict=True)
        ]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _parse(text: str, literal: bool) -> Any:
    """Parse JSON; every way in which it fails is a ValueError that says where."""
    number = str if literal else None
    try:
        value = json.loads(text, parse_int=number, parse_float=number, parse_constant=number)
    except RecursionError:
        raise ValueError("the values are nested too deeply") from None
    if is_too_deep(value):
        raise ValueError("the values are nested too deeply")
    return value


def _list_rows(items: list[Any]) -> JsonRows:
    if all(isinstance(item, dict) for item in items):
        return JsonRows(items)
    if all(isinstance(item, list) for item in items):
        width = len(items[0])
        for number, item in enumerate(items):
            if len(item) != width:
                raise DataError(f"row {number} (counting from 0) has {len(item)} values and row 0 {width}")
        return JsonRows([_numbered(item) for item in items], named=False)
    number = next(number for number, item in enumerate(items) if not isinstance(item, dict))
    raise DataError(
        f"item {number} (counting from 0) of the list is {_kind(items[number])}: write each row "
        'as an object like {"column": value}'
    )


def _numbered(values: list[Any]) -> Row:
    return {str(place): value for place, value in enumerate(values)}


def _object_rows(document: Row) -> JsonRows | None:
    """Return the rows of a table that is written as one object; None where the object is a row itself."""
    values = list(document.values())
    columns, data = document.get("columns"), document.get("data")
    split = set(document) <= {"columns", "index", "data"}
    if split and isinstance(columns, list) and isinstance(data, list) and _is_list_of(data, list):
        return JsonRows(_split_rows(columns, data))
    tables = [value for value in values if _is_list_of(value, dict)]
    if len(tables) == 1:
        return JsonRows(tables[0], index=_primary_key(document))
    if values and all(isinstance(value, dict) and value for value in values):
        if any(value.keys() != values[0].keys() for value in values):
            return None
        labels = list(values[0])
        if _counts(list(document)) and not _counts(labels):
            return JsonRows(values)
        return JsonRows([{name: document[name][label] for name in document} for label in labels])
    if values and all(_is_list_of(value, object) for value in values):
        if any(len(value) != len(values[0]) for value in values):
            return None
        return JsonRows([dict(zip(document, row, strict=True)) for row in zip(*values, strict=True)])
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
    schema = document.get("schema")
    key = schema.get("primaryKey") if isinstance(schema, dict) else None
    return tuple(name for name in key if isinstance(name, str)) if isinstance(key, list) else ()


# --- values of several types ---


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "a boolean"
    names: dict[type, str] = {int: "a number", float: "a number", str: "a text", list: "a list"}
    return names.get(type(value), "null" if value is None else "an object")


def _grouped(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the values of each key that are there."""
    groups: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        for key, value in row.items():
            if value is not None:
                groups[key].append(value)
    return groups


def _are_alike(values: list[Any]) -> bool:
    """Tell whether values, none of them None, are of one type, and so is what lies within them."""
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
