"""The schema of a table: what each column holds and how its cells are written; a model keeps it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

from nnkit.data import json_fields
from nnkit.data.json_fields import require
from nnkit.data.messages import shortened
from nnkit.data.tables.dates import is_pattern
from nnkit.data.tables.numerals import LONGEST_UNIT, PLAIN, Style
from nnkit.data.tables.options import THOUSANDS, TableOptions
from nnkit.errors import ConfigError, ModelFileError

__all__ = ["LEARNT", "METADATA", "Column", "ColumnKind", "Schema", "toml_text"]

ColumnKind = Literal[
    "number", "category", "boolean", "date", "text", "picture", "identifier", "empty", "dropped"
]
KINDS: tuple[ColumnKind, ...] = get_args(ColumnKind)
LEARNT = ("number", "category", "boolean", "date", "text")
"""The kinds of columns that are learnt from."""
METADATA = b"nnkit.schema"
"""The key of an Arrow table's metadata that holds the schema by which it was read."""
_MOST_LINES = 60
_LONGEST_NAME = 30


def toml_text(text: str) -> str:
    """Return a text as TOML shows it."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


@dataclass(frozen=True)
class Column:
    """How one column is read."""

    name: str
    kind: ColumnKind
    style: Style = PLAIN  # how numbers are written
    pattern: str = ""  # how dates are written (see `nnkit.data.tables.dates`); "duration" for Arrow's type
    missing: tuple[str, ...] | None = None  # the words for missing values; None for the usual ones
    note: str = ""  # tells the user why the column is read in this way, and which option changes it

    def __str__(self) -> str:
        written = {"number": str(self.style), "date": self.pattern}.get(self.kind, "")
        return self.kind + (f", {written}" if written else "")

    @property
    def why_left_out(self) -> str:
        """Why nothing is learnt from a column of another kind than `LEARNT`."""
        return "every value is missing" if self.kind == "empty" else self.note or f"it is {self.kind}"

    def to_json(self) -> dict[str, Any]:
        """Return the fields that differ from the defaults, without the note, as JSON values."""
        style = [self.style.decimal, self.style.thousands, self.style.before, self.style.after]
        values = {
            "style": None if self.style == PLAIN else style,
            "pattern": self.pattern or None,
            "missing": None if self.missing is None else list(self.missing),
        }
        return {"name": self.name, "kind": self.kind} | {k: v for k, v in values.items() if v is not None}

    @classmethod
    def from_json(cls, data: Any) -> Column:
        """Read what `to_json` wrote; anything else is a ModelFileError."""
        data = json_fields.mapping(data, "column")
        name, kind = json_fields.text(data, "name"), json_fields.choice(data, "kind", KINDS)
        style = PLAIN
        if "style" in data:
            parts = json_fields.texts(data, "style")
            known = len(parts) == 4 and parts[0] in (".", ",") and parts[1] in THOUSANDS
            known = known and max(map(len, parts)) <= LONGEST_UNIT
            require(known, f"column {name!r} has no valid number style")
            style = Style(*parts)
        pattern = json_fields.text(data, "pattern") if "pattern" in data else ""
        known = pattern == "duration" or (bool(pattern) and is_pattern(pattern))
        require(kind != "date" or known, f"column {name!r} has no valid date pattern")
        missing = json_fields.texts(data, "missing") if "missing" in data else None
        return cls(name, kind, style, pattern, missing)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Schema:
    """How a table is read."""

    columns: tuple[Column, ...]  # all of the table it was inferred from, with the target, in order
    named: bool = True  # whether that table named its columns
    options: TableOptions = field(default_factory=TableOptions)  # the user's, which hold for later tables too

    @cached_property
    def by_name(self) -> Mapping[str, Column]:
        """The columns by name."""
        return {column.name: column for column in self.columns}

    @cached_property
    def metadata(self) -> bytes:
        """The schema in the metadata of an Arrow table that was read by it."""
        return json.dumps(self.to_json(), separators=(",", ":")).encode()

    def lines(self, names: Iterable[str] | None = None) -> list[str]:
        """Return a line for each column (all, or those named): its kind, how it is written, its note."""
        chosen = [self.by_name[name] for name in names] if names is not None else list(self.columns)
        width = min(_LONGEST_NAME, max((len(column.name) for column in chosen), default=0))
        lines = []
        for column in chosen[:_MOST_LINES]:
            fits = len(column.name) <= _LONGEST_NAME
            name = column.name if fits else shortened(column.name, _LONGEST_NAME - 1)
            lines.append(f"{name:<{width}}  {column}" + (f"; {column.note}" if column.note else ""))
        if len(chosen) > _MOST_LINES:
            lines.append(f"… and {len(chosen) - _MOST_LINES:,} more columns")
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        return {
            "columns": [column.to_json() for column in self.columns],
            "named": self.named,
            "options": self.options.to_json(),
        }

    @classmethod
    def from_json(cls, data: Any) -> Schema:
        """Read what `to_json` wrote; anything else is a ModelFileError."""
        data = json_fields.mapping(data, "schema")
        columns = tuple(Column.from_json(item) for item in json_fields.sequence(data, "columns"))
        distinct = len({column.name for column in columns}) == len(columns)
        require(distinct, "two columns of its schema have the same name")
        given = json_fields.mapping(data.get("options"), "options")
        if "missing" in given:
            given = given | {"missing": json_fields.texts(given, "missing")}
        try:
            options = TableOptions(**given)
        except (TypeError, AttributeError, ConfigError) as error:
            raise ModelFileError(f"the model file is damaged: invalid table options: {error}") from None
        return cls(columns, json_fields.flag(data, "named"), options)
