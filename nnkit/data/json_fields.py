"""Read the fields of untrusted JSON: each comes back in its type, or a ModelFileError says what is wrong."""

from __future__ import annotations

import math
from typing import Any

from nnkit.errors import ModelFileError

__all__ = ["choice", "flag", "mapping", "number", "numbers", "sequence", "text", "texts", "whole", "wholes"]


def _field(data: dict[str, Any], key: str) -> Any:
    if key not in data:
        raise ModelFileError(f"the model file is damaged: {key!r} is missing")
    return data[key]


def _wrong(key: str, wanted: str) -> ModelFileError:
    return ModelFileError(f"the model file is damaged: {key!r} is not {wanted}")


def _is_text(value: Any) -> bool:
    """Tell whether a value is a text: JSON's strings may hold halves of characters, which no table can."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


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
    value = text(data, key)
    if value not in allowed:
        raise _wrong(key, f"one of {', '.join(allowed)}")
    return value


def flag(data: dict[str, Any], key: str) -> bool:
    """Return a boolean."""
    value = _field(data, key)
    if not isinstance(value, bool):
        raise _wrong(key, "true or false")
    return value


def whole(data: dict[str, Any], key: str, low: int, high: int) -> int:
    """Return an integer in ``[low, high]``."""
    value = _field(data, key)
    if not _is_whole(value, low, high):
        raise _wrong(key, f"a whole number between {low} and {high}")
    return value


def wholes(data: dict[str, Any], key: str, low: int, high: int) -> tuple[int, ...]:
    """Return a tuple of integers in ``[low, high]``."""
    values = sequence(data, key)
    if not all(_is_whole(value, low, high) for value in values):
        raise _wrong(key, f"a list of whole numbers between {low} and {high}")
    return tuple(values)


def _is_whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def number(data: dict[str, Any], key: str) -> float:
    """Return a finite float."""
    return _finite(_field(data, key), key)


def numbers(data: dict[str, Any], key: str) -> list[float]:
    """Return a list of finite floats."""
    return [_finite(value, key) for value in sequence(data, key)]


def _finite(value: Any, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(key, "a number")
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise _wrong(key, "a finite number")
    return result
