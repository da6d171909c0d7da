"""What each column of a table is and how its cells are written; a model keeps it.

Order: one column's entry, the schema, JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

from nnkit.data import json_fields
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
    """How one column is read.

    Parameters
    ----------
    name : str
    kind : {"number", "category", "boolean", "date", "text", "picture", "identifier", "empty", "dropped"}
    style : Style
        How numbers are written.
    pattern : str
        How dates are written; see `nnkit.data.tables.dates`. "duration" for what Arrow calls so.
    missing : tuple of str, or None
        All words of missing values, where they are not those of its kind and of the options.
    note : str
        What a user should know of how this was decided, and which option decides otherwise.
    """

    name: str
    kind: ColumnKind
    style: Style = PLAIN
    pattern: str = ""
    missing: tuple[str, ...] | None = None
    note: str = ""

    def __str__(self) -> str:
        written = {"number": str(self.style), "date": self.pattern}.get(self.kind, "")
        return self.kind + (f", {written}" if written else "")

    def to_json(self) -> dict[str, Any]:
        """Return what differs from the defaults, as JSON values; a note is not kept."""
        style = [self.style.decimal, self.style.thousands, self.style.before, self.style.after]
        values = {
            "style": None if self.style.plain else style,
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
            signs = json_fields.texts(data, "style")
            if (
                len(signs) != 4
                or signs[0] not in (".", ",")
                or signs[1] not in THOUSANDS
                or max(map(len, signs)) > LONGEST_UNIT
            ):
                raise ModelFileError("the model file is damaged: a column's numbers have no signs")
            style = Style(*signs)
        pattern = json_fields.text(data, "pattern") if "pattern" in data else ""
        if kind == "date" and pattern != "duration" and not (pattern and is_pattern(pattern)):
            raise ModelFileError("the model file is damaged: a column's dates have no pattern")
        missing = json_fields.texts(data, "missing") if "missing" in data else None
        return cls(name, kind, style, pattern, missing)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Schema:
    """How a table is read.

    Parameters
    ----------
    columns : tuple of Column
        Every column of the table it was learnt from, the target among them, in order.
    named : bool
        Whether that table named its columns.
    options : TableOptions
        What the user said of it, which holds for later tables too.
    """

    columns: tuple[Column, ...]
    named: bool = True
    options: TableOptions = field(default_factory=TableOptions)

    @cached_property
    def by_name(self) -> Mapping[str, Column]:
        """The columns by name."""
        return {column.name: column for column in self.columns}

    @cached_property
    def metadata(self) -> bytes:
        """What an Arrow table that was read by this schema holds in its metadata."""
        return json.dumps(self.to_json(), separators=(",", ":")).encode()

    def lines(self, names: Iterable[str] | None = None) -> list[str]:
        """Return a line for each column, or each named: its kind, how it is written, what was doubtful."""
        chosen = [self.by_name[name] for name in names] if names is not None else list(self.columns)
        width = min(_LONGEST_NAME, max((len(column.name) for column in chosen), default=0))
        lines = []
        for column in chosen[:_MOST_LINES]:
            name = (
                column.name if len(column.name) <= _LONGEST_NAME else column.name[: _LONGEST_NAME - 1] + "…"
            )
            lines.append(f"{name:<{width}}  {column}" + (f"; {column.note}" if column.note else ""))
        if len(chosen) > _MOST_LINES:
            lines.append(f"… and {len(chosen) - _MOST_LINES:,} more columns")
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
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
        if len({column.name for column in columns}) < len(columns):
            raise ModelFileError("the model file is damaged: its schema names a column twice")
        given = json_fields.mapping(data.get("options"), "options")
        if "missing" in given:
            given = given | {"missing": json_fields.texts(given, "missing")}
        try:
            options = TableOptions(**given)
        except (TypeError, AttributeError, ConfigError) as error:
            raise ModelFileError(f"the model file is damaged: its options of tables: {error}") from None
        return cls(columns, json_fields.flag(data, "named"), options)
