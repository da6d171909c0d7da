"""Periods: "500 steps", "1 epochs", "5 minutes"."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from nnkit.checks import Choice, Number, Whole
from nnkit.errors import ConfigError

__all__ = ["Period", "Unit", "parse_period"]

Unit = Literal["steps", "epochs", "seconds", "minutes", "hours"]

_SECONDS = {"seconds": 1.0, "minutes": 60.0, "hours": 3600.0}
# Larger counts of steps are not exact in a float.
_LARGEST = 2**53
_PATTERN = re.compile(r"\s*([0-9][0-9_]*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z]+)\s*", re.ASCII)


@dataclass(frozen=True)
class Period:
    """A number of steps, epochs or units of time.

    Parameters
    ----------
    value : int or float
        Greater than 0; a whole number for steps and epochs.
    unit : {"steps", "epochs", "seconds", "minutes", "hours"}

    Raises
    ------
    ConfigError
        If the value or the unit is invalid.
    """

    value: float
    unit: Unit

    def __post_init__(self) -> None:
        Choice(get_args(Unit))("a period's unit", self.unit)
        value = self.value
        if self.unit in _SECONDS:
            Number(above=0, most=_LARGEST)(f"a period in {self.unit}", value)
            return
        value = int(value) if isinstance(value, float) and value.is_integer() else value
        object.__setattr__(self, "value", Whole(1, _LARGEST)(f"a period in {self.unit}", value))

    def __str__(self) -> str:
        # A whole number of minutes is written "5 minutes", not "5.0 minutes".
        return f"{int(self.value) if self.value % 1 == 0 else self.value} {self.unit}"

    @property
    def seconds(self) -> float | None:
        """The period in seconds; None for one of steps or epochs."""
        return float(self.value) * _SECONDS[self.unit] if self.unit in _SECONDS else None

    def steps(self, steps_per_epoch: int) -> int | None:
        """Return the period in steps; None for one of time."""
        if self.unit in _SECONDS:
            return None
        return int(self.value) * (steps_per_epoch if self.unit == "epochs" else 1)


def parse_period(text: str | Period) -> Period:
    """Read a period such as "500 steps", "1 epoch" or "2.5 minutes".

    Raises
    ------
    ConfigError
        If it is not a number followed by a unit.
    """
    if isinstance(text, Period):
        return text
    match = _PATTERN.fullmatch(text) if isinstance(text, str) else None
    units = {unit: unit for unit in get_args(Unit)} | {unit[:-1]: unit for unit in get_args(Unit)}
    if match is None or match[2].lower() not in units:
        raise ConfigError(
            f'a period is a number and a unit, such as "500 steps", "1 epochs" or "5 minutes", not {text!r}'
        )
    try:
        value = float(match[1])
    except ValueError:
        raise ConfigError(f"{match[1]!r} in the period {text!r} is not a number") from None
    return Period(value, units[match[2].lower()])
