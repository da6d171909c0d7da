"""Faults of what surrounds a training: folders, other processes, memory, data, settings, libraries."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from faults.trainings import Case, Child, Record, Workshop, continuation, different, end_of, unwhole
from nnkit import Callback, Dense, Network, Trainer
from nnkit.errors import DivergenceError
from nnkit.training.checkpoint import Checkpoint, Checkpoints

__all__ = ["memory", "other", "refused"]


def other(workshop: Workshop, count: int, draw: random.Random) -> Record:
    """Inject each of the faults below `count` times."""
    record = Record()
    for fault in (
        _unwritable,
        _checkpoints_unwritable,
        _in_use,
        _removed,
        _diverged,
        _changed_before_resume,
        _more_epochs,
        _other_blas,
    ):
        for _ in range(count):
            fault(record, workshop, draw)
    return record


def memory(workshop: Workshop, count: int, draw: random.Random) -> Record:
    """Let a process have little more memory than it has, from the beginning or from a random moment on."""
    record = Record()
    for _ in range(count):
        _little_memory(record, workshop, draw)
        _less_memory(record, workshop, draw)
        _less_than_needed(record, workshop, draw)
    return record


def refused(record: Record, doing: str, code: int, printed: str, *words: str) -> None:
    """Record whether the command ended with 2 and one error of at most two lines that has these words."""
    lines = [line for line in printed[max(printed.rfind("error:"), 0) :].splitlines() if line.strip()]
    if code == 2 and len(lines) <= 2 and all(word in printed for word in words):
        record.count(f"{doing}: refused")
    else:
        record.deviate(doing, f"ended with {code}: {printed[-2000:]}")


def _begun(case: Case, folder: Path, checkpoints: int = 1) -> Child:
    """Start a training and return when so many checkpoints are on the disk."""
    child = Child(case.train(folder))
    while child.poll() is None and len(list(folder.glob("checkpoints/step-*"))) < checkpoints:
        time.sleep(0.001)
    return child


@contextmanager
def _read_only(folder: Path) -> Iterator[bool]:
    """Mount a folder on itself, read-only; yield whether that is allowed here."""
    mount = ["mount", "--bind", str(folder), str(folder)]
    mounted = subprocess.run(mount, capture_output=True).returncode == 0
    if mounted:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def _immutable(folder: Path) -> Iterator[bool]:
    """Set the immutable attribute, which binds root too; yield whether that is possible here."""
    changed = subprocess.run(["chattr", "+i", str(folder)], capture_output=True).returncode == 0
    try:
        yield changed
    finally:
        if changed:
            subprocess.run(["chattr", "-i", str(folder)], check=True)


def _unwritable(record: Record, workshop: Workshop, draw: random.Random) -> None:
    case = draw.choice(workshop.cases)
    for name, protect in (("a read-only mount", _read_only), ("an immutable folder", _immutable)):
        folder = workshop.new_folder()
        folder.mkdir()
        with protect(folder) as possible:
            if possible:
                code, printed = Child(case.train(folder)).finish()
                refused(record, f"{name} as --out", code, printed, str(folder))
            record.count(f"{name}: not possible here", int(not possible))
    file = workshop.new_folder()
    file.write_text("in the way")
    code, printed = Child(case.train(file)).finish()
    refused(record, "a file in the place of --out", code, printed, str(file))


def _checkpoints_unwritable(record: Record, workshop: Workshop, draw: random.Random) -> None:
    case, folder = draw.choice(workshop.cases), workshop.new_folder()
    doing = "the checkpoints' folder becomes immutable while training"
    child = _begun(case, folder)
    with _immutable(folder / "checkpoints") as possible:
        code, printed = child.finish()
        for what in unwhole(folder):
            record.deviate(doing, what)
    record.count(f"{doing}: {'exit ' + str(code) if possible else 'not possible here'}")
    if possible and (code != 0 or "could not be written" not in printed):
        record.deviate(doing, f"ended with {code}: {printed[-2000:]}")
    end_of(record, doing, case, folder)


def _in_use(record: Record, workshop: Workshop, draw: random.Random) -> None:
    case, folder = draw.choice(workshop.cases), workshop.new_folder()
    first = _begun(case, folder)
    os.kill(first.pid, signal.SIGSTOP)  # so that it is not over before the second one has started
    code, printed = Child(["train", "--resume", str(folder)]).finish()
    refused(record, "a run in use, resumed", code, printed, "in use by another training", str(first.pid))
    code, printed = Child(case.train(folder)).finish()
    refused(record, "a run in use, trained into", code, printed, "in use by another training")
    os.kill(first.pid, signal.SIGCONT)
    code, _ = first.finish()
    found = different(folder, case.reference)
    if code or found:
        record.deviate("the run in use", f"was disturbed: {code}, {found}")
    folder = workshop.new_folder()
    first = _begun(case, folder)
    first.send(signal.SIGKILL)
    first.finish()
    end_of(record, "a run whose process was killed holds no lock", case, folder)


def _removed(record: Record, workshop: Workshop, draw: random.Random) -> None:
    """A write into the folder that is removed fails, or the folder is made anew; the end is whole."""
    for what in ("checkpoints", "."):
        case, folder = draw.choice(workshop.cases), workshop.new_folder()
        doing = f"the folder {what} removed while training"
        child = _begun(case, folder)
        shutil.rmtree(folder / what, ignore_errors=True)
        code, printed = child.finish()
        record.count(f"{doing}: exit {code}")
        found = different(folder, case.reference) if code == 0 else ["it failed"]
        if found or "Traceback" in printed:
            record.deviate(doing, f"{code}, {found}: {printed[-2000:]}")


class _Poison(Callback):
    """Makes the weights huge after a step, as a learning rate of 1e30 would."""

    every = "1 steps"

    def on_step_end(self, trainer: Any, figures: Any) -> None:
        if figures.step % 20 == 0:
            time.sleep(0.05)  # so that checkpoints are on the disk when it comes to that
        if figures.step == 130:
            trainer.network.arena.values[:] = 1e30


def _diverged(record: Record, workshop: Workshop, draw: random.Random) -> None:
    """The greatest rate that is taken, from the beginning; and weights that explode after checkpoints."""
    case, folder, doing = workshop.wide, workshop.new_folder(), "a learning rate of 100"
    child = Child([*case.train(folder), "--learning-rate", "100", "--optimizer", "sgd"])
    refused(record, doing, *child.finish(), "Try learning_rate = 10")
    _check_finite(record, doing, folder / "checkpoints")
    child = Child([*case.train(workshop.new_folder()), "--learning-rate", "1e30"])
    refused(record, "a learning rate of 1e30", *child.finish(), "must be at most 100")
    random_numbers = np.random.default_rng(draw.randrange(2**32))
    X = random_numbers.normal(size=(200, 8)).astype(np.float32)
    y = random_numbers.integers(0, 3, 200)
    folder, doing = workshop.new_folder(), "weights that explode"
    ends = []
    for poison in ([_Poison()], []):
        trainer = _trainer()
        try:
            if poison:
                kept = Checkpoints(folder, "20 steps")
                trainer.fit(X, y, epochs=40, batch_size=32, callbacks=poison, checkpoints=kept)
                record.deviate(doing, "not noticed")
            else:
                trainer.resume(folder, X, y)
        except DivergenceError:
            record.count(f"{doing}: noticed")
        _check_finite(record, doing, folder)
        ends.append(trainer.network.parameters())
    whole = _trainer()
    whole.fit(X, y, epochs=40, batch_size=32)
    same = all(np.array_equal(value, ends[1][name]) for name, value in whole.network.parameters().items())
    if same:
        record.count(f"{doing}: gone on with from the last checkpoint, bit-identical")
    else:
        record.deviate(doing, "gone on with, it does not end as the training that never exploded")


def _trainer() -> Trainer:
    return Trainer(Network([Dense(16, "relu"), Dense(3)]), "cross_entropy", device="cpu")


def _check_finite(record: Record, doing: str, folder: Path) -> None:
    for path in folder.glob("*.safetensors"):
        values = Checkpoint.load(path).arrays["values"]
        record.count(f"{doing}: checkpoints with finite weights", int(bool(np.isfinite(values).all())))
        if not np.isfinite(values).all() or np.abs(values).max() > 1e20:
            record.deviate(doing, f"{path.name} holds weights up to {np.abs(values).max()}")


def _mapped(pid: int | str) -> int:
    """Return the size of a process's address space in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _limited(extra: int) -> Callable[[], None]:
    """Return what leaves a process so many bytes more than it has."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (_mapped("self") + extra, resource.RLIM_INFINITY))

    return limit


def _little_memory(record: Record, workshop: Workshop, draw: random.Random) -> None:
    """From the beginning: while the data are read, the network is placed, a checkpoint is copied."""
    for mebibytes in (0, 1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 64, 96, 128):
        case, folder = draw.choice(workshop.cases), workshop.new_folder()
        child = Child(case.train(folder), prepare=_limited(mebibytes * 2**20))
        _check_memory(record, f"{mebibytes} MiB left at the start", case, folder, child)


def _less_memory(record: Record, workshop: Workshop, draw: random.Random) -> None:
    """At a random moment of a training."""
    for mebibytes in (0, 0, 0, 4, 4, 8, 16, 32):
        case, folder = workshop.wide, workshop.new_folder()
        child = _begun(case, folder)
        time.sleep(draw.uniform(0, 0.3 * case.seconds))
        if child.poll() is None:
            limit = (_mapped(child.pid) + mebibytes * 2**20, resource.RLIM_INFINITY)
            resource.prlimit(child.pid, resource.RLIMIT_AS, limit)
        _check_memory(record, f"{mebibytes} MiB left while training", case, folder, child)


def _less_than_needed(record: Record, workshop: Workshop, draw: random.Random) -> None:
    """From the shell, so that nothing is mapped before: a larger network, with a share of what it needs."""
    options = ["--hidden", "1500,1500", "--epochs", "3", "--set", "run.checkpoint_every=5 steps"]
    reference = workshop.new_folder()
    case = Case("larger", [*workshop.wide.arguments, *options], reference)
    need = _peak(Child(case.train(reference), from_shell=True))
    for share in (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.98, 1.0):
        limit = int(share * need)
        folder, doing = workshop.new_folder(), f"{limit // 2**20} MiB of the {need // 2**20} MiB needed"

        def prepare(limit: int = limit) -> None:
            resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))

        _check_memory(record, doing, case, folder, Child(case.train(folder), True, prepare))


def _peak(child: Child) -> int:
    """Return the largest address space of a process that runs to its end."""
    largest = 0
    while child.poll() is None:
        with suppress(OSError, IndexError, ValueError):
            largest = max(largest, _mapped(child.pid))
        time.sleep(0.005)
    code, printed = child.finish()
    assert code == 0, printed
    return largest


def _check_memory(record: Record, doing: str, case: Case, folder: Path, child: Child) -> None:
    """It goes on, with a warning perhaps, or ends with 2; what is there is whole, and can be gone on with."""
    code, printed = child.finish(60.0)
    for what in unwhole(folder):
        record.deviate(doing, what)
    said = ", warned" * ("could not be written" in printed)
    record.count(f"little memory: exit {code}{said}")
    if code == 2:
        refused(record, "little memory", code, printed, "memory")
    elif code != 0 or "Traceback" in printed:
        hung = "hung, and was killed after a minute; " * (code == -signal.SIGKILL)
        record.deviate(doing, f"{hung}ended with {code}: {printed[-2500:]}")
    end_of(record, doing, case, folder)


def _stopped(case: Case, workshop: Workshop, more: list[str]) -> Path:
    folder = workshop.new_folder()
    child = _begun(Case(case.name, [*case.arguments, *more], case.reference), folder)
    child.send(signal.SIGKILL)
    child.finish()
    return folder


def _changed_before_resume(record: Record, workshop: Workshop, draw: random.Random) -> None:
    case = draw.choice(workshop.cases)
    source = Path(case.arguments[1])
    folder = _stopped(case, workshop, [])
    for name, option in (("--seed 5", ["--seed", "5"]), ("--hidden 9", ["--hidden", "9"])):
        code, printed = Child([*continuation(case, folder), *option]).finish()
        refused(record, f"resumed with {name}", code, printed, "not as in the training to be resumed")
    kept = source.read_bytes()
    with np.load(source) as arrays:
        X, y = arrays["X"].copy(), arrays["y"]
    X[draw.randrange(len(X)), 3] += 1e-3
    np.savez(source, X=X, y=y)
    code, printed = Child(continuation(case, folder)).finish()
    refused(record, "resumed with one number changed", code, printed, "other values")
    source.write_bytes(kept)
    end_of(record, "resumed with the data as they were", case, folder)


def _more_epochs(record: Record, workshop: Workshop, draw: random.Random) -> None:
    """With a constant rate, for the rates of a schedule over the whole training depend on its length."""
    case = workshop.small
    options = ["--schedule", "constant"]
    longer = workshop.new_folder()
    code, _ = Child([*case.arguments, *options, "--epochs", "80", "--out", str(longer)]).finish()
    assert code == 0
    folder = _stopped(case, workshop, options)
    code, printed = Child(["train", "--resume", str(folder), "--epochs", "80"]).finish()
    found = different(folder, longer)
    if code or found:
        record.deviate("--epochs raised on resume", f"{code}, {found}: {printed[-2000:]}")
    else:
        record.count("--epochs raised on resume: bit-identical to the longer training")


def _other_blas(record: Record, workshop: Workshop, draw: random.Random) -> None:
    """The number of BLAS threads is restored; another core type cannot be, and is said."""
    case = workshop.wide
    folder = _stopped(case, workshop, [])
    copy = workshop.new_folder()
    shutil.copytree(folder, copy)
    threads = {"OPENBLAS_NUM_THREADS": "2"}
    code, printed = Child(
        continuation(case, folder), from_shell=True, prepare=lambda: os.environ.update(threads)
    ).finish()
    found = different(folder, case.reference)
    if code or found or "to rounding" in printed:
        record.deviate("resumed with two BLAS threads", f"{code}, {found}: {printed[-2000:]}")
    else:
        record.count("resumed with two BLAS threads: one restored, bit-identical")
    core = {"OPENBLAS_CORETYPE": "Haswell"}
    code, printed = Child(
        continuation(case, copy), from_shell=True, prepare=lambda: os.environ.update(core)
    ).finish()
    if code or "resumed to rounding, not bit for bit: BLAS core type" not in printed:
        record.deviate("resumed with another BLAS core type", f"{code}: {printed[-2000:]}")
    else:
        record.count("resumed with another BLAS core type: said to be to rounding")
