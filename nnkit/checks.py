"""Checks of arguments, and records of settings built on them.

A check is called with an argument's name and value: ``Whole(1)("epochs", 5)`` returns the value in its plain
type, or raises `ConfigError`: "epochs = 0 must be a whole number of at least 1". Order: the refusal, the
checks, settings. Printing help imports this module, so it does not import NumPy.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from math import isfinite
from numbers import Integral, Real
from typing import Any, Generic, Self, TypeVar

from nnkit.errors import ConfigError, nearest_name, shown

__all__ = [
    "By",
    "Check",
    "Choice",
    "Flag",
    "ListOf",
    "Number",
    "Refused",
    "Setting",
    "Settings",
    "Whole",
    "setting",
    "setting_like",
    "settings_of",
]

_TECHNICAL = 2**31 - 1  # a limit this large comes from a number format and is not part of the help
T_co = TypeVar("T_co", covariant=True)


class Refused(ValueError):
    """A value that a check does not allow.

    Parameters
    ----------
    words : str
        What it must be, such as "a whole number of at least 1".
    value : object
        The value, or its invalid part.
    part : str
        The invalid part: "" for the whole, "each element of ", or the key of a mapping as ".key".
    hint : str
        A suggestion, such as "; did you mean adam?".
    """

    def __init__(self, words: str, value: Any, part: str = "", hint: str = "") -> None:
        super().__init__(words)
        self.words, self.value, self.part, self.hint = words, value, part, hint

    def named(self, name: str) -> str:
        """Return the name of the invalid part, given the name of the whole."""
        return f"{name}{self.part}" if self.part.startswith(".") else f"{self.part}{name}"


# --- the checks ---


class Check(Generic[T_co]):
    """Base class: the values that an argument may have."""

    @property
    def words(self) -> str:
        """What is allowed, such as "a whole number of at least 1"."""
        raise NotImplementedError

    def plain(self, value: Any) -> T_co:
        """Return the value in its plain type, or raise `Refused` (or a `ConfigError` with a full message)."""
        raise NotImplementedError

    def __call__(self, name: str, value: Any) -> T_co:
        """Return the plain value of an argument, or raise a `ConfigError` that names it."""
        try:
            return self.plain(value)
        except Refused as error:
            given = f"{error.named(name)} = {shown(error.value)}"
            raise ConfigError(f"{given} must be {error.words}{error.hint}") from None


@dataclass(frozen=True)
class Whole(Check[int]):
    """A whole number between `least` and `most`; True and False are none."""

    least: int | None = None
    most: int | None = None

    @property
    def words(self) -> str:
        """What is allowed, without a technical upper limit."""
        most = None if self.most is None or self.most >= _TECHNICAL else self.most
        return f"a whole number{_range(self.least, most)}"

    def plain(self, value: Any) -> int:
        """Return an int."""
        whole = isinstance(value, Integral) and not isinstance(value, bool)
        if whole and self.most is not None and value > self.most:
            raise Refused(f"a whole number{_range(self.least, self.most)}", value)
        if not whole or not _within(value, self.least, self.most):
            raise Refused(self.words, value)
        return int(value)


@dataclass(frozen=True)
class Number(Check[float]):
    """A finite number between bounds, of which `above` and `below` are excluded; True and False are none."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    @property
    def words(self) -> str:
        """What is allowed."""
        return f"a finite number{_range(self.least, self.most, self.above, self.below)}"

    def plain(self, value: Any) -> float:
        """Return a float."""
        if isinstance(value, bool) or not isinstance(value, Real):
            raise Refused(self.words, value)
        with suppress(OverflowError):
            number = float(value)
            over = self.above is None or number > self.above
            under = self.below is None or number < self.below
            if isfinite(number) and over and under and _within(number, self.least, self.most):
                return number
        raise Refused(self.words, value)


@dataclass(frozen=True)
class Choice(Check[str]):
    """One of several names."""

    names: Sequence[str]

    @property
    def words(self) -> str:
        """What is allowed."""
        return f"one of {', '.join(self.names)}"

    def plain(self, value: Any) -> str:
        """Return the name."""
        if not isinstance(value, str) or value not in self.names:
            raise Refused(
                self.words, value, hint=nearest_name(value, self.names) if isinstance(value, str) else ""
            )
        return value


@dataclass(frozen=True)
class Flag(Check[bool]):
    """A bool of Python or NumPy."""

    words = "true or false"

    def plain(self, value: Any) -> bool:
        """Return a bool."""
        if type(value).__name__ not in ("bool", "bool_"):
            raise Refused(self.words, value)
        return bool(value)


@dataclass(frozen=True)
class ListOf(Check[list]):
    """A list or tuple of at most `most` values, each of which another check allows."""

    each: Check
    most: int = sys.maxsize

    @property
    def words(self) -> str:
        """What is allowed."""
        return f"a list, each element {self.each.words}"

    def plain(self, value: Any) -> list:
        """Return a list."""
        if not isinstance(value, list | tuple):
            raise Refused(self.words, value)
        if len(value) > self.most:
            raise Refused(f"a list of at most {self.most}", value)
        try:
            return [self.each.plain(element) for element in value]
        except Refused as error:
            raise Refused(error.words, error.value, "each element of ", error.hint) from None


@dataclass(frozen=True)
class By(Check[Any]):
    """The result of a function, which raises `Refused` or `ConfigError` for an invalid value.

    The words of its `Refused` are used only if it names a part of the value.
    """

    function: Callable[[Any], Any]
    words: str = ""

    def plain(self, value: Any) -> Any:
        """Return the function's result."""
        try:
            return self.function(value)
        except Refused as error:
            words = error.words if error.part else self.words
            raise Refused(words, error.value, error.part, error.hint) from None


def _within(value: Any, least: float | None, most: float | None) -> bool:
    return (least is None or value >= least) and (most is None or value <= most)


def _range(
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> str:
    bounds = (("of at least", least), ("greater than", above), ("at most", most), ("less than", below))
    parts = [f"{words} {_bound(bound)}" for words, bound in bounds if bound is not None]
    return f" {' and '.join(parts)}" if parts else ""


def _bound(bound: float) -> str:
    if isinstance(bound, float):
        return f"{bound:g}"
    power = bound.bit_length() - 1
    return f"2^{power}" if power >= 32 and bound == 2**power else str(bound)


# --- settings ---


@dataclass(frozen=True)
class Setting:
    """The declaration of a setting.

    Parameters
    ----------
    name : str
        The name of the field.
    default : object
        `dataclasses.MISSING` if there is none. If it is None, None is allowed, too.
    check : Check
        The allowed values.
    help : str
        One sentence.
    example : object
        A value for the help, if the default is not an example.
    must_match : bool
        Whether a resumed training must have the same value.
    """

    name: str
    default: Any
    check: Check
    help: str
    example: Any = None
    must_match: bool = True

    def plain(self, value: Any) -> Any:
        """Return the value as `Check.plain` does, or None if that is the default."""
        return None if value is None and self.default is None else self.check.plain(value)


def setting(default: Any, check: Check, help: str, example: Any = None, *, must_match: bool = True) -> Any:
    """Return a dataclass field that declares a setting; parameters as in `Setting`."""
    return _field(Setting("", default, check, help, example, must_match))


def setting_like(record: type[Settings], name: str, **changes: Any) -> Any:
    """Return a dataclass field with the setting of another record, with some changes."""
    return _field(replace(settings_of(record)[name], **changes))


def _field(declared: Setting) -> Any:
    default = declared.default
    if isinstance(default, list | dict):
        return field(default_factory=lambda: copy.copy(default), metadata={"setting": declared})
    return field(default=default, metadata={"setting": declared})


def settings_of(record: type[Settings]) -> Mapping[str, Setting]:
    """Return a record's settings by name, in their order."""
    if record not in _SETTINGS:
        declared = ((item.name, item.metadata.get("setting")) for item in fields(record))
        _SETTINGS[record] = {name: replace(known, name=name) for name, known in declared if known is not None}
    return _SETTINGS[record]


_SETTINGS: dict[type, Mapping[str, Setting]] = {}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A record of settings: each field is checked and has its plain type."""

    @classmethod
    def of(cls, **given: Any) -> Self:
        """Return a record from values of other types, such as a name for an optimizer."""
        return cls(**given)

    def __post_init__(self) -> None:
        self._check(settings_of(type(self)))

    def changed(self, **values: Any) -> Self:
        """Return a copy with other values of some settings; only these are checked."""
        record = copy.copy(self)
        for name, value in values.items():
            object.__setattr__(record, name, value)
        record._check(values)
        return record

    def _check(self, names: Iterable[str]) -> None:
        """Replace the values of some fields by plain ones, or raise `ConfigError`."""
        known = settings_of(type(self))
        for name in names:
            value = getattr(self, name)
            if value is not None or known[name].default is not None:
                object.__setattr__(self, name, known[name].check(name, value))
