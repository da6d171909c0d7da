"""Checks of what a caller gives: each returns it plain or says what is wrong with it."""

from __future__ import annotations

import sys
from numbers import Integral, Real
from typing import Any

from nnkit.errors import ConfigError, shown

__all__ = ["above_zero", "at_least_zero", "whole"]


def whole(name: str, value: Any, least: int, most: int | None = None) -> int:
    """Return a whole number between `least` and `most`, or raise `ConfigError` naming it."""
    proper = isinstance(value, Integral) and not isinstance(value, bool)
    if not proper or value < least or (most is not None and value > most):
        upper = "" if most is None else f" and at most {most}"
        raise ConfigError(f"{name} = {shown(value)} must be a whole number of at least {least}{upper}")
    return int(value)


def at_least_zero(name: str, value: Any) -> float:
    """Return a finite number of at least 0, or raise `ConfigError` naming it."""
    number: Any = value  # which `Real` would hide: it compares with nothing
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= number <= sys.float_info.max:
        raise ConfigError(f"{name} = {shown(value)} must be a finite number of at least 0")
    return float(value)


def above_zero(name: str, value: Any) -> float:
    """Return a finite number above 0, or raise `ConfigError` naming it."""
    if at_least_zero(name, value) == 0:
        raise ConfigError(f"{name} = {shown(value)} must be greater than 0")
    return float(value)
