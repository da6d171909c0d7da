"""Run the tests and the benchmarks of a CUDA device, and record them as JSON: see bench/gpu.sh.

`run` goes through the sections, each in a process of its own, writes bench/results/gpu-CARD.json after each
figure (in the folder NNKIT_BENCH_OUT, where that is set), and prints a table last; it ends with status 1 if
anything failed. A figure that misses its aim is no failure. `table FILE ...` prints the table of recorded
files.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from nnkit.benchmarks.figures import Figure, table
from nnkit.benchmarks.gpu.__main__ import SECTIONS
from nnkit.benchmarks.timing import Spread
from nnkit.files import write_whole

ROOT = Path(__file__).resolve().parent.parent
TESTS = "tests"
# In this order, with the most seconds that each may take; the longest compilations come last.
LIMITS = {
    TESTS: 240.0,
    "floors": 60.0,
    "kernels": 140.0,
    "floor": 90.0,
    "agreement": 60.0,
    "mnist": 90.0,
    "small": 150.0,
    "mixed": 400.0,
    "loading": 120.0,
    "step": 300.0,
}
LEAST = 10.0  # seconds: with less left a section is not begun

WATCH = 1.0  # seconds between looks at what a section has written

Section = dict[str, Any]
Keep = Callable[[str, Section], None]


def run_section(name: str, options: list[str], seconds: float, keep: Keep = lambda *_: None) -> Section:
    """Run a section's parts in a process, in another one after each part that fails.

    `keep` is given what there is of it whenever there is more.
    """
    began = time.monotonic()
    section: Section = {"figures": [], "failures": []}
    first = 0
    while True:
        left = seconds - (time.monotonic() - began)
        if left < 1:
            failed(section, name, f"not finished after {seconds:.0f} s")
            break
        so_far = partial(keep_unfinished, keep, name, section, began)
        lines, ending = run_parts(name, options, first, left, so_far)
        section = joined(section, lines)
        parts = next((line["parts"] for line in lines if "parts" in line), [])
        begun = [line["begin"] for line in lines if "begin" in line]
        ended = [line["end"] for line in lines if "end" in line]
        if ending and (not begun or begun[-1] not in ended):
            failed(section, parts[begun[-1]] if begun else name, ending)
        first = begun[-1] + 1 if begun else len(parts)
        if first >= len(parts):
            break
    return {"seconds": time.monotonic() - began, **section}


def joined(section: Section, lines: list[dict]) -> Section:
    """Return a section with the figures and failures of these lines too."""
    return {
        "figures": section["figures"] + [line["figure"] for line in lines if "figure" in line],
        "failures": section["failures"] + [line["failure"] for line in lines if "failure" in line],
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
    """Run parts until one fails; return the lines they wrote, and how the process ended if not well."""
    kept = 0

    def look() -> None:
        nonlocal kept
        lines = lines_of(out)
        if len(lines) > kept:
            kept = len(lines)
            keep(lines)

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "lines"
        out.touch()
        module = [sys.executable, "-m", "nnkit.benchmarks.gpu", name, "--out", str(out)]
        command = [*module, "--first", str(first), "--seconds", f"{seconds:.0f}", *options]
        status, output = run_command(command, seconds, look)
        lines = lines_of(out)
    return lines, "" if status == 0 else f"{output[-1500:]}\n{describe_status(status, seconds)}"


def lines_of(path: Path) -> list[dict]:
    """Read the lines that were written whole: a process may have been ended in the middle of the last."""
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


def run_command(
    command: list[str], seconds: float, look: Callable[[], None] = lambda: None
) -> tuple[int | None, str]:
    """Run a command and look now and then; return its status, None if it took too long, and its output."""
    # Everything it starts is of its process group, which is ended as one.
    with tempfile.TemporaryFile("w+", errors="replace") as printed:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=printed, stderr=subprocess.STDOUT, start_new_session=True
        )
        status: int | None = None
        deadline = time.monotonic() + seconds
        try:
            while status is None and (left := deadline - time.monotonic()) > 0:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    status = process.wait(min(left, WATCH))
                look()
        finally:
            end_group(process)
        printed.seek(0)
        return status, printed.read()


def end_group(process: subprocess.Popen) -> None:
    """End a process and all it has started, compilers and contenders among them."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def describe_status(status: int | None, seconds: float) -> str:
    """Say how a process ended."""
    return f"ended after {seconds:.0f} s" if status is None else f"its process ended with status {status}"


def failed(section: Section, name: str, error: str) -> None:
    """Note a failure."""
    section["failures"].append({"name": name, "error": error})


def run_tests(seconds: float, on_gpu: bool) -> Section:
    """Run every test that needs a GPU."""
    began = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider"]
    status, output = run_command([*command, "--continue-on-collection-errors"], seconds)
    counts = {word: int(count) for count, word in re.findall(r"(\d+) (\w+)", output.strip().split("\n")[-1])}
    passed = counts.get("passed", 0)
    value = Spread(passed, passed, passed, 1)
    figure = Figure("tests passed", "", value, details={"counts": counts, "output": output[-20000:]})
    section: Section = {"figures": [figure.to_json()], "failures": []}
    if status != 0:
        failed(section, "pytest -m gpu", f"{output[-1500:]}\n{describe_status(status, seconds)}, {counts}")
    elif on_gpu and not passed:
        failed(section, "pytest -m gpu", f"no test ran: {counts}")
    return {"seconds": time.monotonic() - began, **section}


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


def run(given: argparse.Namespace) -> int:
    """Measure, write the record after each figure, print the table last; return 1 if anything failed."""
    began = time.monotonic()
    described = machine(["--device", given.device])
    path = record_path(described["card"], given.quick)
    sections = sections_of(path)
    measured: dict[str, Section] = {}

    def keep(name: str, section: Section) -> None:
        section["measured"] = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
        measured[name] = sections[name] = section
        ordered = {key: sections[key] for key in LIMITS if key in sections}
        record = {"machine": described, "quick": given.quick, "sections": ordered}
        write_whole(path, (json.dumps(record, indent=2) + "\n").encode())

    for name, section in measure(given, keep, time.monotonic() - began):
        keep(name, section)
        for failure in section["failures"]:
            print(f"--- {name}: {failure['name']}\n{failure['error']}")
        print(f"{name}: {section['seconds']:.0f} s, {len(section['failures'])} failed", flush=True)
    print(f"written to {path}\n\n{table(measured)}")
    return 1 if any(section["failures"] for section in measured.values()) or "error" in described else 0


def print_table(files: list[Path]) -> int:
    """Print one table of several records; where two hold a section, the later file's counts."""
    sections: dict[str, Section] = {}
    for path in files:
        sections |= json.loads(path.read_text(encoding="utf-8"))["sections"]
    print(table({name: sections[name] for name in LIMITS if name in sections}))
    return 0


def arguments(given: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="measure")
    running.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(LIMITS)}")
    running.add_argument("--device", default="cuda", help="as nnkit takes it")
    running.add_argument("--quick", action="store_true", help="a dry run with tiny sizes")
    running.add_argument("--no-peers", dest="peers", action="store_false", help="nnkit alone")
    running.add_argument("--minutes", type=float, default=8.0, help="what all of it may take")
    showing = commands.add_parser("table", help="print the table of recorded files")
    showing.add_argument("files", nargs="+", type=Path)
    parsed = parser.parse_args(given)
    if parsed.command == "run":
        unknown = set(parsed.sections) - set(LIMITS)
        if unknown:
            parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(LIMITS)}")
        parsed.sections = parsed.sections or list(LIMITS)
    return parsed


def main(given: list[str] | None = None) -> int:
    """Do as the command line says."""
    parsed = arguments(given)
    return run(parsed) if parsed.command == "run" else print_table(parsed.files)


assert set(SECTIONS) | {TESTS} == set(LIMITS)

if __name__ == "__main__":
    sys.exit(main())
