"""Kill trainings at random moments, and train for a million steps: `python bench/faults.py [killed] [soak]`.

killed: trainings of 20-32-16-3 and of 784-512-512-10, with a checkpoint every 20 steps, get one to three
SIGKILLs, a third of them while a checkpoint is written. After every kill each file with its final name must
be whole; resumed to its end, the training must leave the model, history and last checkpoint of the
undisturbed one, bit for bit. soak: a million steps of 20-16-1 with a checkpoint every 20,000, in which
memory, open files and threads must not grow. Anything else is a deviation. tests/training/test_faults.py
has the other faults; docs/explanation/faults.md tells what was seen.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from program import parser, save

from nnkit import Callback, Dense, Network, Trainer
from nnkit.bench.records import Aim, Quantity, Record, once
from nnkit.errors import NnkitError
from nnkit.model import load
from nnkit.runs.config import load_config
from nnkit.training.checkpoint import Checkpoint, Checkpoints
from nnkit.training.history import History

COMMAND = [sys.executable, "-c", "from nnkit.cli import main; main()"]
COMMON = "--schedule cosine --device cpu --set run.keep_checkpoints=true --set".split()
COMMON += ["run.checkpoint_every=20 steps"]
OPTIONS = {
    "small": "--hidden 32,16 --dropout 0.3 --batch-size 32 --epochs 60 --set training.restore_best=false",
    "wide": "--hidden 512,512 --batch-size 64 --epochs 10 --validation 0.1",
}
SIZES = {"small": (600, 20, 3), "wide": (1000, 784, 10)}  # rows, features, classes
READERS: dict[str, Callable[[Path], object]] = {
    "checkpoints/step-*.safetensors": Checkpoint.load,
    "checkpoints/best.safetensors": Checkpoint.load,
    "config.toml": load_config,
    "metrics.jsonl": History.from_jsonl,  # which leaves out a last line that was cut off
    "model.safetensors": load,
}
TIMED = ("seconds", "samples_per_second")
ONE_THREAD = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}


@dataclass
class Case:
    """A training by its command line, its undisturbed end, and the seconds from its first file to that."""

    name: str
    arguments: list[str]
    reference: Path
    seconds: float

    def start(self, folder: Path) -> subprocess.Popen[str]:
        """Start the training, or resume it; return when its run has files."""
        begun = (folder / "config.toml").is_file()
        arguments = ["train", "--resume", str(folder)] if begun else [*self.arguments, "--out", str(folder)]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        process = subprocess.Popen([*COMMAND, *arguments], env=ONE_THREAD, **pipes)
        while process.poll() is None and not (folder / "config.toml").is_file():
            time.sleep(0.001)
        return process


def undisturbed(name: str, folder: Path) -> Case:
    """Write a training's data, train twice, so that kernels are compiled, and compare."""
    rows, features, classes = SIZES[name]
    random_numbers = np.random.default_rng(20)
    X = random_numbers.normal(size=(rows, features)).astype(np.float32)
    y = (X @ random_numbers.normal(size=(features, classes))).argmax(axis=1)
    data = folder / f"{name}.npz"
    np.savez(data, X=X, y=y)
    arguments = ["train", str(data), *OPTIONS[name].split(), *COMMON]
    case = Case(name, arguments, folder / f"reference-{name}", 0.0)
    for run in (case.reference, folder / "again"):
        process = case.start(run)
        began = time.perf_counter()
        printed, _ = process.communicate()
        case.seconds = time.perf_counter() - began
        if process.returncode or different(run, case.reference):
            raise RuntimeError(f"the undisturbed training failed, or differs from its first run: {printed}")
    shutil.rmtree(folder / "again")
    return case


def kill_once(case: Case, folder: Path, aimed: bool, draw: random.Random, counts: Counter[str]) -> list[str]:
    """Start or resume a training, kill it, and return what is wrong with what it left."""
    process = case.start(folder)
    if aimed:
        seen, nth = set[str](), draw.randint(1, 5)
        while process.poll() is None and len(seen) < nth:
            with suppress(FileNotFoundError):
                seen.update(name for name in os.listdir(folder / "checkpoints") if name.startswith(".step-"))
            time.sleep(0.0001)
    else:
        time.sleep(draw.uniform(0, case.seconds))
    process.kill()
    printed, _ = process.communicate()
    if process.returncode != -signal.SIGKILL:
        counts["trainings that ended before a kill"] += 1
        return [] if process.returncode == 0 else [f"ended with {process.returncode}: {printed[-2000:]}"]
    counts["kills"] += 1
    counts["kills with a checkpoint half written"] += any(folder.glob("checkpoints/.step-*"))
    counts["kills before the first checkpoint"] += not any(folder.glob("checkpoints/step-*"))
    found = []
    for pattern, read in READERS.items():
        for path in folder.glob(pattern):
            try:
                read(path)
            except NnkitError as error:
                found.append(f"after the kill: {error}")
    return found


def different(folder: Path, reference: Path) -> list[str]:
    """Return in what a run's end differs from another's in any bit but of times."""
    models, rows, checkpoints = [], [], []
    for run in (folder, reference):
        if not (run / "model.safetensors").exists():
            return ["there is no model"]
        models.append((run / "model.safetensors").read_bytes())
        history = History.from_jsonl(run / "metrics.jsonl").to_json()["rows"]
        rows.append([{key: value for key, value in row.items() if key not in TIMED} for row in history])
        last = Checkpoint.load(max((run / "checkpoints").glob("step-*")))
        arrays = {name: (a.dtype, a.shape, a.tobytes()) for name, a in last.arrays.items()}
        checkpoints.append((last.step, last.state, last.finished, arrays))
    pairs = {"the model": models, "metrics.jsonl": rows, "the last checkpoint": checkpoints}
    return [f"{what} differs" for what, (one, other) in pairs.items() if one != other]


def killed(count: int, seed: int, folder: Path) -> Record:
    """Kill and resume so many trainings."""
    cases, draw = [undisturbed(name, folder) for name in OPTIONS], random.Random(seed)
    counts, deviations, identical = Counter[str](), [], 0
    for number in range(count):
        case, run = draw.choice(cases), folder / f"run-{number}"
        found = []
        for _ in range(draw.choices([1, 2, 3], [7, 2, 1])[0]):
            found += kill_once(case, run, number % 3 == 0, draw, counts)
        process = case.start(run)
        printed, _ = process.communicate()
        if process.returncode:
            found.append(f"resumed, it ended with {process.returncode}: {printed[-2000:]}")
        differing = different(run, case.reference)
        found += differing
        found += [f"left at the end: {path.name}" for path in run.rglob(".*") if path.name != ".lock"]
        identical += not differing
        deviations += [f"{number}, {case.name}: {what}" for what in found]
        shutil.rmtree(run)
    figures = {"bit-identical ends": once("%", identical / count)}
    return record("killed", {"trainings": count, **counts}, figures, deviations)


class Look(Callback):
    """Notes resident memory, open files and threads."""

    every = "10000 steps"

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, int]] = []

    def on_step_end(self, trainer: Any, status: Any) -> None:
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        self.seen.append((resident, len(os.listdir("/proc/self/fd")), threading.active_count()))


def soak(steps: int, seed: int, folder: Path) -> Record:
    """Train for many steps of 16 rows."""
    look, random_numbers = Look(), np.random.default_rng(seed)
    X = random_numbers.normal(size=(16_000, 20)).astype(np.float32)
    y = (X @ random_numbers.normal(size=20)).astype(np.float32)
    trainer = Trainer(Network([Dense(16, "relu"), Dense(1)]), "mse", device="cpu")
    kept = Checkpoints(folder / "soak", "20000 steps")
    trainer.fit(X, y, epochs=-(-steps // 1000), batch_size=16, callbacks=[look], checkpoints=kept)
    (first, *others), (last, *others_last) = look.seen[0], look.seen[-1]
    # Any reading may fall into the writing of a checkpoint, which takes a thread and a file.
    grown = [
        f"{what}: {before} at first, {after} at last"
        for what, before, after in zip(("open files", "threads"), others, others_last, strict=True)
        if after > before + 1
    ]
    figures = {
        "memory at first": once("B", first),
        "memory at last": once("B", last),
        "growth": once("%", last / first - 1, Aim("<=", 0.02)),
    }
    return record("soak", {"steps": steps}, figures, grown)


def record(name: str, size: dict[str, Any], figures: dict[str, Quantity], deviations: list[str]) -> Record:
    """Return a section's record."""
    figures["deviations"] = once("", len(deviations), Aim("<=", 0.0))
    return Record("faults", name, parameters=size, figures=figures, details={"deviations": deviations})


SECTIONS = {"killed": (killed, 50, 2), "soak": (soak, 1_000_000, 20_000)}  # usual and tiny counts


def main() -> None:
    """Run the sections in order; exit with 1 if an aim is missed."""
    options = parser(__doc__, SECTIONS)
    options.add_argument("--count", type=int, help="trainings to kill, or steps of the soak")
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()

    def records(folder: Path) -> Iterator[Record]:
        for name in given.parts or SECTIONS:
            measure, usual, tiny = SECTIONS[name]
            yield measure(given.count or (tiny if given.tiny else usual), given.seed, folder)

    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        made = save(given, "Faults", __doc__, records(Path(folder)), keep=True)
    sys.exit(any(figure.reached is False for one in made for figure in one.figures.values()))


if __name__ == "__main__":
    main()
