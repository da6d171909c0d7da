"""What `nnkit bench` does: measure, write bench.json, print tables, and compare with an earlier result."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from nnkit.backends import select
from nnkit.bench.kernels import kernels
from nnkit.bench.peers import peers
from nnkit.bench.predict import predictions
from nnkit.bench.records import Record, Result, cell, load_result, save_result
from nnkit.bench.steps import precisions, steps
from nnkit.bench.timing import Case, Plan, Size
from nnkit.errors import DeviceError, FileError, unknown_name
from nnkit.machine import describe_machine
from nnkit.run_folder import claim_folder, timed_name
from nnkit.working import hide_work, working

__all__ = ["SECTIONS", "bench", "changes", "describe_bench_machine", "devices_for", "run_suite"]

SECTIONS: Mapping[str, tuple[str, Callable[[Plan], Iterator[Case]]]] = {
    "kernels": ("Fused kernels beside NumPy", kernels),
    "step": ("A training step beside its matrix products alone", steps),
    "precision": ("The same step in each precision", precisions),
    "predict": ("Predicting", predictions),
    "peers": ("The same training in other libraries", peers),
}


def bench(
    sections: Sequence[str],
    quick: bool = False,
    device: str = "auto",
    out: Path | None = None,
    earlier: Path | None = None,
    as_json: bool = False,
    quiet: bool = False,
) -> bool:
    """Measure `sections` (keys of `SECTIONS`; all if there are none); return whether nothing failed.

    `out` is the folder for bench.json, None for a new one under runs/; `earlier` a result to compare with;
    `as_json` prints the result in place of tables, `quiet` nothing beside it. An `NnkitError` is raised for a
    wrong section, device or file, before anything is measured.
    """
    for name in sections:
        if name not in SECTIONS:
            raise unknown_name("section", name, SECTIONS)
    names, devices = [name for name in SECTIONS if name in sections or not sections], devices_for(device)
    before = None if earlier is None else load_result(earlier)
    folder = _folder(out)

    def measured(result: Result) -> None:
        save_result(result, folder / "bench.json")
        if not quiet:
            hide_work()
            print(f"{result.records[-1].section}: {_name(result.records[-1])}", file=sys.stderr)

    result = run_suite(names, devices, "quick" if quick else "full", measured)
    if as_json:
        print(json.dumps(result.to_json(), ensure_ascii=False))
    else:
        console = Console(soft_wrap=True)
        for section, records in result.sections.items():
            rows = [row for record in records for row in _rows(record)]
            _print(console, SECTIONS[section][0], ["what", "figure", "median (10 % to 90 %)"], rows)
        if before is not None:
            _print_comparison(console, before, result)
        if not quiet:
            print(f"written to {folder / 'bench.json'}")
    return not any(record.failed for record in result.records)


def devices_for(device: str) -> list[str]:
    """Return the devices to measure, for ``auto`` the CPU and a GPU that works; may raise DeviceError."""
    if device != "auto":
        return [select(device).backend.name]
    with suppress(DeviceError):
        return ["cpu", select("cuda").backend.name]
    return ["cpu"]


def run_suite(
    sections: Sequence[str],
    devices: Sequence[str],
    size: Size = "full",
    measured: Callable[[Result], object] = lambda result: None,
) -> Result:
    """Measure sections on devices; `measured` is called after each record."""
    command = " ".join(["nnkit bench", *sections, *(["--quick"] if size == "quick" else [])])
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    result = Result("nnkit bench", command, describe_bench_machine(), size, when)
    with working("measuring", len(sections) * len(devices), "sections") as work:
        for section, device in product(sections, devices):
            for blank, fill in SECTIONS[section][1](Plan(device, size)):
                for record in _filled(blank, fill):
                    result.records.append(record)
                    measured(result)
            work.advance()
    return result


def _filled(blank: Record, fill: Callable[[Record], Iterable[Record]]) -> Iterator[Record]:
    if blank.skipped:
        yield blank
        return
    try:
        yield from fill(blank)
    except Exception as error:
        traceback.print_exc()
        yield replace(blank, skipped=f"{type(error).__name__}: {str(error).strip()[:300]}", failed=True)


def describe_bench_machine() -> dict[str, str]:
    """Return what `nnkit info` says, the other libraries' versions, BLAS settings and the load."""
    rows = describe_machine()
    del rows["cache"]
    for package in ("torch", "jax", "jaxlib"):
        with suppress(PackageNotFoundError):
            rows[package] = version(package)
    if hasattr(os, "getloadavg"):
        rows["load before"] = f"{os.getloadavg()[0]:.2f}"
    return rows | {
        name: value for name, value in os.environ.items() if name.endswith(("_NUM_THREADS", "_CORETYPE"))
    }


def _folder(out: Path | None) -> Path:
    """Make the folder before anything is measured."""
    if out is None:
        return claim_folder(Path("runs") / timed_name("bench"))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{out}: no such folder can be made: {error.strerror or error}") from None
    return out


def _print(console: Console, title: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(*headers, title=title, title_justify="left", box=SIMPLE)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _name(record: Record) -> str:
    return f"{record.label}, {record.device}, {record.precision}"


def _rows(record: Record) -> Iterator[list[str]]:
    if record.skipped:
        yield [_name(record), "failed" if record.failed else "not measured", record.skipped]
    for number, (name, figure) in enumerate(record.figures.items()):
        yield ["" if number else _name(record), name, cell(figure)]


def _print_comparison(console: Console, before: Result, now: Result) -> None:
    for name, value in {"size": now.size, **now.machine}.items():
        old = before.size if name == "size" else before.machine.get(name, "unknown")
        if old != value and name != "load before":
            console.print(f"not the same as before: {name.strip()} {value}, was {old}")
    rows = list(changes(before, now))
    title = f"{len(rows)} figures differ by more than their spreads"
    _print(console, title, ["what", "figure", "before", "now", "ratio"], rows)


def changes(before: Result, now: Result) -> Iterator[list[str]]:
    """Yield name, before, now and ratio of the repeated figures whose spreads do not overlap."""
    earlier = {record.key: record.figures for record in before.records}
    for record in now.records:
        for name, new in record.figures.items():
            old = earlier.get(record.key, {}).get(name)
            if old is None or old.unit != new.unit or min(old.repeats, new.repeats) < 2:
                continue
            if new.low > old.high or old.low > new.high:
                ratio = f"× {new.median / old.median:.2f}" if old.median else ""
                yield [_name(record), name, str(old), str(new), ratio]
