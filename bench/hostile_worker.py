"""Feed altered files to one reader until it ends: the worker process of bench/hostile.py.

    python bench/hostile_worker.py {inputs,coverage} READER FOLDER FIRST COUNT SEED SECONDS

It writes how far it is into FOLDER/state, and what it finds into FOLDER/findings.
"""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import sys
import traceback
import urllib.error
import urllib.request
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # its package `hostile` comes first

if TYPE_CHECKING:
    from hostile.readers import Reader

GIBIBYTE = 1 << 30
LONGEST_MESSAGE = 2000
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
WARM_INPUTS, WARM_RESULTS = 500, 20
SEALED = ("model", "tensorfile")  # their SHA-256 is made right, which no fuzzer guesses
SEEDS, LARGEST = 300, 4096  # of the fuzzer: files to begin with, and bytes of an input


def state_of(folder: Path) -> NDArray[np.int64]:
    """Map the input under way and the numbers of results and errors, in a file that outlives the worker."""
    path = folder / "state"
    if not path.exists():
        path.write_bytes(np.array([-1, 0, 0]).tobytes())
    return np.memmap(path, np.int64, "r+")


def isolate() -> None:
    """Keep the inputs from the network and the log, and from searching the installed backends each time."""
    from nnkit import backends

    def refuse(*arguments: object, **options: object) -> NoReturn:
        raise urllib.error.URLError("there is no network here")

    urllib.request.urlopen = refuse  # type: ignore[assignment]
    logging.getLogger("nnkit").addHandler(logging.NullHandler())
    backends.available = cache(backends.available)


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


def prepare(reader: Reader, folder: Path) -> None:
    """Load and compile what a few good inputs need; then limit the address space to two gibibytes more."""
    results = 0
    for index in range(WARM_INPUTS):
        found, failed = attempt(reader, reader.input(-1, index), folder)
        results += not found and not failed
        if results == WARM_RESULTS:
            break
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + 2 * GIBIBYTE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


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


def resident() -> int:
    """Return the most bytes of this process that were in memory at once."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def feed_inputs(name: str, folder: Path, first: int, count: int, seed: int) -> None:
    """Feed the inputs from `first` to `count` of the tests' makers."""
    from hostile.readers import READERS

    isolate()
    reader, state, inputs = READERS[name], state_of(folder), folder / "inputs"
    inputs.mkdir(exist_ok=True)
    prepare(reader, inputs)
    os.ftruncate(2, 0)  # the standard error is a file
    trespasses, before = watch_steps(folder), resident()
    with (folder / "findings").open("a", buffering=1) as findings:
        for index in range(first, count):
            state[0] = index
            trespasses.clear()
            data = reader.input(seed, index)
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                found, failed = attempt(reader, data, inputs)
            state[1:] += (not found and not failed, failed)
            found += [
                f"{one.category.__name__} in {Path(one.filename).name}: {one.message}" for one in warned
            ]
            found += dict.fromkeys(trespasses)
            if os.fstat(2).st_size:
                found.append("words on the standard error")
                os.ftruncate(2, 0)
            if resident() > before + GIBIBYTE:
                found.append("more than a gibibyte taken")
                before = resident()
            for kind in found:
                findings.write(json.dumps({"kind": kind, "index": index}) + "\n")
    state[0] = count


def fuzz(name: str, folder: Path, count: int, seconds: int) -> None:
    """Let atheris alter files by the branches of nnkit that they reach; it does not return."""
    import atheris

    # What Numba compiles has to stay as it was written.
    with atheris.instrument_imports(include=["nnkit"], exclude=["nnkit.kernels"]):
        from hostile.readers import READERS
    from hostile.tensor_files import sealed

    isolate()
    reader, state = READERS[name], state_of(folder)
    state[0] = 0  # the inputs so far
    for part in ("inputs", "seeds", "findings"):
        (folder / part).mkdir()
    for index in range(SEEDS):
        data = reader.input(-2, index)
        if len(data) <= LARGEST:
            (folder / "seeds" / str(index)).write_bytes(data)
    prepare(reader, folder / "inputs")
    warnings.simplefilter("error")

    def feed(data: bytes) -> None:
        data = sealed(data) if name in SEALED else data
        if reader.split:
            data = data.rjust(4, b"\0")  # the length that parts two files comes first
        found, failed = attempt(reader, data, folder / "inputs")
        state[:] += (1, not found and not failed, failed)
        for kind in found:
            (folder / "findings" / re.sub(r"\W+", "-", kind)[:80]).write_bytes(data)

    options = [f"-runs={count}", f"-max_total_time={seconds}", f"-max_len={LARGEST}", "-timeout=20"]
    options += ["-rss_limit_mb=1500", "-seed=1", f"-artifact_prefix={folder / 'findings'}/"]
    atheris.Setup([sys.argv[0], *options, str(folder / "seeds")], feed)
    atheris.Fuzz()


if __name__ == "__main__":
    kind, reader_name, where, *numbers = sys.argv[1:]
    first_index, input_count, input_seed, longest = map(int, numbers)
    if kind == "coverage":
        fuzz(reader_name, Path(where), input_count, longest)
    else:
        feed_inputs(reader_name, Path(where), first_index, input_count, input_seed)
