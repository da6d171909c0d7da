"""Run the tests that need a GPU, many processes at once, and keep the outcome of each."""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from nnkit.benchmarks.figures import Figure
from nnkit.benchmarks.gpu.commands import describe_status, run_command
from nnkit.benchmarks.timing import Spread

__all__ = ["gpu_test_paths", "run_tests"]

PROCESSES = 8  # of tests, at once
BATCH = 24  # tests of one file, in one process: after an error a device may be unusable for the rest of it
GRACE = 5.0  # seconds in which pytest writes what it has


def run_tests(seconds: float, on_gpu: bool, paths: list[str] | None = None) -> dict[str, Any]:
    """Run every test that needs a GPU, `PROCESSES` batches at a time, and return a section of the record.

    With `on_gpu` it is a failure if no test passes. `paths` are those of `gpu_test_paths` unless given.
    """
    began = time.monotonic()
    failures: list[dict[str, str]] = []

    def failed(name: str, output: str, status: int | None) -> None:
        ending = describe_status(status, time.monotonic() - began)
        failures.append({"name": name, "error": f"{output[-1500:]}\n{ending}"})

    pytest = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider"]
    collect = [*pytest, "--collect-only", "--continue-on-collection-errors", *(paths or gpu_test_paths())]
    status, output = run_command(collect, seconds)
    if status not in (0, 5):  # 5: there are none
        failed("collecting the tests", output, status)
    names = re.findall(r"^\S+\.py::.*$", output, re.MULTILINE)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(PROCESSES) as pool:

        def run(number: int, batch: list[str]) -> tuple[list[str], Path, int | None, str]:
            report = Path(folder) / f"{number}.xml"
            left = seconds - GRACE - (time.monotonic() - began)
            command = [*pytest, f"--junitxml={report}", *batch]
            status, output = run_command(command, left, grace=GRACE) if left > 1 else (None, "not begun")
            return batch, report, status, output

        done = list(pool.map(run, *zip(*enumerate(_batches(names)), strict=True))) if names else []
        outcomes: dict[str, tuple[str, float]] = {}
        for batch, report, status, output in done:
            results, errors = _read_junit(report) if report.exists() else ({}, [])
            outcomes |= results
            failures += errors
            if len(results) < len(batch):
                failed(f"{batch[len(results)]} and those after it, of {len(batch)}", output, status)
    counts = Counter(outcome for outcome, _ in outcomes.values())
    passed = counts["passed"]
    if on_gpu and not passed:
        error = f"no test passed of {len(names)}: {dict(counts)}"
        failures.append({"name": "pytest -m gpu", "error": error})
    details = {"counts": dict(counts), "tests": outcomes}
    figure = Figure("tests passed", "", Spread(passed, passed, passed, 1), details=details)
    return {"seconds": time.monotonic() - began, "figures": [figure.to_json()], "failures": failures}


def gpu_test_paths() -> list[str]:
    """Return the test files with the mark `gpu`, and the folders whose conftest.py gives it to fixtures."""
    # Only what pytest collects itself: the simulated device's own checks would load its driver.
    files = sorted(file for name in ("test_*.py", "conftest.py") for file in Path("tests").rglob(name))
    marked = [file for file in files if "mark.gpu" in file.read_text("utf-8")]
    return [str(file.parent if file.name == "conftest.py" else file) for file in marked]


def _batches(names: list[str]) -> Iterator[list[str]]:
    """Split tests into those of one process."""
    for _, of_a_file in groupby(names, lambda name: name.partition("::")[0]):
        several = list(of_a_file)
        for start in range(0, len(several), BATCH):
            yield several[start : start + BATCH]


def _read_junit(path: Path) -> tuple[dict[str, tuple[str, float]], list[dict[str, str]]]:
    """Return each test's outcome and seconds from JUnit's XML, and what failed."""
    outcomes, failures = {}, []
    for case in ElementTree.parse(path).iterfind(".//testcase[@name]"):  # one that is interrupted has none
        name = f"{case.get('classname')}::{case.get('name')}"
        ends = {element.tag: element for element in case}
        outcome = next((tag for tag in ("error", "failure", "skipped") if tag in ends), "passed")
        outcomes[name] = (outcome, float(case.get("time", 0)))
        if outcome in ("error", "failure"):
            failures.append({"name": name, "error": (ends[outcome].text or "")[-1500:]})
    return outcomes, failures
