"""Feed altered and random files to every reader: `python bench/hostile.py [--coverage] [READER ...]`.

Each input has to end in a result or an NnkitError. Another exception, a warning, words on the standard
error, a message of over 2,000 characters, a crash, a hang, a gibibyte taken, a file touched outside the
input's folder, a process or a connection begun are findings; their inputs are kept in a folder. The inputs
are those of tests/hostile; number N of a reader is the same each time: `--replay READER N` feeds it again.

With `--coverage`, atheris (`pip install atheris`) alters what reached a branch of nnkit that none before it
reached, for the readers whose parsing is Python; there only exceptions, messages, warnings, crashes, hangs
and memory are findings.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from hostile_worker import state_of  # which puts the tests' package `hostile` before this file
from numpy.typing import NDArray
from program import BENCH, is_installed, parser, save

from nnkit.bench.records import Aim, Record, once

# Arrow and safetensors are compiled: atheris sees none of their branches.
IN_PYTHON = ("model", "tensorfile", "idx", "npy", "npz", "csv", "toml", "history")
FINDINGS = Path(tempfile.gettempdir()) / "nnkit-hostile"
PACKAGES = ("pyarrow", "safetensors", "pydantic", "atheris")
KEPT = 3  # inputs of a kind of finding
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS")


def start(
    kind: str, name: str, folder: Path, first: int, given: argparse.Namespace
) -> subprocess.Popen[bytes]:
    """Start a worker, in which one thread computes: the reading is what is watched."""
    numbers = (first, given.count, given.seed, given.seconds)
    command = [sys.executable, str(BENCH / "hostile_worker.py"), kind, name, str(folder), *map(str, numbers)]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(command, env={**os.environ, **dict.fromkeys(THREADS, "1")}, stderr=log)


def feed_inputs(name: str, given: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Feed the inputs to one reader; return the kinds of findings."""
    from hostile.readers import READERS

    state, first, found = state_of(folder), 0, []
    while first < given.count:
        ended = watch(start("inputs", name, folder, first, given), state, given.seconds)
        index = int(state[0])
        if ended is None:
            break
        if index < first:
            log = (folder / "log").read_text(errors="replace")
            raise SystemExit(f"{name}: the worker {ended} before its first input: {log[-2000:]}")
        found.append({"kind": ended, "index": index})
        first = index + 1
    if (folder / "findings").exists():
        found += [json.loads(line) for line in (folder / "findings").read_text().splitlines()]
    listed = []
    for kind, count in Counter(finding["kind"] for finding in found).most_common():
        indices = sorted(finding["index"] for finding in found if finding["kind"] == kind)[:KEPT]
        listed.append({"kind": kind, "count": count, "first": indices})
        for index in indices:
            keep(given, f"{name}-{given.seed}-{index}", READERS[name].input(given.seed, index))
    return listed


def watch(worker: subprocess.Popen[bytes], state: NDArray[np.int64], seconds: float) -> str | None:
    """Wait for the worker's end, so many seconds an input at most; return how it ended if not well."""
    index, since = int(state[0]), time.perf_counter()
    patience = max(seconds, 300.0)  # before the first input it imports, and may have to compile
    while worker.poll() is None:
        time.sleep(0.1)
        now = int(state[0])
        if now != index:
            index, since, patience = now, time.perf_counter(), seconds
        elif time.perf_counter() - since > patience:
            worker.kill()
            worker.wait()
            return f"hung for {seconds:g} seconds"
    if worker.returncode < 0:
        return f"died of {signal.Signals(-worker.returncode).name}"
    return None if worker.returncode == 0 else f"ended with status {worker.returncode}"


def fuzz(name: str, given: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Fuzz one reader by coverage; return the kinds of findings."""
    status = start("coverage", name, folder, 0, given).wait()
    log = (folder / "log").read_text(errors="replace")
    if "cov: " not in log:
        raise SystemExit(f"{name}: the fuzzer did not begin:\n{log[-2000:]}")
    found = sorted((folder / "findings").iterdir())
    for path in found:
        keep(given, f"{name}-coverage-{path.name}", path.read_bytes())
    kinds = [path.name for path in found] + ([f"ended with status {status}"] if status else [])
    return [{"kind": kind, "count": 1} for kind in kinds]


def keep(given: argparse.Namespace, name: str, data: bytes) -> None:
    """Write the input of a finding."""
    given.findings.mkdir(parents=True, exist_ok=True)
    (given.findings / name).write_bytes(data)


def records(names: list[str], given: argparse.Namespace) -> Iterator[Record]:
    """Feed each reader in turn."""
    home = "/dev/shm" if os.path.isdir("/dev/shm") else None
    for name in names:
        began = time.perf_counter()
        with tempfile.TemporaryDirectory(dir=home, prefix="nnkit-hostile-") as scratch:
            folder = Path(scratch)
            found = (fuzz if given.coverage else feed_inputs)(name, given, folder)
            inputs, results, errors = state_of(folder).tolist()
            log = (folder / "log").read_text(errors="replace")
        details = {"results": results, "errors": errors, "findings": found, "seed": given.seed}
        if given.coverage:
            branches = [int(number) for number in re.findall(r"cov: (\d+)", log)]
            details |= {"branches of the seeds": branches[0], "branches at the end": branches[-1]}
        figures = {
            "a result": once("%", results / inputs),
            "an NnkitError": once("%", errors / inputs),
            "findings": once("", sum(finding["count"] for finding in found), Aim("<=", 0.0)),
            "time": once("s", time.perf_counter() - began),
        }
        section = "guided by coverage" if given.coverage else "altered and random"
        yield Record(section, name, parameters={"inputs": inputs}, figures=figures, details=details)


def replay(name: str, seed: int, index: int) -> None:
    """Feed one input again and show what it raises."""
    from hostile.readers import READERS

    data = READERS[name].input(seed, index)
    print(f"{len(data)} bytes: {data[:400]!r}{'...' if len(data) > 400 else ''}")
    with tempfile.TemporaryDirectory() as folder:
        print(repr(READERS[name].feed(data, Path(folder))))


def main() -> None:
    """Feed the readers that are named, or all; exit with 1 if there are findings."""
    from hostile.readers import READERS

    options = parser(__doc__, READERS)
    options.add_argument("--count", type=int, default=100_000, help="inputs for each reader")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--seconds", type=int, help="at most for an input (20), or a reader's fuzzing (600)")
    options.add_argument("--findings", type=Path, default=FINDINGS, help="the folder for inputs of findings")
    options.add_argument("--coverage", action="store_true", help="let atheris alter the files")
    options.add_argument("--replay", nargs=2, metavar=("READER", "N"), help="feed one input again")
    given = options.parse_args()
    if given.replay:
        replay(given.replay[0], given.seed, int(given.replay[1]))
        return
    if given.coverage and not is_installed("atheris"):
        raise SystemExit("atheris is not installed: pip install atheris")
    given.seconds = given.seconds or (600 if given.coverage else 20)
    given.count = 50 if given.tiny else given.count
    made = records(given.parts or list(IN_PYTHON if given.coverage else READERS), given)
    saved = save(given, "Hostile files", __doc__, made, PACKAGES, keep=True)
    if any(record.details["findings"] for record in saved):
        sys.exit(f"there are findings; their inputs lie in {given.findings}")


if __name__ == "__main__":
    main()
