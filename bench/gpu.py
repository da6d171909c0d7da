"""Run the tests and the benchmarks of a CUDA device, and record them as JSON: see bench/gpu.sh.

`run` goes through the sections, each in a process of its own, writes bench/results/gpu-CARD.json after each
figure (in the folder NNKIT_BENCH_OUT, where that is set), and prints a table last; it ends with status 1 if
anything failed. A figure that misses its aim is no failure. `merge FILE ...` puts several calls' records
together into one, and prints its table.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from nnkit.benchmarks.figures import table
from nnkit.benchmarks.gpu.__main__ import SECTIONS
from nnkit.benchmarks.gpu.card_tests import run_tests
from nnkit.benchmarks.gpu.commands import describe_status, run_command
from nnkit.benchmarks.gpu.settings import data_folder
from nnkit.benchmarks.gpu.smoke import CAPTURE, PRODUCTS
from nnkit.cache import cache_folder
from nnkit.files import write_whole

ROOT = Path(__file__).resolve().parent.parent
SMOKE, WARM, TESTS = "smoke", "warm", "tests"
# In this order, with the most seconds that each may take; the longest compilations come last. Smoke begins on
# a cold machine: 14 processes import everything before they compile the first kernels.
LIMITS = {
    SMOKE: 120.0,
    WARM: 90.0,
    TESTS: 180.0,
    "floors": 60.0,
    "kernels": 140.0,
    "floor": 90.0,
    "agreement": 60.0,
    "small": 110.0,
    "step": 300.0,
    "mixed": 400.0,
    "mnist": 90.0,
    "loading": 120.0,
}
# What fits into a card that is lent for half an hour, its start included: sections, and minutes for all.
CALLS: dict[str, tuple[tuple[str, ...], float]] = {
    "a": ((SMOKE, WARM, TESTS, "floors", "kernels"), 8.0),
    "b": (("floor", "agreement", "small", "step"), 7.0),
    "c": (("mixed",), 5.0),
    "d": (("mnist", "loading"), 4.0),
}
LEAST = 10.0  # seconds: with less left a section is not begun

Section = dict[str, Any]
Keep = Callable[[str, Section], None]


def run_section(name: str, options: list[str], seconds: float, keep: Keep = lambda *_: None) -> Section:
    """Run a section's parts in a process, in another one after a part that leaves the device unusable.

    `keep` is given what there is of it whenever there is more. Where the device is unusable for a new process
    too, the section has the key "lost".
    """
    began = time.monotonic()
    section: Section = {"figures": [], "failures": [], "ended": []}
    first = 0
    while True:
        left = seconds - (time.monotonic() - began)
        if left < 1:
            failed(section, name, f"not finished after {seconds:.0f} s")
            break
        so_far = partial(keep_unfinished, keep, name, section, began)
        lines, ending = run_parts(name, options, first, left, so_far)
        section = joined(section, lines)
        parts: list[str] = next((line["parts"] for line in lines if "parts" in line), [])
        begun = [line["begin"] for line in lines if "begin" in line]
        ended = [line["end"] for line in lines if "end" in line]
        if ending and (not begun or begun[-1] not in ended):
            failed(section, parts[begun[-1]] if begun else name, ending)
        first = begun[-1] + 1 if begun else len(parts)
        if first >= len(parts):
            break
        if unusable := run_parts("probe", options, 0, 60.0)[1]:
            failed(section, "the device is unusable for a new process too", unusable)
            section["lost"] = True
            break
    return {"seconds": time.monotonic() - began, **section}


def joined(section: Section, lines: list[dict]) -> Section:
    """Return a section with the figures, the failures and the ended parts of these lines too."""
    parts: list[str] = next((line["parts"] for line in lines if "parts" in line), [])
    return {
        "figures": section["figures"] + [line["figure"] for line in lines if "figure" in line],
        "failures": section["failures"] + [line["failure"] for line in lines if "failure" in line],
        "ended": section["ended"] + [parts[line["end"]] for line in lines if "end" in line],
    }


def keep_unfinished(keep: Keep, name: str, section: Section, began: float, lines: list[dict]) -> None:
    """Keep what there is of a section, and that it is not all."""
    unfinished = joined(section, lines)
    failed(unfinished, name, "not finished: the program ended before the section did")
    keep(name, {"seconds": time.monotonic() - began, **unfinished})


def run_parts(
    name: str,
    options: list[str],
    first: int,
    seconds: float,
    keep: Callable[[list[dict]], None] = lambda lines: None,
) -> tuple[list[dict], str]:
    """Run parts until one takes too long or leaves the device unusable.

    Return the lines they wrote, and how the process ended if not well.
    """
    kept, begins = 0, dict[int, float]()

    def look() -> bool:
        """Keep new lines; return whether the part that runs has had its time."""
        nonlocal kept
        lines = lines_of(out)
        if len(lines) > kept:
            kept = len(lines)
            keep(lines)
        running = [line["begin"] for line in lines if "begin" in line][-1:]
        return any(
            time.monotonic() - begins.setdefault(number, time.monotonic()) > lines[0]["seconds"][number]
            for number in running
        )

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "lines"
        out.touch()
        module = [sys.executable, "-m", "nnkit.benchmarks.gpu", name, "--out", str(out)]
        command = [*module, "--first", str(first), "--seconds", f"{seconds:.0f}", *options]
        began = time.monotonic()
        status, output = run_command(command, seconds, look)
        lines = lines_of(out)
    ending = describe_status(status, time.monotonic() - began)
    return lines, "" if status == 0 else f"{output[-1500:]}\n{ending}"


def lines_of(path: Path) -> list[dict]:
    """Read the lines that were written whole: a process may have been ended in the middle of the last."""
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


def failed(section: Section, name: str, error: str) -> None:
    """Note a failure."""
    section["failures"].append({"name": name, "error": error})


def machine(options: list[str]) -> dict[str, str]:
    """Describe the machine, in a process of its own: this one leaves the device alone."""
    lines, ending = run_parts("machine", options, 0, 60.0)
    return lines[0]["machine"] if lines else {"card": "unknown", "error": ending}


def record_path(card: str, quick: bool) -> Path:
    """Where the record of a card lies."""
    folder = Path(os.environ.get("NNKIT_BENCH_OUT") or ROOT / "bench" / "results")
    folder.mkdir(parents=True, exist_ok=True)
    words = re.sub(r"[^a-z0-9]+", "-", card.lower()).strip("-").removeprefix("nvidia-")
    return folder / f"gpu-{words}{'-quick' if quick else ''}.json"


def sections_of(path: Path) -> dict[str, Section]:
    """Read what an earlier run has recorded; a run of some sections keeps the others."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["sections"]
    except (OSError, ValueError, KeyError):
        return {}


def write_record(described: dict[str, str], quick: bool, sections: dict[str, Section]) -> Path:
    """Write a record, its sections in their order."""
    path = record_path(described["card"], quick)
    ordered = {name: sections[name] for name in LIMITS if name in sections}
    record = {"machine": described, "quick": quick, "sections": ordered}
    write_whole(path, (json.dumps(record, indent=2) + "\n").encode())
    return path


def measure(
    given: argparse.Namespace, keep: Keep = lambda *_: None, spent: float = 0.0
) -> Iterator[tuple[str, Section]]:
    """Run the sections asked for, in order, each within the time that is left; `spent` seconds are gone."""
    began = time.monotonic() - spent
    options = ["--device", given.device, *(["--quick"] if given.quick else [])]
    options += [] if given.peers else ["--no-peers"]
    names = [name for name in LIMITS if name in given.sections]
    for number, name in enumerate(names):
        left = given.minutes * 60 - (time.monotonic() - began)
        # The last section may have all that is left: there is nothing to keep it for.
        seconds = left if number == len(names) - 1 else min(LIMITS[name], left)
        if seconds < LEAST:
            error = f"no time was left of {given.minutes:g} minutes"
            yield name, {"seconds": 0.0, "figures": [], "failures": [{"name": name, "error": error}]}
        elif name == TESTS:
            yield name, run_tests(seconds, given.device.startswith("cuda"))
        else:
            yield name, run_section(name, options, seconds, keep)


def why_stop(name: str, section: Section, go_on: bool) -> str:
    """Return why nothing more is to be measured after a section, if so."""
    if section.get("lost"):
        return "the device is unusable"
    if name != SMOKE or go_on:
        return ""
    # A smoke test that fails as a whole is too slow, or could not begin: then these two may have no result.
    essential = {PRODUCTS, CAPTURE}
    if not essential <= set(section["ended"]):
        essential |= {SMOKE}
    broken = [failure["name"] for failure in section["failures"] if failure["name"] in essential]
    return f"failed: {', '.join(broken)}; --go-on measures the rest all the same" if broken else ""


def run(given: argparse.Namespace) -> int:
    """Measure, write the record after each figure, print the table last; return 1 if anything failed."""
    began = time.monotonic()
    if given.cache and given.cache.exists():
        unpack(given.cache)
    described = machine(["--device", given.device])
    print("\n".join(f"{name}: {value}" for name, value in described.items()))
    if not given.quick and (missing := missing_data(given.sections)):
        print(missing)
    path = record_path(described["card"], given.quick)
    sections = sections_of(path)
    measured: dict[str, Section] = {}
    stop = ""

    def keep(name: str, section: Section) -> None:
        section["measured"] = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
        measured[name] = sections[name] = section
        write_record(described, given.quick, sections)

    for name, section in measure(given, keep, time.monotonic() - began):
        keep(name, section)
        for failure in section["failures"]:
            print(f"--- {name}: {failure['name']}\n{failure['error']}")
        print(f"{name}: {section['seconds']:.0f} s, {len(section['failures'])} failed", flush=True)
        if given.cache and name == WARM:  # the tests' kernels would make ten times as much of it
            pack(given.cache)
        if stop := why_stop(name, section, given.go_on):
            break
    print(f"written to {path}\n\n{table(measured)}")
    if stop:
        print(f"\nStopped after {name}, {stop}")
    bad = stop or "error" in described or any(section["failures"] for section in measured.values())
    return 1 if bad else 0


def missing_data(names: list[str]) -> str:
    """Say which sections lack their data."""
    folder = data_folder()
    wanted = {"mnist": ("agreement", "mnist", "mixed"), "california_housing.csv": ("mixed",)}
    lacking = [
        f"{file} (for {', '.join(set(users) & set(names))})"
        for file, users in wanted.items()
        if set(users) & set(names) and not (folder and (folder / file).exists())
    ]
    if not lacking:
        return ""
    return (
        f"missing data: {' and '.join(lacking)}. Bring them along in a folder that NNKIT_BENCH_DATA names. "
        "Without them mnist fails, and the others take data that are generated or part of scikit-learn"
    )


def pack(archive: Path) -> None:
    """Put the cache of compiled kernels into one file; Numba knows them by the times of their sources."""
    unfinished = archive.with_name(f"{archive.name}.unfinished")
    with tarfile.open(unfinished, "w:gz") as packed:
        packed.add(cache_folder(), ".")
    unfinished.replace(archive)


def unpack(archive: Path) -> None:
    """Put an archive's kernels where the sections look for them."""
    with tarfile.open(archive) as packed:
        packed.extractall(cache_folder(), filter="data")


def merge(files: list[Path]) -> int:
    """Write one record of several, and print its table; where two hold a section, the later file's counts."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    cards = {(record["machine"]["card"], record["quick"]) for record in records}
    if len(cards) > 1:
        print(f"these are not records of one card: {', '.join(sorted(str(card) for card, _ in cards))}")
        return 1
    sections = {name: section for record in records for name, section in record["sections"].items()}
    path = write_record(records[-1]["machine"], records[-1]["quick"], sections)
    print(f"written to {path}\n\n{table({name: sections[name] for name in LIMITS if name in sections})}")
    return 0


def arguments(given: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="measure")
    calls = "; ".join(
        f"{call}: {', '.join(names)} ({minutes:g} min)" for call, (names, minutes) in CALLS.items()
    )
    running.add_argument("sections", nargs="*", metavar="CALL or SECTION", help=calls)
    running.add_argument("--device", default="cuda", help="as nnkit takes it")
    running.add_argument("--quick", action="store_true", help="a dry run with tiny sizes")
    running.add_argument("--no-peers", dest="peers", action="store_false", help="nnkit alone")
    running.add_argument(
        "--minutes", type=float, help="what all of it may take; by default as long as the calls"
    )
    running.add_argument(
        "--cache",
        type=Path,
        metavar="FILE",
        help="a .tar.gz of compiled kernels: unpacked first, written after warm",
    )
    running.add_argument("--go-on", action="store_true", help="without cuBLASLt or captured steps too")
    merging = commands.add_parser("merge", help="put several calls' records together")
    merging.add_argument("files", nargs="+", type=Path)
    parsed = parser.parse_args(given)
    if parsed.command == "run":
        unknown = set(parsed.sections) - set(LIMITS) - set(CALLS)
        if unknown:
            known = ", ".join([*CALLS, *LIMITS])
            parser.error(f"no section {', '.join(sorted(unknown))}; there are {known}")
        named = [call for call in CALLS if call in parsed.sections or not parsed.sections]
        parsed.sections = [*parsed.sections, *(name for call in named for name in CALLS[call][0])]
        parsed.minutes = parsed.minutes or sum(CALLS[call][1] for call in named) or 8.0
    return parsed


def main(given: list[str] | None = None) -> int:
    """Do as the command line says."""
    parsed = arguments(given)
    return run(parsed) if parsed.command == "run" else merge(parsed.files)


assert set(SECTIONS) | {TESTS} == set(LIMITS) == {name for names, _ in CALLS.values() for name in names}

if __name__ == "__main__":
    sys.exit(main())
