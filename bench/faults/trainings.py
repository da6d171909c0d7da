"""The trainings that are disturbed: what they train, how they are started, and how their ends are compared.

Order: the two trainings, a child process, what must be whole, what must be equal, the record.
"""

from __future__ import annotations

import fcntl
import io
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nnkit import cli
from nnkit.errors import NnkitError
from nnkit.model import load
from nnkit.runs.config import load_config
from nnkit.training.checkpoint import Checkpoint
from nnkit.training.history import History

__all__ = ["Case", "Child", "Record", "Workshop", "continuation", "different", "remains", "unwhole"]

_TIMED = ("seconds", "samples_per_second")
_LONGEST_SECONDS = 180.0


@dataclass
class Case:
    """A training by its command line, and how it ends when nobody disturbs it.

    Attributes
    ----------
    name : str
        What the record calls it.
    arguments : list of str
        Of `nnkit`, without ``--out``.
    reference : Path
        The run folder of the undisturbed training.
    seconds, started_seconds : float
        What it takes in a forked child, and from the shell.
    write_seconds : float
        What writing one checkpoint takes.
    """

    name: str
    arguments: list[str]
    reference: Path
    seconds: float = 0.0
    started_seconds: float = 0.0
    write_seconds: float = 0.0

    def train(self, folder: Path) -> list[str]:
        """Return the arguments of a new training into a folder."""
        return [*self.arguments, "--out", str(folder)]


def continuation(case: Case, folder: Path) -> list[str]:
    """Return what goes on with an interrupted training; one that left no config had not begun."""
    begun = (folder / "config.toml").is_file()
    return ["train", "--resume", str(folder)] if begun else case.train(folder)


class Child:
    """A `nnkit` command in a process of its own, forked off this one or started as from the shell.

    Parameters
    ----------
    arguments : sequence of str
        Of `nnkit`.
    from_shell : bool
        Whether to start the installed command; else this process, which has the kernels loaded, is forked.
    prepare : function, optional
        Called in the child before anything else.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        from_shell: bool = False,
        prepare: Callable[[], object] | None = None,
    ) -> None:
        # A fork takes only this thread with it; jemalloc, which pyarrow loads, minds forks by itself.
        names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
        assert sum(name != "jemalloc_bg_thd" for name in names) == 1
        reading, writing = os.pipe()
        fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, 2**20)  # nobody reads before the end
        sys.stdout.flush()
        self.code: int | None = None
        self.began = time.perf_counter()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reading)
            _become(arguments, from_shell, prepare, writing)
        os.close(writing)
        self._output = reading

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while it runs."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def send(self, number: signal.Signals) -> bool:
        """Send a signal; return whether the process was still there."""
        if self.poll() is not None:
            return False
        os.kill(self.pid, number)
        return True

    def finish(self, patience: float = _LONGEST_SECONDS) -> tuple[int, str]:
        """Wait for the end; return the exit code and all that was printed. What hangs is killed: code -9."""
        while self.poll() is None:
            if time.perf_counter() - self.began > patience:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.001)
        with open(self._output, "rb") as file:
            printed = file.read().decode(errors="replace")
        assert self.code is not None
        return self.code, printed


def _become(
    arguments: Sequence[str], from_shell: bool, prepare: Callable[[], object] | None, output: int
) -> None:
    """Turn this forked process into the command; does not return."""
    os.dup2(output, 1)
    os.dup2(output, 2)
    code = 70
    try:
        if prepare is not None:
            prepare()
        if from_shell:
            command = str(Path(sys.executable).parent / "nnkit")
            os.execv(command, [command, *arguments])
        # Nobody has flushed what the parent may have printed into these.
        sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False), line_buffering=True)
        sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", closefd=False), line_buffering=True)
        sys.argv = ["nnkit", *arguments]
        cli.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


class Workshop:
    """A folder to train in, with the two trainings and their undisturbed ends in it.

    Parameters
    ----------
    folder : Path
        Empty.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._number = 0
        random_numbers = np.random.default_rng(20)
        self._write("small", random_numbers, rows=600, features=20, classes=3)
        self._write("wide", random_numbers, rows=1000, features=784, classes=10)
        common = ["--schedule", "cosine", "--device", "cpu", "--set", "run.checkpoint_every=20 steps"]
        small = ["--hidden", "32,16", "--dropout", "0.3", "--batch-size", "32", "--epochs", "60"]
        small += ["--set", "training.restore_best=false"]
        wide = ["--hidden", "512,512", "--batch-size", "64", "--epochs", "10", "--validation", "0.1"]
        self.small = self._case("small", [*small, *common])
        self.wide = self._case("wide", [*wide, *common])
        self.cases = (self.small, self.wide)

    def measure(self) -> None:
        """Train both undisturbed: here, so that the kernels are loaded, then in children, for the time."""
        for case in self.cases:
            try:
                cli.app(case.train(case.reference), standalone_mode=False)
            except SystemExit as end:
                raise RuntimeError(f"the undisturbed training ended with {end.code}") from end
            case.seconds = self._time(case, from_shell=False)
            case.started_seconds = self._time(case, from_shell=True)
            newest = max((case.reference / "checkpoints").glob("step-*"))
            checkpoint = Checkpoint.load(newest)
            began = time.perf_counter()
            checkpoint.save(self.folder / "written")
            case.write_seconds = time.perf_counter() - began

    def _time(self, case: Case, from_shell: bool) -> float:
        folder = self.new_folder()
        child = Child(case.train(folder), from_shell)
        code, printed = child.finish()
        seconds = time.perf_counter() - child.began
        found = different(folder, case.reference)
        if code != 0 or found:
            raise RuntimeError(f"two undisturbed trainings differ: exit {code}, {found}\n{printed}")
        shutil.rmtree(folder)
        return seconds

    def _write(self, name: str, draw: np.random.Generator, rows: int, features: int, classes: int) -> None:
        X = draw.normal(size=(rows, features)).astype(np.float32)
        y = (X @ draw.normal(size=(features, classes))).argmax(axis=1)
        np.savez(self.folder / f"{name}.npz", X=X, y=y)

    def _case(self, name: str, options: list[str]) -> Case:
        arguments = ["train", str(self.folder / f"{name}.npz"), *options]
        return Case(name, arguments, self.folder / f"reference-{name}")

    def new_folder(self) -> Path:
        """Return the name of a run folder that is not there yet."""
        self._number += 1
        return self.folder / f"run-{self._number}"


def unwhole(folder: Path) -> list[str]:
    """Return what is wrong with the files of a run that have their final names; empty if all are whole."""
    found = []
    readers: list[tuple[str, Callable[[Path], object]]] = [
        ("checkpoints/step-*.safetensors", Checkpoint.load),
        ("checkpoints/best.safetensors", Checkpoint.load),
        ("config.toml", load_config),
        ("metrics.jsonl", History.from_jsonl),  # a last line that was cut off is left out
        ("model.safetensors", load),
    ]
    for pattern, read in readers:
        for path in sorted(folder.glob(pattern)):
            try:
                read(path)
            except NnkitError as error:
                found.append(str(error))
    return found


def different(folder: Path, reference: Path, with_checkpoint: bool = True) -> list[str]:
    """Return in what a run's end is not that of another, bit for bit; empty if it is.

    Model files hold weights, preprocessing and metrics and no times: they are compared byte by byte.
    """
    models = [path / "model.safetensors" for path in (folder, reference)]
    if not models[0].exists():
        return ["there is no model"]
    found = [] if models[0].read_bytes() == models[1].read_bytes() else ["the model files differ"]
    rows = [_figures(History.from_jsonl(path / "metrics.jsonl")) for path in (folder, reference)]
    found += [] if rows[0] == rows[1] else [f"metrics.jsonl differs: {len(rows[0])} and {len(rows[1])} rows"]
    if not with_checkpoint:
        return found
    ends = [max((path / "checkpoints").glob("step-*"), default=None) for path in (folder, reference)]
    if ends[0] is None or ends[1] is None:
        return [*found, "there is no checkpoint at the end"]
    one, other = Checkpoint.load(ends[0]), Checkpoint.load(ends[1])
    same = (one.step, one.state, one.finished) == (other.step, other.state, other.finished)
    found += [] if same else [f"the states differ: {one.state} and {other.state}"]
    found += [name for name in other.arrays if not _same_bits(one.arrays[name], other.arrays[name])]
    return found


def _figures(history: History) -> list[dict[str, Any]]:
    rows = history.to_json()["rows"]
    return [{key: value for key, value in row.items() if key not in _TIMED} for row in rows]


def _same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def remains(folder: Path) -> list[str]:
    """Return the files under temporary names."""
    return sorted(path.name for path in folder.rglob(".*") if path.name != ".lock")


@dataclass
class Record:
    """What a section did and saw.

    Attributes
    ----------
    counts : dict of str to int
        How often what was seen.
    deviations : list of str
        Everything that is not as it should be, each with what was done.
    figures : dict
        What was measured.
    """

    counts: dict[str, int] = field(default_factory=dict)
    deviations: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def count(self, what: str, number: int = 1) -> None:
        """Count something that was seen."""
        self.counts[what] = self.counts.get(what, 0) + number

    def deviate(self, doing: str, what: str) -> None:
        """Note, and print at once, what is not as it should be."""
        self.deviations.append(f"{doing}: {what}")
        print(f"DEVIATION {doing}: {what}", flush=True)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a JSON object."""
        measured = {"figures": self.figures} if self.figures else {}
        return {"counts": self.counts, "deviations": self.deviations, **measured}


def end_of(
    record: Record, doing: str, case: Case, folder: Path, from_shell: bool = False, patience: float = 180.0
) -> str:
    """Go on with a training to its end, and record whether that is the undisturbed one; return its output."""
    code, printed = Child(continuation(case, folder), from_shell).finish(patience)
    if code != 0:
        record.deviate(doing, f"the resumed training ended with {code}: {printed[-2000:]}")
        return printed
    found = different(folder, case.reference)
    if found:
        record.deviate(doing, f"not bit-identical: {'; '.join(found)}")
    else:
        record.count("ends bit-identical")
    for name in remains(folder):
        record.deviate(doing, f"a temporary file is left at the end: {name}")
    shutil.rmtree(folder)
    return printed


def draw_case(draw: random.Random, workshop: Workshop) -> Case:
    """Take one of the two trainings."""
    return draw.choice(workshop.cases)
