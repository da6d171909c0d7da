"""The one record type of every benchmark: what was measured, its figures with their spread, and their bounds.

Order: a figure, a record, a result (a file of records), their JSON, their tables as text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nnkit.errors import FileError
from nnkit.files import write_whole
from nnkit.run_folder import find_run

__all__ = [
    "FORMAT",
    "Aim",
    "Quantity",
    "Record",
    "Result",
    "cell",
    "load_result",
    "markdown",
    "measured",
    "once",
    "save_result",
    "text",
]

FORMAT = "nnkit bench 2"
"""What a file of records says it is, under the key ``format``."""

_SCALES: Mapping[str, tuple[tuple[float, str], ...]] = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")),
    "B/s": ((1e12, "TB/s"), (1e9, "GB/s"), (1e6, "MB/s")),
    "B": ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1.0, "B")),
    "FLOP/s": ((1e12, "TFLOP/s"), (1e9, "GFLOP/s"), (1e6, "MFLOP/s")),
    "samples/s": ((1e6, "M samples/s"), (1e3, "k samples/s"), (1.0, "samples/s")),
    "%": ((1e-2, "%"),),
}


@dataclass(frozen=True)
class Aim:
    """The bound that a figure's median should keep."""

    relation: Literal["<=", ">="]
    value: float

    def reached_by(self, value: float) -> bool:
        """Tell whether a value keeps the bound; a NaN does not."""
        return value <= self.value if self.relation == "<=" else value >= self.value

    def describe(self, unit: str) -> str:
        """Return the bound as text, such as ``≤ 1.50 ms``."""
        return f"{'≤' if self.relation == '<=' else '≥'} {text(unit, self.value)}"


@dataclass(frozen=True)
class Quantity:
    """A measured number, its unit and its spread.

    Parameters
    ----------
    unit : str
        Without a prefix: ``s``, ``B``, ``B/s``, ``FLOP/s``, ``samples/s``, ``%`` (1.0 is 100 %), or empty
        for a ratio or a count.
    median, low, high : float
        The 50th, 10th and 90th percentile.
    repeats : int
        The number of measurements.
    aim : Aim or None
        The bound that the median should keep.
    """

    unit: str
    median: float
    low: float
    high: float
    repeats: int
    aim: Aim | None = None

    def __str__(self) -> str:
        others = (self.low, self.high) if self.repeats > 1 else ()
        return text(self.unit, self.median, *others)

    @property
    def reached(self) -> bool | None:
        """Whether the median keeps the bound; None without one."""
        return None if self.aim is None else self.aim.reached_by(self.median)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Quantity:
        """Invert `dataclasses.asdict`; raise KeyError, TypeError or ValueError for anything else."""
        aim = value.get("aim")
        quantity = cls(**{**value, "aim": None if aim is None else Aim(**aim)})
        numbers = (quantity.median, quantity.low, quantity.high, quantity.repeats)
        if not isinstance(quantity.unit, str) or any(
            isinstance(number, bool) or not isinstance(number, int | float) for number in numbers
        ):
            raise TypeError("a figure holds a unit and numbers")
        return quantity


def measured(unit: str, values: NDArray[np.float64], aim: Aim | None = None) -> Quantity:
    """Return the median and the 10th and 90th percentile of repeated measurements."""
    low, median, high = np.percentile(values, [10, 50, 90])
    return Quantity(unit, float(median), float(low), float(high), len(values), aim)


def once(unit: str, value: float, aim: Aim | None = None) -> Quantity:
    """Return a figure that was measured once, or does not vary."""
    return Quantity(unit, float(value), float(value), float(value), 1, aim)


@dataclass(frozen=True)
class Record:
    """One thing measured, or why it was not.

    Parameters
    ----------
    section : str
        The part of the benchmark, such as ``step``: a separate table in a report.
    name : str
        What was measured.
    device : str
        ``cpu``, ``cuda:0``.
    precision : str
        ``fp32``, ``fp64``, ``tf32``, ``fp16`` or ``bf16``.
    parameters : dict of str to int, float or str
        What tells it from the section's other records of that name, such as ``width`` and ``batch``.
    figures : dict of str to Quantity
        By name; a ratio is of two things measured in turns.
    skipped : str
        Why there are no figures; empty where there are.
    failed : bool
        Whether it was skipped because of an error.
    details : dict
        JSON values that say how it was measured.
    """

    section: str
    name: str
    device: str = "cpu"
    precision: str = "fp32"
    parameters: dict[str, int | float | str] = field(default_factory=dict)
    figures: dict[str, Quantity] = field(default_factory=dict)
    skipped: str = ""
    failed: bool = False
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[Any, ...]:
        """What identifies the same measurement in two results."""
        return self.section, self.name, self.device, self.precision, tuple(sorted(self.parameters.items()))

    @property
    def label(self) -> str:
        """The name and the parameters, in words."""
        return ", ".join([self.name, *(f"{name} {value}" for name, value in self.parameters.items())])

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Record:
        """Invert `dataclasses.asdict`; raise KeyError, TypeError or ValueError for anything else."""
        figures = {str(name): Quantity.from_json(figure) for name, figure in value["figures"].items()}
        texts = {name: str(value[name]) for name in ("section", "name", "device", "precision", "skipped")}
        parameters, details = dict(value["parameters"]), dict(value["details"])
        return cls(
            **texts, parameters=parameters, figures=figures, failed=bool(value["failed"]), details=details
        )


@dataclass
class Result:
    """A file of records and how they were measured.

    Parameters
    ----------
    title : str
        A heading for the report.
    command : str
        The command that measures it again.
    machine : dict of str to str
        Devices, BLAS, threads and versions, as `nnkit.machine.describe_machine` says them.
    size : str
        ``full``, ``quick`` or ``tiny``.
    measured : str
        When, in UTC.
    about : str
        A paragraph of Markdown for the report: how to read the figures.
    records : list of Record
        In the order in which they were measured.
    """

    title: str
    command: str
    machine: dict[str, str]
    size: str
    measured: str
    about: str = ""
    records: list[Record] = field(default_factory=list)

    @property
    def sections(self) -> dict[str, list[Record]]:
        """The records by section, in the order of the sections' first records."""
        return {
            name: [record for record in self.records if record.section == name]
            for name in dict.fromkeys(record.section for record in self.records)
        }

    def to_json(self) -> dict[str, Any]:
        """Return the fields, and the format's name."""
        return {"format": FORMAT, **asdict(self)}


def save_result(result: Result, path: Path) -> None:
    """Write a result as JSON."""
    write_whole(path, (json.dumps(result.to_json(), indent=1, ensure_ascii=False) + "\n").encode())


def load_result(path: Path) -> Result:
    """Read what `save_result` wrote; for a folder, the bench.json in it.

    Raises
    ------
    FileError
        If it cannot be read, or holds something else.
    """
    path = find_run(path, "bench.json")
    path = path / "bench.json" if path.is_dir() else path
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise FileError(f"{path}: is not JSON; `earlier` is the bench.json of an earlier run") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise FileError(f"{path}: is not a result of nnkit bench (its format is not {FORMAT!r})")
    try:
        texts = {name: str(value[name]) for name in ("title", "command", "size", "measured", "about")}
        machine = {str(key): str(row) for key, row in value["machine"].items()}
        return Result(**texts, machine=machine, records=[Record.from_json(one) for one in value["records"]])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FileError(f"{path}: is damaged: {type(error).__name__} at {error}") from None


def markdown(records: Sequence[Record]) -> str:
    """Return a Markdown table with a row for each record and a column for each parameter and figure."""
    parameters = _all(record.parameters for record in records)
    several = [name for name in ("device", "precision") if len({getattr(one, name) for one in records}) > 1]
    figures = _all(record.figures for record in records) or [""]
    rows = [["what", *parameters, *several, *figures]]
    rows.append(["---"] * len(rows[0]))
    for record in records:
        row = [record.name, *(_shown(record.parameters.get(name, "")) for name in parameters)]
        row += [getattr(record, name) for name in several]
        if record.skipped:
            row.append(f"{'failed' if record.failed else 'not measured'}: {record.skipped}")
        else:
            row += [cell(record.figures[name]) if name in record.figures else "" for name in figures]
        rows.append(row + [""] * (len(rows[0]) - len(row)))
    return "\n".join(f"| {' | '.join(cell.replace('|', '∣') for cell in row)} |" for row in rows)


def cell(figure: Quantity) -> str:
    """Return a figure as text, with its aim and whether it is kept."""
    if figure.aim is None:
        return str(figure)
    return f"{figure}; aim {figure.aim.describe(figure.unit)}: {'yes' if figure.reached else '**no**'}"


def _all(mappings: Iterable[Iterable[str]]) -> list[str]:
    """Return every key once, in the order of its first occurrence."""
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def text(unit: str, value: float, *others: float) -> str:
    """Write a value, a spread behind it in the same scale, and the unit; a whole count without decimals."""
    if not unit and not others and float(value).is_integer():
        return f"{value:,.0f}"
    scales = _SCALES.get(unit, ((1.0, unit),))
    scale, shown = next((pair for pair in scales if abs(value) >= pair[0]), scales[-1])
    spread = f" ({' to '.join(_three_digits(other / scale) for other in others)})" if others else ""
    return f"{_three_digits(value / scale)}{spread} {shown}".strip()


def _three_digits(number: float) -> str:
    if number == 0 or not 1e-3 <= abs(number) < 1e6:
        return f"{number:.3g}"
    decimals = 2 if abs(number) < 10 else 1 if abs(number) < 1000 else 0
    return f"{number:.{max(decimals, 4 if abs(number) < 0.1 else 0)}f}"
