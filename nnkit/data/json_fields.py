"""Read the fields of untrusted JSON: each has the type that is asked for, or raises a ModelFileError."""

from __future__ import annotations

import re
from typing import Any, TypeVar

from nnkit.checks import Check, Choice, Flag, Number, Refused, Whole
from nnkit.errors import ModelFileError

__all__ = [
    "choice",
    "flag",
    "mapping",
    "number",
    "numbers",
    "require",
    "sequence",
    "text",
    "texts",
    "whole",
    "wholes",
]

T = TypeVar("T")
_HALF = re.compile("[\ud800-\udfff]")


def require(fits: bool, wrong: str) -> None:
    """Raise a ModelFileError that says what is wrong, unless the data fit."""
    if not fits:
        raise ModelFileError(f"the model file is damaged: {wrong}")


def _field(data: dict[str, Any], key: str) -> Any:
    if key not in data:
        raise ModelFileError(f"the model file is damaged: {key!r} is missing")
    return data[key]


def _wrong(key: str, wanted: str) -> ModelFileError:
    return ModelFileError(f"the model file is damaged: {key!r} is not {wanted}")


def _is_text(value: Any) -> bool:
    """Tell whether a value is a text without halves of characters, which JSON may hold, and no table."""
    return isinstance(value, str) and not _HALF.search(value)


def mapping(data: Any, what: str) -> dict[str, Any]:
    """Return `data` if it is a JSON object."""
    if not isinstance(data, dict):
        raise _wrong(what, "an object")
    return data


def sequence(data: dict[str, Any], key: str) -> list[Any]:
    """Return a list of anything."""
    value = _field(data, key)
    if not isinstance(value, list | tuple):
        raise _wrong(key, "a list")
    return list(value)


def text(data: dict[str, Any], key: str) -> str:
    """Return a string."""
    value = _field(data, key)
    if not _is_text(value):
        raise _wrong(key, "a text")
    return value


def texts(data: dict[str, Any], key: str, *, distinct: bool = False) -> tuple[str, ...]:
    """Return a tuple of strings."""
    values = sequence(data, key)
    if not all(map(_is_text, values)):
        raise _wrong(key, "a list of texts")
    if distinct and len(set(values)) < len(values):
        raise _wrong(key, "a list of distinct texts")
    return tuple(values)


def choice(data: dict[str, Any], key: str, allowed: tuple[str, ...]) -> str:
    """Return one of the allowed strings."""
    return _checked(Choice(allowed), _field(data, key), key)


def flag(data: dict[str, Any], key: str) -> bool:
    """Return a boolean."""
    return _checked(Flag(), _field(data, key), key)


def whole(data: dict[str, Any], key: str, low: int, high: int) -> int:
    """Return an integer in ``[low, high]``."""
    return _checked(Whole(low, high), _field(data, key), key)


def wholes(data: dict[str, Any], key: str, low: int, high: int) -> tuple[int, ...]:
    """Return a tuple of integers in ``[low, high]``."""
    return tuple(_checked(Whole(low, high), value, key) for value in sequence(data, key))


def number(data: dict[str, Any], key: str) -> float:
    """Return a finite float."""
    return _checked(Number(), _field(data, key), key)


def numbers(data: dict[str, Any], key: str) -> list[float]:
    """Return a list of finite floats."""
    return [_checked(Number(), value, key) for value in sequence(data, key)]


def _checked(check: Check[T], value: Any, key: str) -> T:
    try:
        return check.plain(value)
    except Refused as error:
        raise _wrong(key, error.words) from None
