"""What a section of `nnkit bench` is told: the device, the size, and what a case may take."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from nnkit.backends import select
from nnkit.backends.protocol import Backend
from nnkit.benchmarks.clocks import clock_for
from nnkit.benchmarks.records import Record
from nnkit.benchmarks.timing import REST, in_turns

__all__ = ["LEAST_REPEATS", "Case", "Plan", "Size", "run_case"]

LEAST_REPEATS = 5
Size = Literal["full", "quick", "tiny"]
_T = TypeVar("_T")


@dataclass(frozen=True)
class Plan:
    """How to measure.

    Parameters
    ----------
    device : str
        As `nnkit.backends.select` takes it.
    size : {"full", "quick", "tiny"}
        ``quick`` is for a look, within a minute; ``tiny`` shows that everything runs, and its figures mean
        nothing.
    """

    device: str = "cpu"
    size: Size = "full"

    def pick(self, full: _T, quick: _T, tiny: _T) -> _T:
        """Return what belongs to this plan's size."""
        return {"full": full, "quick": quick, "tiny": tiny}[self.size]

    @property
    def repeats(self) -> int:
        """How many measurements of each thing."""
        return self.pick(11, LEAST_REPEATS, LEAST_REPEATS)

    @property
    def seconds(self) -> float:
        """What a case may take; one that is expected to take longer is left out."""
        return self.pick(60.0, 1.5, 1.0)

    @property
    def turn(self) -> float:
        """The seconds that one measurement should last, so that the clock's own cost does not count."""
        return self.pick(0.1, 0.01, 0.0)

    def backend(self, precision: str = "fp32") -> Backend:
        """Return the device, its float32 products in this precision."""
        return select(self.device).backend.with_precision(precision)

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a CUDA GPU."""
        return self.device.startswith("cuda")

    def count_for(self, seconds: float, most: int = 10_000) -> int:
        """Return how many calls of so many seconds make up one measurement."""
        return int(min(max(self.turn / max(seconds, 1e-7), 1), most))

    def time(
        self,
        functions: Sequence[Callable[[], object]],
        repeats: int | None = None,
        warmup: int = 3,
        backend: Backend | None = None,
    ) -> list[NDArray[np.float64]]:
        """Time functions in turns by the device's best clock, or a given backend's.

        Three turns go before: on a GPU a program's first run is uncaptured and its second one captures.
        """
        clock = clock_for(self.backend() if backend is None else backend)
        # A tiny measurement means nothing, and need not wait.
        rest = 0.0 if self.on_gpu or self.size == "tiny" else REST
        return in_turns(functions, self.repeats if repeats is None else repeats, warmup, clock, rest)

    def to_json(self) -> str:
        """Return the plan as a line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Plan:
        """Return what `to_json` wrote."""
        return cls(**json.loads(line))


@dataclass(frozen=True)
class Case:
    """A piece of a section that can be left out, fail or be ended alone.

    Parameters
    ----------
    blank : Record
        What it measures, without figures.
    measure : function of Record to iterable of Record
        Fills the blank.
    seconds, memory : float
        What it is expected to take: seconds, and bytes on the device.
    limit : float or None
        After how many seconds it is ended; None for a few times a case's share.
    skipped : str
        Why it cannot be measured, where that is known.
    """

    blank: Record
    measure: Callable[[Record], Iterable[Record]] = lambda blank: []
    seconds: float = 0.0
    memory: float = 0.0
    limit: float | None = None
    skipped: str = ""

    def most(self, plan: Plan) -> float:
        """Return the seconds after which the case is ended, whatever it does."""
        return 3 * plan.seconds + 60 if self.limit is None else self.limit


def run_case(case: Case, plan: Plan) -> Iterable[Record]:
    """Measure a case, or say why not: it is too large for the time or the memory."""
    reason = case.skipped or _too_large(case, plan)
    return [replace(case.blank, skipped=reason)] if reason else case.measure(case.blank)


def _too_large(case: Case, plan: Plan) -> str:
    if case.seconds > plan.seconds:
        return f"would take about {case.seconds:.0f} s, more than the {plan.seconds:g} s of a case"
    room = _memory(plan.device) / 2
    if case.memory > room:
        return f"would take about {case.memory / 2**30:.1f} GiB, more than the half of what is free"
    return ""


@cache
def _memory(device: str) -> float:
    """Return the free bytes of the device; infinite where that cannot be told."""
    if device.startswith("cuda"):
        import cupy

        with cupy.cuda.Device(int(device.partition(":")[2] or 0)):
            return float(cupy.cuda.runtime.memGetInfo()[0])
    return min(_available(), _limit_of_group())


def _available() -> float:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return float("inf")
    found: list[Any] = [line.split()[1] for line in lines if line.startswith("MemAvailable")]
    return float(found[0]) * 1024 if found else float("inf")


def _limit_of_group() -> float:
    """Return what a container may take."""
    try:
        text = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return float("inf")
    return float(text) if text.isdecimal() else float("inf")
