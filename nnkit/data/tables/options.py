"""How a user says that a table is written; apart from what reads it, which imports pyarrow."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nnkit.errors import ConfigError

__all__ = ["KINDS", "THOUSANDS", "TableOptions", "check_kind"]

KINDS = ("number", "category", "boolean", "date", "text", "dropped")
"""The kinds that `TableOptions.types` gives a column; a date may have a pattern: ``date:%d.%m.%Y``."""

THOUSANDS = ("", ".", ",", " ", "'", "_")
"""The signs that may stand between groups of three digits; a space is any kind of space, "" none."""

_ONE_SIGN = ("separator", "comment", "quote")


@dataclass(frozen=True)
class TableOptions:
    """How a table is written, where that is not to be found out.

    Parameters
    ----------
    separator : str, optional
        The character between the cells of delimited text; "whitespace" for one or more spaces or tabs.
    header : bool or int, optional
        Whether a row of names comes first, or the number of the row that does, counted from 0 after
        `skip_rows`: what stands above it is left out.
    encoding : str, optional
        Of text, by a name that Python knows; without it UTF-8.
    decimal, thousands : str, optional
        The signs in numbers: ``","`` and ``"."`` for 1.234,5. A `thousands` of "" says that there is none.
    missing : tuple of str, optional
        Words that mean a missing value in any column, beside the usual ones such as NA; () says that no
        word does. A blank cell always does.
    comment : str, optional
        Lines that begin with it are left out.
    skip_rows : int
        How many lines are left out at the beginning.
    quote : str, optional
        The character around cells that hold a separator; "" for none. Without it, a double quote.
    index : str or int, optional
        A column that numbers or names the rows, by name or number, which is not learnt from.
    weight : str or int, optional
        A column of sample weights, by name or number, which is not learnt from either.
    types : mapping of str to str
        The kind of columns by their names: number, category, boolean, date, date:%d.%m.%Y, text or dropped.
    """

    separator: str | None = None
    header: bool | int | None = None
    encoding: str | None = None
    decimal: str | None = None
    thousands: str | None = None
    missing: tuple[str, ...] | None = None
    comment: str | None = None
    skip_rows: int = 0
    quote: str | None = None
    index: str | int | None = None
    weight: str | int | None = None
    types: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in _ONE_SIGN:
            value = getattr(self, name)
            one = isinstance(value, str) and len(value) == 1 and value.isascii() and value not in "\r\n\0"
            named = (name, value) in (("separator", "whitespace"), ("quote", ""))
            if value is not None and not one and not named:
                raise ConfigError(f"`{name}` must be one ASCII character, not {value!r}")
        if self.decimal not in (None, ".", ","):
            raise ConfigError(f"`decimal` must be '.' or ',', not {self.decimal!r}")
        if self.thousands is not None and self.thousands not in THOUSANDS:
            raise ConfigError(
                f'`thousands` must be one of . , \' _ and a space, or "" for none, not {self.thousands!r}'
            )
        if self.decimal is not None and self.decimal == self.thousands:
            raise ConfigError(f"`decimal` and `thousands` are both {self.decimal!r}")
        if self.encoding is not None:
            try:
                codecs.lookup(self.encoding)
            except (LookupError, ValueError, TypeError):
                known = "one that Python knows, such as utf-8 or latin-1"
                raise ConfigError(f"`encoding` must be {known}, not {self.encoding!r}") from None
        if not _is_count(self.skip_rows):
            raise ConfigError(f"`skip_rows` must be a whole number of at least 0, not {self.skip_rows!r}")
        if not isinstance(self.header, bool | None) and not _is_count(self.header):
            raise ConfigError(f"`header` must be a row's number, counted from 0, not {self.header!r}")
        for name in ("index", "weight"):
            key = getattr(self, name)
            if isinstance(key, bool) or not isinstance(key, str | int | None) or key == "":
                raise ConfigError(f"`{name}` must be a column's name or number, not {key!r}")
        if self.missing is not None and not (
            isinstance(self.missing, tuple) and all(isinstance(word, str) for word in self.missing)
        ):
            raise ConfigError(f"`missing` must be a tuple of texts, not {self.missing!r}")
        for name, kind in self.types.items():
            check_kind(name, kind)

    def to_json(self) -> dict[str, Any]:
        """Return what is set, as JSON values."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        kept = {name: value for name, value in values.items() if value != getattr(_FOUND_OUT, name)}
        return {
            name: list(value) if isinstance(value, tuple) else dict(value) if name == "types" else value
            for name, value in kept.items()
        }


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def check_kind(name: str, kind: object) -> None:
    """Raise a ConfigError unless it is a kind that `types` may give a column."""
    if kind in KINDS or (isinstance(kind, str) and re.match("date:.*%[a-zA-Z]", kind)):
        return
    listed = ", ".join(KINDS)
    raise ConfigError(
        f"`types` of column {name!r} must be one of {listed}, or such as date:%d.%m.%Y, not {kind!r}"
    )


_FOUND_OUT = TableOptions()
