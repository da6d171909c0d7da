"""Feed altered and random files to every reader: `python bench/hostile.py [--count 100000] [READER ...]`.

Each input has to end in a result or an NnkitError. Another exception, a warning, words on the standard
error, a message too long to be read, a crash, a hang, a gibibyte taken, a file touched outside the input's
folder, a process or a connection begun are findings. The inputs are those of tests/hostile; number N of a
reader is the same each time: `--replay READER N` feeds it again.

One worker process at a time does the reading, with a limit on its address space; this one watches it. What
each reader came to is written to bench/results/hostile.json, and the inputs of findings to a folder.
"""

from __future__ import annotations

import argparse
import json
import logging
import mmap
import os
import platform
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.request
import warnings
from collections import Counter
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # its package `hostile` comes before this file of the same name

if TYPE_CHECKING:
    from hostile.readers import Reader

READERS = (
    "model",
    "checkpoint",
    "tensorfile",
    "idx",
    "npy",
    "mapped npy",
    "npz",
    "csv",
    "tsv",
    "messages",
    "jsonl",
    "json",
    "text file",
    "word vectors",
    "parquet",
    "arrow",
    "toml",
    "picture",
    "picture_list",
    "history",
    "findings",
)
RECORD = ROOT / "bench" / "results" / "hostile.json"
FINDINGS = Path(tempfile.gettempdir()) / "nnkit-hostile"
PACKAGES = ("nnkit-train", "numpy", "pyarrow", "safetensors", "pillow")

GIBIBYTE = 1 << 30
ADDRESS_SPACE = 2 * GIBIBYTE  # above what a worker has mapped before the first input
MOST_RESIDENT = GIBIBYTE
LONGEST_MESSAGE = 2000
STATE = struct.Struct("qqq")  # the input under way, how many gave a result, and how many an NnkitError
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
KEPT = 3  # inputs of a kind of finding
POLL = 0.1
WARM_INPUTS, WARM_RESULTS = 500, 20


class Watched:
    """What the worker has come to, in a file that both processes map: it outlives the worker."""

    def __init__(self, path: Path, index: int = -1) -> None:
        if not path.exists():
            path.write_bytes(STATE.pack(index, 0, 0))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), STATE.size)

    def get(self) -> tuple[int, int, int]:
        """Return the input under way, the number of results and of errors."""
        index, results, errors = STATE.unpack(self._map[:])
        return index, results, errors

    def set(self, index: int, results: int, errors: int) -> None:
        """Write them."""
        self._map[:] = STATE.pack(index, results, errors)


# --- the worker ---


def refuse(*arguments: object, **options: object) -> NoReturn:
    """Stand in for the network, which no input may reach."""
    raise urllib.error.URLError("there is no network here")


def work(name: str, seed: int, first: int, count: int, folder: Path) -> None:
    """Feed the inputs `first` to `count`; write the findings as lines of JSON, and the state as it goes."""
    from hostile.readers import READERS as readers

    isolate()
    reader, state = readers[name], Watched(folder / "state")
    inputs = folder / "inputs"
    inputs.mkdir(exist_ok=True)
    warned: list[str] = []
    warnings.simplefilter("always")
    warnings.showwarning = lambda text, kind, file, line, *_: warned.append(  # type: ignore[assignment]
        f"{kind.__name__} in {Path(file).name}: {text}"
    )
    said = os.open(folder / "said", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 2)
    warm_up(reader, inputs)
    os.ftruncate(said, 0)
    limit_memory()
    trespasses = watch_steps(folder)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    _, results, errors = state.get()
    with (folder / "findings").open("a") as findings:
        for index in range(first, count):
            state.set(index, results, errors)
            warned.clear()
            trespasses.clear()
            data = reader.input(seed, index)
            found, failed = attempt(reader, data, inputs)
            results, errors = results + (not found and not failed), errors + failed
            found += [f"warning: {text}" for text in set(warned)] + sorted(set(trespasses))
            if os.fstat(said).st_size:
                found.append("words on the standard error")
                os.ftruncate(said, 0)
            taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            if taken > resident + MOST_RESIDENT:
                found.append("more than a gibibyte taken")
                resident = taken
            for kind in found:
                findings.write(json.dumps({"kind": kind, "index": index}) + "\n")
                findings.flush()
    state.set(count, results, errors)


def isolate() -> None:
    """Keep the inputs from the network and the log, and from a search that none of them changes."""
    from nnkit import backends

    urllib.request.urlopen = refuse  # type: ignore[assignment]
    logging.getLogger("nnkit").addHandler(logging.NullHandler())  # what is logged is meant to be said
    # Each training asks for the installed backends anew: a hundred files.
    backends.available = cache(backends.available)


def watch_steps(folder: Path) -> list[str]:
    """Return a list that fills with what Python code does outside the folder and nnkit's cache."""
    from nnkit.cache import cache_folder

    own = (str(folder), str(cache_folder()))
    places = {"open": 0, "os.mkdir": 0, "os.remove": 0, "os.rename": 1, "os.link": 1, "os.symlink": 1}
    found: list[str] = []

    def see(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("os.system", "os.fork", "os.posix_spawn", "subprocess.Popen", "socket.connect"):
            found.append(f"began something: {event}")
        if event not in places or (event == "open" and not arguments[2] & WRITING):
            return
        path = arguments[places[event]]
        if not isinstance(path, int) and not os.path.abspath(os.fsdecode(path)).startswith(own):
            found.append(f"left its folder: {event}")

    sys.dont_write_bytecode = True
    sys.addaudithook(see)
    return found


def warm_up(reader: Reader, folder: Path) -> None:
    """Have loaded and compiled, before the limit, what a few inputs with a result need."""
    results = 0
    for index in range(WARM_INPUTS):
        found, failed = attempt(reader, reader.input(-1, index), folder)
        results += not found and not failed
        if results == WARM_RESULTS:
            return


def attempt(reader: Reader, data: bytes, folder: Path) -> tuple[list[str], bool]:
    """Return the findings of one input, and whether it ended in an NnkitError."""
    try:
        error = reader.feed(data, folder)
    except Exception as foreign:
        return [described(foreign)], False
    if error is not None and not 0 < len(str(error)) <= LONGEST_MESSAGE:
        return [f"a message of {len(str(error)):.0e} characters: {described(error)}"], False
    return [], error is not None


def described(error: BaseException) -> str:
    """Return an exception's type and the innermost function of nnkit that it came through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if f"{os.sep}nnkit{os.sep}" in frame.filename] or list(frames)
    place = f" in {Path(own[-1].filename).name}, {own[-1].name}" if own else ""
    return f"{type(error).__name__}{place}"


def limit_memory() -> None:
    """Limit the address space to what is mapped now and two gibibytes."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    mapped = pages * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + ADDRESS_SPACE,) * 2)


# --- the watch ---


def fuzz(name: str, seed: int, count: int, seconds: float, findings: Path) -> dict[str, Any]:
    """Feed so many inputs to one reader; return what came of them."""
    began = time.perf_counter()
    home = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=home, prefix="nnkit-hostile-") as scratch:
        folder = Path(scratch)
        state, first, found = Watched(folder / "state"), 0, []
        while first < count:
            ended = watch(start(name, seed, first, count, folder), state, seconds)
            index, results, errors = state.get()
            if ended is None:
                break
            if index < first:
                raise SystemExit(f"{name}: the worker {ended} before its first input: {said(folder)}")
            found.append({"kind": ended, "index": index})
            first = index + 1
        if (folder / "findings").exists():
            found += [json.loads(line) for line in (folder / "findings").read_text().splitlines()]
    kept = keep(name, seed, found, findings)
    return {
        "inputs": count,
        "results": results,
        "nnkit_errors": errors,
        "findings": kept,
        "seconds": round(time.perf_counter() - began, 1),
    }


def start(name: str, seed: int, first: int, count: int, folder: Path) -> subprocess.Popen[bytes]:
    """Start a worker."""
    command = [sys.executable, __file__, "--worker", str(folder), "--first", str(first), "--seed", str(seed)]
    return subprocess.Popen([*command, "--count", str(count), name], env=one_thread())


def one_thread() -> dict[str, str]:
    """Return an environment in which one thread computes: what is watched is the reading."""
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS")
    return {**os.environ, **dict.fromkeys(names, "1")}


def watch(worker: subprocess.Popen[bytes], state: Watched, seconds: float) -> str | None:
    """Wait for the worker's end, so many seconds an input at most; return how it ended if not well."""
    index, since = state.get()[0], time.perf_counter()
    # What comes before the first input: imports, and kernels that may have to be compiled.
    patience = max(seconds, 300.0)
    while worker.poll() is None:
        time.sleep(POLL)
        now = state.get()[0]
        if now != index:
            index, since, patience = now, time.perf_counter(), seconds
        elif time.perf_counter() - since > patience:
            worker.kill()
            worker.wait()
            return f"hung for {seconds:g} seconds"
    if worker.returncode < 0:
        return f"died of {signal.Signals(-worker.returncode).name}"
    return None if worker.returncode == 0 else f"ended with status {worker.returncode}"


def said(folder: Path) -> str:
    """Return what the last worker wrote to the standard error."""
    path = folder / "said"
    return path.read_text(errors="replace")[-2000:] if path.exists() else ""


def keep(name: str, seed: int, found: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Write the first inputs of each kind of finding to a folder; return the kinds with their numbers."""
    from hostile.readers import READERS as readers

    kinds = Counter(finding["kind"] for finding in found)
    listed = []
    for kind, count in kinds.most_common():
        indices = sorted(finding["index"] for finding in found if finding["kind"] == kind)[:KEPT]
        listed.append({"kind": kind, "count": count, "first": indices})
        for index in indices:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}-{seed}-{index}").write_bytes(readers[name].input(seed, index))
    return listed


# --- the command ---


def replay(name: str, seed: int, index: int) -> None:
    """Feed one input again and show what it raises."""
    from hostile.readers import READERS as readers

    data = readers[name].input(seed, index)
    print(f"{len(data)} bytes: {data[:400]!r}{'...' if len(data) > 400 else ''}")
    with tempfile.TemporaryDirectory() as folder:
        print(repr(readers[name].feed(data, Path(folder))))


def main() -> None:
    """Run the readers that are named, or all, and write the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"any of {', '.join(READERS)}")
    parser.add_argument("--count", type=int, default=100_000, help="inputs for each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=20.0, help="the most that one input may take")
    parser.add_argument("--findings", type=Path, default=FINDINGS, help="the folder for inputs of findings")
    parser.add_argument("--record", type=Path, default=RECORD, help="the file to write")
    parser.add_argument("--replay", nargs=2, metavar=("READER", "N"), help="feed one input again")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.replay:
        replay(options.replay[0], options.seed, int(options.replay[1]))
        return
    if unknown := set(options.readers) - set(READERS):
        parser.error(f"no reader {', '.join(sorted(unknown))}; there are {', '.join(READERS)}")
    if options.worker:
        work(options.readers[0], options.seed, options.first, options.count, options.worker)
        return
    failed = False
    for name in options.readers or READERS:
        outcome = fuzz(name, options.seed, options.count, options.seconds, options.findings)
        record = json.loads(options.record.read_text()) if options.record.exists() else {}
        versions = {
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
        }
        record[name] = {"seed": options.seed, **outcome, "versions": versions}
        options.record.parent.mkdir(parents=True, exist_ok=True)
        options.record.write_text(json.dumps(record, indent=2) + "\n")
        print(f"{name}: {json.dumps(outcome)}", flush=True)
        failed = failed or bool(outcome["findings"])
    if failed:
        sys.exit(f"there are findings; their inputs lie in {options.findings}")


if __name__ == "__main__":
    main()
