"""What `nnkit bench` records: one thing measured on one device, its figures with their spread, its ratios."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.benchmarks.figures import text
from nnkit.benchmarks.timing import Spread, ratio, spread

__all__ = ["FORMAT", "Quantity", "Record", "measured", "once", "per_second", "plain_ratio"]

FORMAT = "nnkit bench 1"
"""What a file of records says it is, under the key ``format``."""


@dataclass(frozen=True)
class Quantity:
    """A measured number, its unit and its spread.

    Parameters
    ----------
    unit : str
        Without a prefix: ``s``, ``B``, ``B/s``, ``FLOP/s``, ``samples/s``, ``%`` (1.0 being 100 %), or empty.
    median, low, high : float
        The 50th, 10th and 90th percentile.
    repeats : int
        How many measurements.
    """

    unit: str
    median: float
    low: float
    high: float
    repeats: int

    def __str__(self) -> str:
        others = (self.low, self.high) if self.repeats > 1 else ()
        return text(self.unit, self.median, *others)


@dataclass(frozen=True)
class Record:
    """One thing measured, or why it was not.

    Parameters
    ----------
    section : str
        The part of the suite.
    name : str
        What was measured.
    device : str
        ``cpu``, ``cuda:0``.
    precision : str
        ``fp32``, ``fp64``, ``tf32``, ``fp16`` or ``bf16``.
    parameters : dict of str to int, float or str
        What tells it from the section's other records of that name, such as ``width`` and ``batch``.
    figures, ratios : dict of str to Quantity
        By name; a ratio is of two figures taken in turns, and has no unit.
    skipped : str
        Why there are no figures; empty where there are.
    details : dict
        JSON values that say how it came about.
    """

    section: str
    name: str
    device: str
    precision: str = "fp32"
    parameters: dict[str, int | float | str] = field(default_factory=dict)
    figures: dict[str, Quantity] = field(default_factory=dict)
    ratios: dict[str, Quantity] = field(default_factory=dict)
    skipped: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[Any, ...]:
        """What two runs call the same thing by."""
        return self.section, self.name, self.device, self.precision, tuple(sorted(self.parameters.items()))

    @property
    def label(self) -> str:
        """The name and the parameters, in words."""
        return ", ".join([self.name, *(f"{name} {value}" for name, value in self.parameters.items())])

    @property
    def quantities(self) -> dict[str, Quantity]:
        """The figures, then the ratios."""
        return {**self.figures, **self.ratios}

    def to_json(self) -> dict[str, Any]:
        """Return the fields."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Record:
        """Return what `to_json` made a dictionary of; else KeyError, TypeError or ValueError is raised."""
        quantities = {
            kind: {str(name): Quantity(**fields) for name, fields in value[kind].items()}
            for kind in ("figures", "ratios")
        }
        for quantity in (each for kind in quantities.values() for each in kind.values()):
            # JSON has no types to hold: a text here would fail only where it is drawn.
            if not isinstance(quantity.unit, str):
                raise TypeError("a unit is no text")
            for number in (quantity.median, quantity.low, quantity.high, quantity.repeats):
                if isinstance(number, bool) or not isinstance(number, int | float):
                    raise TypeError("a figure is no number")
        section, name, device, precision, skipped = (
            str(value[field]) for field in ("section", "name", "device", "precision", "skipped")
        )
        parameters, details = dict(value["parameters"]), dict(value["details"])
        figures, ratios = quantities["figures"], quantities["ratios"]
        return cls(section, name, device, precision, parameters, figures, ratios, skipped, details)


def measured(unit: str, values: NDArray[np.float64] | Spread) -> Quantity:
    """Return the spread of measurements in a unit."""
    return Quantity(unit, **(values if isinstance(values, Spread) else spread(values)).to_json())  # type: ignore[arg-type]


def once(unit: str, value: float) -> Quantity:
    """Return what was measured a single time, or does not vary."""
    return Quantity(unit, float(value), float(value), float(value), 1)


def per_second(unit: str, amount: float, seconds: NDArray[np.float64]) -> Quantity:
    """Return the rate of an amount done in so many seconds each time."""
    return measured(unit, amount / seconds)


def plain_ratio(a: NDArray[np.float64], b: NDArray[np.float64]) -> Quantity:
    """Return how `a` compares with `b`, turn by turn."""
    return measured("", ratio(a, b))
