"""The options that say how a table is written, in a file that does not import pyarrow."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from nnkit.checks import By, Refused, Settings, Whole, setting
from nnkit.errors import ConfigError

__all__ = ["COLUMN", "KINDS", "THOUSANDS", "TableOptions"]

KINDS = ("number", "category", "boolean", "date", "text", "dropped")
"""The kinds that `TableOptions.types` gives a column; a date may have a pattern: ``date:%d.%m.%Y``."""

THOUSANDS = ("", ".", ",", " ", "'", "_")
"""The signs that may stand between groups of three digits; a space is any kind of space, "" none."""


def _require(fits: bool, value: Any) -> Any:
    if not fits:
        raise Refused("", value)
    return value


def _sign(named: str = "none") -> By:
    """Return the check of a single character, or of one word."""

    def sign(value: Any) -> str:
        one = isinstance(value, str) and len(value) == 1 and value.isascii() and value not in "\r\n\0"
        return _require(one or value == named, value)

    return By(sign, "one ASCII character")


def _signs(known: tuple[str, ...], words: str) -> By:
    return By(lambda value: _require(value in known, value), words)


def _encoding(value: Any) -> str:
    try:
        codecs.lookup(value)
    except (LookupError, ValueError, TypeError):
        raise Refused("", value) from None
    return value


def _column(value: Any) -> str | int:
    return _require(isinstance(value, str | int) and not isinstance(value, bool) and value != "", value)


def _missing(value: Any) -> tuple[str, ...]:
    return _require(isinstance(value, tuple) and all(isinstance(word, str) for word in value), value)


def _types(value: Any) -> Mapping[str, str]:
    for name, kind in _require(isinstance(value, Mapping), value).items():
        dated = isinstance(kind, str) and re.match("date:.*%[a-zA-Z]", kind)
        if kind not in KINDS and not dated:
            words = f"one of {', '.join(KINDS)}, or a date's format, such as date:%d.%m.%Y"
            raise Refused(words, kind, f".{name}")
    return value


_option = partial(setting, must_match=False)  # a resume recognises a table by its content
COLUMN = By(_column, "a column's name or number")


@dataclass(frozen=True)
class TableOptions(Settings):
    """How a table is written; what is not set is detected. The help of each field says what it sets.

    A `header` is counted after `skip_rows`, and the rows above it are left out. `decimal` and `thousands` are
    ``","`` and ``"."`` for 1.234,5; a `thousands` of "" means that there is none. A `missing` of () means
    that no word is a missing value, as a blank cell always is. Columns are given by name or number.
    """

    separator: str | None = _option(
        None, _sign("whitespace"), 'The character between the cells of a text file, or "whitespace".', ";"
    )
    header: bool | int | None = _option(
        None,
        By(
            lambda value: value if isinstance(value, bool) else Whole(0).plain(value),
            "a row's number, counted from 0",
        ),
        "Whether a text file names its columns, or the row that does, from 0.",
    )
    encoding: str | None = _option(
        None,
        By(_encoding, "one that Python knows, such as utf-8 or latin-1"),
        "The encoding of text files; without it, UTF-8.",
        "latin-1",
    )
    decimal: str | None = _option(None, _signs((".", ","), "'.' or ','"), "The decimal sign of numbers.", ",")
    thousands: str | None = _option(
        None,
        _signs(THOUSANDS, 'one of . , \' _ and a space, or "" for none'),
        'The sign between thousands; "" for none.',
        ".",
    )
    missing: tuple[str, ...] | None = _option(
        None,
        By(_missing, "a tuple of texts"),
        "Words that mean a missing value, beside the usual ones.",
        ("-999", "n/a"),
    )
    comment: str | None = _option(None, _sign(), "The character that lines to leave out begin with.", "#")
    skip_rows: int = _option(0, Whole(0), "How many lines to leave out at the beginning of a text file.")
    quote: str | None = _option(
        None, _sign(""), 'The character around cells that hold a separator; "" for none.', "'"
    )
    index: str | int | None = _option(
        None, COLUMN, "The column that numbers or names the rows; it is not learnt from.", "id"
    )
    weight: str | int | None = _option(
        None, COLUMN, "The column of sample weights: how much each row counts.", "weight"
    )
    types: Mapping[str, str] = _option(
        {},
        By(_types, 'a table such as {zip = "category"}'),
        "The kinds of columns, where they are not as found: number, category, boolean, date, text or "
        "dropped; a date with its pattern.",
        {"zip": "category", "sold": "date:%d.%m.%Y"},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decimal is not None and self.decimal == self.thousands:
            raise ConfigError(f"`decimal` and `thousands` are both {self.decimal!r}")

    def to_json(self) -> dict[str, Any]:
        """Return the options that are set, as JSON values."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        kept = {name: value for name, value in values.items() if value != getattr(_DETECTED, name)}
        return {
            name: list(value) if isinstance(value, tuple) else dict(value) if name == "types" else value
            for name, value in kept.items()
        }


_DETECTED = TableOptions()
