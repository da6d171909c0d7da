"""What a benchmark says: figures with their spread and their aim, failures, and a Markdown table of both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from nnkit.benchmarks.timing import Spread

__all__ = ["Aim", "Failure", "Figure", "Part", "table", "text"]

_SCALES: Mapping[str, tuple[tuple[float, str], ...]] = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")),
    "B/s": ((1e12, "TB/s"), (1e9, "GB/s"), (1e6, "MB/s")),
    "B": ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1.0, "B")),
    "FLOP/s": ((1e12, "TFLOP/s"), (1e9, "GFLOP/s"), (1e6, "MFLOP/s")),
    "samples/s": ((1e6, "M samples/s"), (1e3, "k samples/s"), (1.0, "samples/s")),
    "%": ((1e-2, "%"),),
}
_SIGNS = {"<=": "≤", ">=": "≥"}


@dataclass(frozen=True)
class Aim:
    """The bound that a figure's median should keep."""

    relation: Literal["<=", ">="]
    value: float

    def reached_by(self, value: float) -> bool:
        """Tell whether a value keeps the bound; a NaN does not."""
        return value <= self.value if self.relation == "<=" else value >= self.value


@dataclass(frozen=True)
class Figure:
    """A number that was measured.

    Parameters
    ----------
    name : str
        What was measured.
    unit : str
        ``s``, ``B/s``, ``FLOP/s``, ``%`` (of a share, 1.0 being 100 %), or empty for a plain number.
    value : Spread
        In that unit, without a prefix.
    aim : Aim or None
        What it should be.
    details : dict
        JSON values that say how it came about.
    """

    name: str
    unit: str
    value: Spread
    aim: Aim | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def reached(self) -> bool | None:
        """Whether the median keeps the aim; None where there is none."""
        return None if self.aim is None else self.aim.reached_by(self.value.median)

    def to_json(self) -> dict[str, Any]:
        """Return the fields, and whether the aim was reached."""
        return {**asdict(self), "reached": self.reached}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Figure:
        """Return what `to_json` made a dictionary of."""
        aim = None if value["aim"] is None else Aim(**value["aim"])
        return cls(value["name"], value["unit"], Spread(**value["value"]), aim, dict(value["details"]))


@dataclass(frozen=True)
class Failure:
    """Something that could not be measured, and why."""

    name: str
    error: str


@dataclass(frozen=True)
class Part:
    """A piece of a section that can fail alone.

    Parameters
    ----------
    name : str
        What it measures.
    measure : function
        Returns the figures.
    seconds : float
        The most that it may take; infinite where the section's own limit is enough. Most parts compile a few
        kernels and repeat milliseconds, which takes seconds: one that takes the default minute hangs.
    """

    name: str
    measure: Callable[[], Iterable[Figure | Failure]]
    seconds: float = 60.0


def table(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a Markdown table of the sections of a record: each figure, its spread and its aim.

    Parameters
    ----------
    sections : mapping of str to mapping
        By name, ``figures`` and ``failures``, lists of what `Figure.to_json` and `Failure` hold.
    """
    rows = [("section", "figure", "median (10 % to 90 %)", "aim", "reached"), ("---",) * 5]
    for name, section in sections.items():
        rows += [(name, *cells) for cells in _cells(section)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cells(section: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    for figure in map(Figure.from_json, section["figures"]):
        aim = figure.aim
        wanted = "" if aim is None else f"{_SIGNS[aim.relation]} {text(figure.unit, aim.value)}"
        reached = {True: "yes", False: "no", None: ""}[figure.reached]
        value = figure.value
        others = (value.low, value.high) if value.repeats > 1 else ()
        yield figure.name, text(figure.unit, value.median, *others), wanted, reached
    for failure in section["failures"]:
        reason = failure["error"].strip().splitlines()[-1:] or ["no reason given"]
        yield failure["name"], f"failed: {reason[0][:120]}".replace("|", "\\|"), "", "failed"


def text(unit: str, value: float, *others: float) -> str:
    """Write a value, a spread behind it in the same scale, and the unit."""
    scales = _SCALES.get(unit, ((1.0, unit),))
    scale, shown = next((pair for pair in scales if abs(value) >= pair[0]), scales[-1])
    spread = f" ({' to '.join(_three_digits(other / scale) for other in others)})" if others else ""
    return f"{_three_digits(value / scale)}{spread} {shown}".strip()


def _three_digits(number: float) -> str:
    if number == 0 or not 1e-3 <= abs(number) < 1e6:
        return f"{number:.3g}"
    decimals = 2 if abs(number) < 10 else 1 if abs(number) < 1000 else 0
    return f"{number:.{max(decimals, 4 if abs(number) < 0.1 else 0)}f}"
