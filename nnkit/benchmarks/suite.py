"""Run sections of the suite on devices, each in a process of its own, and keep what they measure as JSON."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nnkit.backends import select
from nnkit.benchmarks.child import Child, Ended
from nnkit.benchmarks.plan import Plan, Size
from nnkit.benchmarks.records import FORMAT, Record
from nnkit.errors import DeviceError, FileError, unknown_name
from nnkit.files import write_whole
from nnkit.run_folder import find_run
from nnkit.working import working

__all__ = [
    "SECTIONS",
    "Result",
    "chosen_sections",
    "devices_for",
    "load_result",
    "run_section",
    "run_suite",
    "save_result",
    "summary",
]

# Named and not imported: each section's process imports its own.
SECTIONS: Mapping[str, str] = {
    "kernels": "kernels",
    "step": "sweep",
    "epoch": "epochs",
    "precision": "precisions",
    "loading": "loading",
    "start": "starting",
    "memory": "memory",
    "growth": "growth",
    "predict": "predicting",
    "peers": "standing",
}
_PEERS = ("torch", "jax", "jaxlib", "matplotlib")
Tell = Callable[[str], object]


@dataclass
class Result:
    """What a run of the suite came to.

    Parameters
    ----------
    machine : dict of str to str
        Devices, BLAS, threads and versions, as `nnkit info` says them, with the peers' versions and the load
        that the machine had before anything was measured.
    size : str
        ``full``, ``quick`` or ``tiny``.
    measured : str
        When, in UTC.
    records : list of Record
        In the order in which they were measured.
    seconds : dict of str to float
        By section, what it took.
    """

    machine: dict[str, str]
    size: str
    measured: str
    records: list[Record] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def section(self, name: str) -> list[Record]:
        """Return the records of a section."""
        return [record for record in self.records if record.section == name]

    @property
    def failed(self) -> list[Record]:
        """What should have been measured and ended in an error."""
        return [record for record in self.records if record.details.get("failed")]

    def to_json(self) -> dict[str, Any]:
        """Return the fields, and what they are."""
        records = [record.to_json() for record in self.records]
        return {"format": FORMAT, **vars(self), "records": records}


def chosen_sections(names: Sequence[str]) -> list[str]:
    """Return the sections of these names in the suite's order, all where none is named.

    Raises
    ------
    ConfigError
        If there is no such section.
    """
    for name in names:
        if name not in SECTIONS:
            raise unknown_name("section", name, SECTIONS)
    return [name for name in SECTIONS if name in names or not names]


def devices_for(device: str) -> list[str]:
    """Return the devices to measure: for ``auto`` the CPU, and a GPU where one works.

    Raises
    ------
    DeviceError
        If a device that is named cannot be used.
    """
    if device != "auto":
        return [select(device).backend.name]
    with suppress(DeviceError):
        return ["cpu", select("cuda").backend.name]
    return ["cpu"]


def run_suite(
    sections: Sequence[str],
    devices: Sequence[str],
    size: Size = "full",
    tell: Tell = lambda line: None,
    save: Callable[[Result], object] = lambda result: None,
) -> Result:
    """Measure.

    Parameters
    ----------
    sections : sequence of str
        Of `SECTIONS`.
    devices : sequence of str
        As `devices_for` returns them.
    size : {"full", "quick", "tiny"}
        How much of it.
    tell : function
        Called with a line for each thing measured.
    save : function
        Called after each record, for what is measured must not be lost with what is not.
    """
    result = Result(_machine(), size, time.strftime("%Y-%m-%d %H:%M", time.gmtime()))
    with working("measuring", len(sections), "sections") as work:
        for section in sections:
            began = time.monotonic()
            for device in devices:
                with working(f"{section} on {device}", unit="done") as part:
                    for record in run_section(section, Plan(device, size)):
                        result.records.append(record)
                        result.seconds[section] = round(time.monotonic() - began, 1)
                        part.advance()
                        tell(f"{section}: {summary(record)}")
                        save(result)
            work.advance()
    return result


def summary(record: Record) -> str:
    """Say in a line what a record holds."""
    figures = [f"{name} {quantity}" for name, quantity in record.quantities.items()]
    ends = dict.fromkeys(figures[:1] + figures[-1:])
    shown = f"not measured: {record.skipped}" if record.skipped else ", ".join(ends)
    return f"{record.label}, {record.device}, {record.precision}: {shown}"


def run_section(section: str, plan: Plan, module: str = "") -> Iterator[Record]:
    """Yield a section's records; a case that ends its process, or does not end, costs that case alone.

    Parameters
    ----------
    section : str
        Of `SECTIONS`, or one of your own.
    plan : Plan
        How to measure.
    module : str
        Where its cases are, if it is your own.
    """
    first = 0
    while True:
        with Child(module or f"nnkit.benchmarks.{SECTIONS[section]}", plan, first) as child:
            try:
                yield from child.records()
                return
            except Ended as ended:
                if ended.blank is None:
                    yield Record(
                        section, section, plan.device, skipped=ended.reason, details={"failed": True}
                    )
                    return
                yield ended.blank
                first = ended.number + 1


def _machine() -> dict[str, str]:
    from nnkit.machine import describe_machine

    rows = describe_machine()
    for package in _PEERS:
        with suppress(PackageNotFoundError):
            rows[package] = version(package)
    if hasattr(os, "getloadavg"):
        rows["load before"] = f"{os.getloadavg()[0]:.2f}"
    threads = {
        name: value for name, value in os.environ.items() if name.endswith(("_NUM_THREADS", "_CORETYPE"))
    }
    return {**rows, **threads}


def save_result(result: Result, path: Path) -> None:
    """Write a result as JSON."""
    write_whole(path, (json.dumps(result.to_json(), indent=1, ensure_ascii=False) + "\n").encode())


def load_result(path: Path) -> Result:
    """Read what `save_result` wrote; a folder stands for the bench.json in it.

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
        records = [Record.from_json(record) for record in value["records"]]
        machine = {str(key): str(row) for key, row in value["machine"].items()}
        seconds = {str(key): float(row) for key, row in value["seconds"].items()}
        return Result(machine, str(value["size"]), str(value["measured"]), records, seconds)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FileError(f"{path}: is damaged: {type(error).__name__} at {error}") from None
