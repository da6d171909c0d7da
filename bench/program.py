"""What the programs of this folder share: options, timing in turns, child processes, saving a result.

Each is run as `python bench/NAME.py` and writes bench/results/NAME.json. With `--tiny` it only prints what it
measures, of sizes so small that the figures mean nothing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nnkit import machine
from nnkit.bench import timing
from nnkit.bench.records import Record, Result, load_result, save_result
from nnkit.bench.timing import REST

BENCH = Path(__file__).resolve().parent
DATA = Path(os.environ.get("NNKIT_BENCH_DATA") or BENCH.parents[1] / "shared" / "data")
T = TypeVar("T")


def parser(description: str | None, parts: Iterable[str] = ()) -> argparse.ArgumentParser:
    """Return a parser of the options of every program, given its docstring and the names of its parts."""
    made = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    made.add_argument("--tiny", action="store_true", help="try it out with small sizes, and save nothing")
    made.add_argument("--out", type=Path, help="the file to write, in place of the one in bench/results")
    if known := tuple(parts):

        def part(name: str) -> str:
            if name not in known:
                raise argparse.ArgumentTypeError(f"there is no {name}; there are {', '.join(known)}")
            return name

        made.add_argument("parts", nargs="*", type=part, help=f"of {', '.join(known)}; else all")
    return made


def save(
    options: argparse.Namespace,
    title: str,
    description: str | None,
    records: Iterable[Record],
    packages: Sequence[str] = (),
    keep: bool = False,
) -> list[Record]:
    """Print records as they are measured, save them after each unless the program is tried out, return them.

    The description is the program's docstring, whose paragraphs but the first tell how to read the figures;
    `packages` are named with their versions beside the machine; `keep` leaves the file's other records in it.
    """
    name = Path(sys.argv[0]).stem
    path = options.out or (None if options.tiny else BENCH / "results" / f"{name}.json")
    here = describe_machine(packages) if path else {}
    about = "\n\n".join(" ".join(paragraph.split()) for paragraph in (description or "").split("\n\n")[1:])
    size = "tiny" if options.tiny else "full"
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M}"
    earlier = load_result(path).records if keep and path and path.exists() else []
    new: list[Record] = []
    for record in records:
        show(record)
        new.append(record)
        if path:
            earlier = [one for one in earlier if (one.section, one.name) != (record.section, record.name)]
            result = Result(title, f"python bench/{name}.py", here, size, now, about, [*earlier, *new])
            save_result(result, path)
    if path:
        print(f"written to {path}")
    return new


def describe_machine(packages: Sequence[str] = ()) -> dict[str, str]:
    """Describe the machine in a process of its own, because that loads libraries and starts threads."""
    rows = in_a_process(machine.describe_machine)
    rows.pop("cache", None)  # a folder of whoever measures
    return rows | {package: version(package) for package in packages if is_installed(package)}


def is_installed(module: str) -> bool:
    """Return whether there is a module of that name."""
    return find_spec(module) is not None


def show(record: Record) -> None:
    """Print a record in a line."""
    figures = [
        f"{name} {figure}{' (aim missed)' if figure.reached is False else ''}"
        for name, figure in record.figures.items()
    ]
    print(f"{record.section}: {record.label}: {record.skipped or ', '.join(figures)}", flush=True)


def why_absent(name: str) -> str:
    """Return why a file or folder of the shared data cannot be used; empty where it can."""
    return "" if (DATA / name).exists() else f"{name} is not in ../shared/data, nor in NNKIT_BENCH_DATA"


def require(name: str) -> None:
    """End the program, saying so, where a file or folder of the shared data cannot be used."""
    if missing := why_absent(name):
        sys.exit(f"nothing is measured: {missing}")


def in_turns(
    functions: Mapping[str, Callable[[], object]], turns: int, warmup: int = 1, rest: float = REST
) -> dict[str, NDArray[np.float64]]:
    """Time functions in turns; return the seconds of the turns after the warm-up, shape (turns,), by name."""
    taken = timing.in_turns([*functions.values()], turns, warmup, rest=rest)
    return dict(zip(functions, taken, strict=True))


def in_a_process(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function in a new process, which has nothing of this one's memory."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


@dataclass(frozen=True)
class Ended:
    """A child process that has ended well: its output, its seconds, its peak of resident bytes."""

    printed: str
    seconds: float
    peak: int


def run_python(arguments: Sequence[str], cache: Path, python: str = "") -> Ended:
    """Run Python, this one or another, in a child process with nnkit's cache in a folder; exit if it fails.

    The peak is at least this process's own memory when the child starts: load few libraries here.
    """
    environment = {**os.environ, "NNKIT_CACHE": str(cache)}
    # An installed package has its bytecode; one that runs from its sources writes it in the first turn.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryFile("w+") as output:
        began = time.perf_counter()
        process = subprocess.Popen([python or sys.executable, *arguments], env=environment, stdout=output)
        _, status, usage = os.wait4(process.pid, 0)
        taken = time.perf_counter() - began
        output.seek(0)
        printed = output.read()
    if code := os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{' '.join(arguments)} ended with {code}: {printed[-1000:]}")
    return Ended(printed, taken, usage.ru_maxrss * 1024)


def run_nnkit(arguments: Sequence[str], cache: Path, python: str = "") -> Ended:
    """Run an `nnkit` command in a child process."""
    return run_python(["-P", "-c", "from nnkit.cli import main; main()", *arguments], cache, python)
