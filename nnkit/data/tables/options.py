"""How a user says that a table is written; apart from what reads it, which imports pyarrow."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nnkit.errors import ConfigError

__all__ = ["KINDS", "TableOptions"]

KINDS = ("number", "category", "boolean", "date", "text", "dropped")
"""The kinds that `TableOptions.types` gives a column; a date may have a pattern: ``date:%d.%m.%Y``."""

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
        The words that mean a missing value, in place of those found by themselves; a blank cell always does.
    comment : str, optional
        Lines that begin with it are left out.
    skip_rows : int
        How many lines are left out at the beginning.
    quote : str, optional
        The character around cells that hold a separator; "" for none. Without it, a double quote.
    index : str or int, optional
        A column that numbers or names the rows, which is not learnt from.
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
        if self.thousands not in (None, "", ".", ",", " ", "'", "_"):
            raise ConfigError(
                f'`thousands` must be one of . , \' _ and a space, or "" for none, not {self.thousands!r}'
            )
        if self.decimal is not None and self.decimal == self.thousands:
            raise ConfigError(f"`decimal` and `thousands` are both {self.decimal!r}")
        if self.encoding is not None:
            try:
                codecs.lookup(self.encoding)
            except (LookupError, ValueError):
                raise ConfigError(
                    f"`encoding` {self.encoding!r} is unknown: such as utf-8 or latin-1"
                ) from None
        if not isinstance(self.skip_rows, int) or self.skip_rows < 0:
            raise ConfigError(f"`skip_rows` must be a whole number of at least 0, not {self.skip_rows!r}")
        for name, kind in self.types.items():
            check_kind(name, kind)

    def to_json(self) -> dict[str, Any]:
        """Return what is set, as JSON values."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        kept = {name: value for name, value in values.items() if value not in (None, 0, {}) or value is False}
        return {
            name: list(value) if isinstance(value, tuple) else dict(value) if name == "types" else value
            for name, value in kept.items()
        }


def check_kind(name: str, kind: object) -> None:
    """Raise a ConfigError unless it is a kind that `types` may give a column."""
    if kind in KINDS or (isinstance(kind, str) and re.match("date:.*%[a-zA-Z]", kind)):
        return
    listed = ", ".join(KINDS)
    raise ConfigError(f"column {name!r} must be one of {listed}, or such as date:%d.%m.%Y, not {kind!r}")
