"""Two results of the suite side by side: what differs by more than either varies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from nnkit.benchmarks.records import Quantity
from nnkit.benchmarks.suite import Result

__all__ = ["Change", "Comparison", "compare"]

Verdict = Literal["better", "worse", "higher", "lower", "within the spread", "measured once"]


@dataclass(frozen=True)
class Change:
    """A figure that both results have.

    Parameters
    ----------
    section, what, figure : str
        Where it stands: the section, the record's name and parameters with device and precision, the figure.
    before, now : Quantity
        The earlier result's and this one's.
    """

    section: str
    what: str
    figure: str
    before: Quantity
    now: Quantity

    @property
    def ratio(self) -> float:
        """The median now by the median before; NaN where that is zero."""
        return self.now.median / self.before.median if self.before.median else float("nan")

    @property
    def verdict(self) -> Verdict:
        """What became of it: a difference counts where the two spreads have nothing in common.

        Seconds and bytes are better when there are fewer of them, rates when they are higher; of a plain
        number only the direction is said.
        """
        if min(self.before.repeats, self.now.repeats) < 2:
            return "measured once"
        if self.now.low <= self.before.high and self.before.low <= self.now.high:
            return "within the spread"
        higher = self.now.median > self.before.median
        if self.now.unit in ("s", "B"):
            return "worse" if higher else "better"
        if self.now.unit.endswith("/s"):
            return "better" if higher else "worse"
        return "higher" if higher else "lower"

    @property
    def marked(self) -> bool:
        """Whether the difference is larger than the spreads."""
        return self.verdict not in ("within the spread", "measured once")


@dataclass(frozen=True)
class Comparison:
    """What two results have in common and what not.

    Parameters
    ----------
    changes : list of Change
        In the order of the result now.
    machine : dict of str to (str, str)
        What is not the same about the machine or its versions, before and now.
    only_before, only_now : list of str
        What only one of the two has figures of, in the sections measured now.
    sizes : (str, str)
        How much was measured.
    """

    changes: list[Change]
    machine: dict[str, tuple[str, str]]
    only_before: list[str]
    only_now: list[str]
    sizes: tuple[str, str]

    @property
    def marked(self) -> list[Change]:
        """The differences larger than the spreads, the largest first."""
        marked = [change for change in self.changes if change.marked]
        return sorted(
            marked, key=lambda change: max(change.ratio, 1 / max(change.ratio, 1e-12)), reverse=True
        )


def compare(before: Result, now: Result) -> Comparison:
    """Compare two results, figure by figure.

    Parameters
    ----------
    before, now : Result
        The earlier one and the later one.
    """
    # Sections that were not asked for now are not missing.
    asked = {record.section for record in now.records}
    earlier = {record.key: record for record in before.records if record.figures and record.section in asked}
    later = {record.key: record for record in now.records if record.figures}
    names = [*before.machine, *(name for name in now.machine if name not in before.machine)]
    machine = {
        name: (before.machine.get(name, "-"), now.machine.get(name, "-"))
        for name in names
        if name != "load before" and before.machine.get(name) != now.machine.get(name)
    }
    return Comparison(
        list(_changes(before, now)),
        machine,
        [f"{record.section}: {record.label}" for key, record in earlier.items() if key not in later],
        [f"{record.section}: {record.label}" for key, record in later.items() if key not in earlier],
        (before.size, now.size),
    )


def _changes(before: Result, now: Result) -> Iterator[Change]:
    earlier = {record.key: record.quantities for record in before.records}
    for record in now.records:
        there = earlier.get(record.key, {})
        what = f"{record.label}, {record.device}, {record.precision}"
        for name, quantity in record.quantities.items():
            if name in there and there[name].unit == quantity.unit:
                yield Change(record.section, what, name, there[name], quantity)
