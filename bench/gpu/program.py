"""Run the tests and the benchmarks of a CUDA device: see bench/gpu.sh.

`run` goes through the sections, each in a process of its own, writes bench/results/gpu-CARD.json after each
record (in the folder NNKIT_BENCH_OUT, where that is set), and prints tables last; its status is 1 if anything
failed. A figure that misses its aim is no failure. `merge` puts the results of several calls into one.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import tarfile
import tempfile
import time
import traceback
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path

from gpu.aims import RESULTS
from gpu.common import Part, Settings, failure, real_data, run_command, tiny_kernel
from nnkit.backends import select
from nnkit.bench.command import describe_bench_machine
from nnkit.bench.records import Record, Result, load_result, markdown, save_result
from nnkit.cache import cache_folder
from nnkit.errors import FileError

# In this order, with the time limit of each in seconds, and the function that returns its parts: a module
# that cannot be imported costs its section alone. Smoke begins on a cold machine.
SECTIONS: dict[str, tuple[float, str]] = {
    "smoke": (120.0, "smoke.parts"),
    "warm": (90.0, "smoke.warm_parts"),
    "tests": (180.0, "commands.test_parts"),
    "floors": (60.0, "floors.parts"),
    "kernels": (140.0, "floors.kernel_parts"),
    "floor": (90.0, "floors.step_parts"),
    "agreement": (60.0, "smoke.agreement_parts"),
    "small": (110.0, "training.small_parts"),
    "step": (300.0, "training.step_parts"),
    "mixed": (400.0, "training.mixed_parts"),
    "mnist": (90.0, "commands.mnist_parts"),
    "loading": (120.0, "training.loading_parts"),
}
# What fits into a card that is lent for half an hour, its start included: sections, and minutes for all.
CALLS: dict[str, tuple[tuple[str, ...], float]] = {
    "a": (("smoke", "warm", "tests", "floors", "kernels"), 8.0),
    "b": (("floor", "agreement", "small", "step"), 7.0),
    "c": (("mixed",), 5.0),
    "d": (("mnist", "loading"), 4.0),
}
LEAST = 10.0  # seconds: with less left a section is not begun
WHOLE, UNFINISHED = "the whole section", "it was not finished"
_PROGRAM = (sys.executable, str(Path(__file__).resolve().parent))


def parts_of(section: str, settings: Settings) -> list[Part]:
    """Return a section's parts; this may ask the device for its abilities."""
    module, _, function = SECTIONS[section][1].partition(".")
    return getattr(import_module(f"gpu.{module}"), function)(settings)


def measure(section: str, settings: Settings, first: int, path: Path) -> None:
    """Measure a section's parts from `first` on, and write the result at `path` after each record.

    After a part that fails the device is probed; where it is unusable the process ends.
    """
    earlier = load_result(path).sections[section]
    records = [record for record in earlier if "pending" not in record.details]
    probe(settings)
    parts = parts_of(section, settings)
    for number, part in enumerate(parts[first:], first):
        left_over = {"next": number + 1, "parts": len(parts)}
        unfinished = failure(part.name, UNFINISHED, section, settings.device, pending=left_over)
        change(path, section, [*records, unfinished])
        # Ends the process, whatever library it is in.
        signal.setitimer(signal.ITIMER_REAL, part.limit)
        try:
            for record in part.measure():
                records.append(replace(record, section=section, device=settings.device))
                change(path, section, [*records, unfinished])
        except Exception:
            records.append(failure(part.name, traceback.format_exc(), section, settings.device))
            change(path, section, [*records, unfinished])
            probe(settings)
    signal.setitimer(signal.ITIMER_REAL, 0)
    change(path, section, records)


def probe(settings: Settings) -> None:
    """Run a kernel; raise whatever an unusable device raises."""
    backend = settings.backend()
    backend.compile([tiny_kernel(backend)]).run()
    backend.synchronize()


def run_section(name: str, settings: Settings, path: Path) -> bool:
    """Run a section's parts in a process, in another one after a part that leaves the device unusable.

    Return whether the device is unusable for a new process too.
    """
    first, parts, records, told = 0, 1, list[Record](), json.dumps(asdict(settings))
    while first < parts:
        change(path, name, [*records, failure(WHOLE, UNFINISHED, name, settings.device, pending={})])
        left = settings.deadline(1.0) - time.monotonic()
        status, output = run_command([*_PROGRAM, "section", name, str(first), told, str(path)], left)
        records = load_result(path).sections.get(name, [])
        left_over = records[-1].details.get("pending") if records else None
        if left_over is None:
            break
        records = [*records[:-1], failure(records[-1].name, output, name, settings.device)]
        change(path, name, records)
        if not left_over:
            return first > 0 and status is not None
        first, parts = left_over["next"], left_over["parts"]
    return False


def machine(device: str) -> dict[str, str]:
    """Describe the card and the machine, in a process of its own: this one leaves the device alone."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "machine"
        status, output = run_command([*_PROGRAM, "machine", device, str(out)], 60.0)
        if status != 0:
            return {"card": "unknown", "error": output}
        return dict(json.loads(out.read_text(encoding="utf-8")))


def begin_result(described: dict[str, str], size: str, keep: bool = True) -> Path:
    """Write a card's result, with the sections that earlier runs recorded if they are to be kept."""
    folder, card = Path(os.environ.get("NNKIT_BENCH_OUT") or RESULTS), described["card"]
    folder.mkdir(parents=True, exist_ok=True)
    words = re.sub(r"[^a-z0-9]+", "-", card.lower()).strip("-").removeprefix("nvidia-")
    path = folder / f"gpu-{words}{'-quick' if size == 'tiny' else ''}.json"
    about = "A dry run with tiny sizes, whose figures mean nothing." if size == "tiny" else ""
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    result = Result(card, "bench/gpu.sh", described, size, when, about)
    with suppress(FileError):
        result.records = load_result(path).records if keep else []
    save_result(result, path)
    return path


def change(path: Path, name: str, records: Iterable[Record]) -> None:
    """Put a section's records into a result in place of its earlier ones, in the order of the sections."""
    result = load_result(path)
    others = [record for record in result.records if record.section != name]
    result.records = sorted([*others, *records], key=lambda record: list(SECTIONS).index(record.section))
    save_result(result, path)


def show(path: Path, names: Iterable[str]) -> None:
    """Print a Markdown table for each section."""
    print(f"written to {path}")
    for name, records in load_result(path).sections.items():
        if name in names:
            print(f"\n{name}\n\n{markdown(records)}")


def why_stop(name: str, records: list[Record], given: argparse.Namespace) -> str:
    """Return why a smoke test says that nothing more is to be measured, if so."""
    from gpu.smoke import CAPTURE, PRODUCTS

    done = {record.name for record in records} - {record.name for record in records if record.failed}
    broken = [part for part in (PRODUCTS, CAPTURE) if part not in done]
    if name != "smoke" or given.go_on or not broken or not given.device.startswith("cuda"):
        return ""
    return f"failed: {', '.join(broken)}; --go-on measures the rest all the same"


def run(given: argparse.Namespace) -> int:
    """Measure, write the result after each record, print the tables last; return 1 if anything failed."""
    deadline, size = time.monotonic() + 60 * given.minutes, "tiny" if given.quick else "full"
    if given.cache and given.cache.exists():
        with tarfile.open(given.cache) as packed:
            packed.extractall(cache_folder(), filter="data")
    described = machine(given.device)
    print("\n".join(f"{name}: {value}" for name, value in described.items()))
    for file, users in {"mnist": "mnist, mixed", "california_housing.csv": "mixed"}.items():
        if real_data(file) is None:
            print(f"missing data: {file}, for {users}, in a folder that NNKIT_BENCH_DATA names")
    path = begin_result(described, size)
    failed, stop, measured = "error" in described, "", list[str]()
    for name in (names := [name for name in SECTIONS if name in given.sections]):
        left = deadline - time.monotonic()
        # The last section may have all that is left: there is nothing to keep it for.
        limit = left if name == names[-1] else min(SECTIONS[name][0], left)
        settings = Settings(given.device, size, given.peers, limit)
        if left < LEAST:
            change(path, name, [failure(WHOLE, "no time was left", name, given.device)])
        elif run_section(name, settings, path):
            stop = "the device is unusable"
        measured.append(name)
        records = load_result(path).sections[name]
        for record in (failures := [record for record in records if record.failed]):
            print(f"--- {name}: {record.name}\n{record.details['error']}")
        print(f"{name}: {time.monotonic() - settings.began:.0f} s, {len(failures)} failed", flush=True)
        failed |= bool(failures)
        if given.cache and name == "warm":  # the tests' kernels would make ten times as much of it
            pack(given.cache)
        if stop := stop or why_stop(name, records, given):
            break
    show(path, measured)
    if stop:
        print(f"\nStopped after {name}, {stop}")
    return int(failed)


def pack(archive: Path) -> None:
    """Put the cache of compiled kernels into one file; Numba knows them by the times of their sources."""
    unfinished = archive.with_name(f"{archive.name}.unfinished")
    with tarfile.open(unfinished, "w:gz") as packed:
        packed.add(cache_folder(), ".")
    unfinished.replace(archive)


def merge(files: list[Path]) -> int:
    """Write one result of several and print its tables; where two hold a section, the later file's counts."""
    results = [load_result(path) for path in files]
    if len({(result.title, result.size) for result in results}) > 1:
        print(f"these are not results of one card: {', '.join(sorted({one.title for one in results}))}")
        return 1
    path = begin_result(results[-1].machine, results[-1].size, keep=False)
    for result in results:
        for name, records in result.sections.items():
            change(path, name, records)
    show(path, SECTIONS)
    return 0


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="bench/gpu", description=__doc__, formatter_class=plain)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="measure")
    calls = (f"{call}: {', '.join(names)} ({minutes:g} min)" for call, (names, minutes) in CALLS.items())
    running.add_argument("sections", nargs="*", metavar="CALL or SECTION", help="; ".join(calls))
    running.add_argument("--device", default="cuda", help="as nnkit takes it")
    running.add_argument("--quick", action="store_true", help="a dry run with tiny sizes")
    running.add_argument("--no-peers", dest="peers", action="store_false", help="nnkit alone")
    running.add_argument("--minutes", type=float, help="the time limit; by default that of the calls")
    running.add_argument("--cache", type=Path, help="a .tar.gz of kernels, written after warm")
    running.add_argument("--go-on", action="store_true", help="without cuBLASLt or captured steps too")
    merging = commands.add_parser("merge", help="put the results of several calls together")
    merging.add_argument("files", nargs="+", type=Path)
    parsed = parser.parse_args(given)
    if parsed.command == "run":
        if unknown := set(parsed.sections) - set(SECTIONS) - set(CALLS):
            known = ", ".join([*CALLS, *SECTIONS])
            parser.error(f"no section {', '.join(sorted(unknown))}; there are {known}")
        named = [call for call in CALLS if call in parsed.sections or not parsed.sections]
        parsed.sections = [*parsed.sections, *(name for call in named for name in CALLS[call][0])]
        parsed.minutes = parsed.minutes or sum(CALLS[call][1] for call in named) or 8.0
    return parsed


def main(given: Sequence[str]) -> int:
    """Run a command, or be one of this program's processes."""
    if given[:1] == ["machine"]:
        _, device, out = given
        card = select(device).backend.describe().get("name", device)
        Path(out).write_text(json.dumps({"card": card, **describe_bench_machine()}), encoding="utf-8")
        return 0
    if given[:1] == ["section"]:
        _, name, first, settings, path = given
        measure(name, Settings(**json.loads(settings)), int(first), Path(path))
        return 0
    parsed = arguments(given)
    return run(parsed) if parsed.command == "run" else merge(parsed.files)
